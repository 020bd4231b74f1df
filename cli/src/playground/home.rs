//! The directory of a playground: made when it starts, gone when it ends, whatever else may lie in it.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::state::{Sign, State};

/// Where graphs and service tokens lie.
const INTENT_DIR: &str = "intent";
/// Where the resolv.conf of every endpoint lies.
const NAMES_DIR: &str = "resolv";
/// Entries of the directory beside those of the nodes.
const OWN_ENTRIES: [&str; 5] =
    [INTENT_DIR, NAMES_DIR, "playground.json", "playground.json.new", super::control::SOCKET];

/// Where a playground's directory comes from, and so what may go with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// It was there: only our entries go.
    Found,
    /// We made it where the user said: it goes too, if nothing of others is in it by then.
    Made,
    /// Nobody else knows it: it goes whole.
    Temporary,
}

/// The directory of this playground; what was made in it is removed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Home {
    root: PathBuf,
    origin: Origin,
    entries: Vec<String>,
    sockets: Option<TempDir>,
    sign: Option<Sign>,
}

impl Home {
    /// Claims `dir`, or a new temporary directory, for nodes of these names.
    ///
    /// # Errors
    /// When a playground runs there, or an entry that would be ours is there already and no former
    /// playground's: nothing of the user is ever removed.
    pub(crate) fn claim(dir: Option<&Path>, nodes: Vec<String>) -> anyhow::Result<Self> {
        let (root, origin) = match dir {
            Some(dir) => open_root(dir)?,
            None => {
                let dir = tempfile::Builder::new().prefix("selvedge-").tempdir();
                (dir.context("cannot make a temporary directory")?.keep(), Origin::Temporary)
            }
        };
        clear_former(&root)?;
        let entries: Vec<String> = nodes.into_iter().chain(OWN_ENTRIES.map(str::to_owned)).collect();
        if let Some(taken) = entries.iter().find(|e| fs::symlink_metadata(root.join(e)).is_ok()) {
            bail!(
                "{} is there already; name an empty directory with --dir, or leave it out",
                root.join(taken).display()
            );
        }
        let home = Self { root, origin, entries, sockets: None, sign: None };
        home.make_dir(&home.root.join(INTENT_DIR))?;
        home.make_dir(&home.root.join(NAMES_DIR))?;
        Ok(home)
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A directory with a short path, for sockets.
    pub(crate) fn short_dir(&mut self) -> anyhow::Result<&Path> {
        if self.sockets.is_none() {
            let made = tempfile::Builder::new().prefix("svg-").tempdir_in("/tmp");
            self.sockets = Some(made.context("cannot make a directory for sockets in /tmp")?);
        }
        Ok(self.sockets.as_ref().map_or(&self.root, |dir| dir.path()))
    }

    pub(crate) fn make_dir(&self, dir: &Path) -> anyhow::Result<()> {
        let made = fs::DirBuilder::new().mode(0o700).create(dir);
        made.with_context(|| format!("cannot make the directory {}", dir.display()))
    }

    /// Writes a file of graphs or tokens, readable by its owner alone, and returns its path.
    pub(crate) fn write_intent(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.root.join(INTENT_DIR).join(name);
        write_private(&file, text)?;
        Ok(file)
    }

    /// The resolv.conf(5) of an endpoint.
    pub(crate) fn resolv_conf(&self, endpoint: &str) -> PathBuf {
        self.root.join(NAMES_DIR).join(endpoint)
    }

    /// Makes the playground findable by drills.
    pub(crate) fn publish(&mut self, state: &State) -> anyhow::Result<()> {
        state.save()?;
        self.sign = Some(Sign::put_up(&self.root)?);
        Ok(())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.sign = None;
        remove_entries(&self.root, &self.entries);
        match self.origin {
            Origin::Found => {}
            Origin::Made => {
                let _ = fs::remove_dir(&self.root);
            }
            Origin::Temporary => {
                let _ = fs::remove_dir_all(&self.root);
            }
        }
    }
}

/// Writes a file that its owner alone may read.
pub(crate) fn write_private(file: &Path, text: &str) -> anyhow::Result<()> {
    let open = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file);
    open.and_then(|mut f| io::Write::write_all(&mut f, text.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// The absolute path of `dir`, which is made if need be.
fn open_root(dir: &Path) -> anyhow::Result<(PathBuf, Origin)> {
    let origin = match fs::DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => Origin::Made,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Origin::Found,
        Err(e) => return Err(e).with_context(|| format!("cannot make the directory {}", dir.display())),
    };
    let root = dir.canonicalize().with_context(|| format!("cannot use the directory {}", dir.display()))?;
    Ok((root, origin))
}

/// Removes what a playground left that was killed before it could clean up.
fn clear_former(root: &Path) -> anyhow::Result<()> {
    let Some(former) = State::load(root)? else { return Ok(()) };
    if former.is_running() {
        bail!("a playground runs in {} already (process {})", root.display(), former.pid);
    }
    let nodes = former.nodes.into_iter().map(|n| n.name);
    // The names come from a file: none of them may lead out of the directory.
    let inside: Vec<_> =
        nodes.filter(|n| !n.contains('/') && n != "..").chain(OWN_ENTRIES.map(str::to_owned)).collect();
    remove_entries(root, &inside);
    Ok(())
}

fn remove_entries(root: &Path, entries: &[String]) {
    for entry in entries.iter().filter(|e| !e.is_empty() && *e != ".") {
        let path = root.join(entry);
        let removed = match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => fs::remove_dir_all(&path),
            Ok(_) => fs::remove_file(&path),
            Err(_) => continue,
        };
        if let Err(error) = removed {
            tracing::warn!(path = %path.display(), %error, "cannot remove");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Vec<String> {
        vec!["aws-p1".to_owned(), "azr-p1".to_owned()]
    }

    #[test]
    fn removes_what_it_made_and_nothing_else() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("notes"), "mine").expect("written");
        let home = Home::claim(Some(dir.path()), names()).expect("claimed");
        home.make_dir(&home.root().join("aws-p1")).expect("made");
        home.write_intent("voting.token", "secret").expect("written");
        drop(home);
        let left: Vec<_> =
            fs::read_dir(dir.path()).expect("there").flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["notes"]);
    }

    #[test]
    fn a_directory_that_it_made_goes_too() {
        let dir = tempfile::tempdir().expect("a directory");
        let inner = dir.path().join("new");
        let mut home = Home::claim(Some(&inner), names()).expect("claimed");
        let short = home.short_dir().expect("a short directory").to_owned();
        assert!(inner.is_dir() && short.is_dir());
        drop(home);
        assert!(!inner.exists() && !short.exists());
        let home = Home::claim(None, names()).expect("claimed");
        let temporary = home.root().to_owned();
        drop(home);
        assert!(!temporary.exists());
    }

    #[test]
    fn files_of_the_user_are_never_taken() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("aws-p1")).expect("made");
        let error = Home::claim(Some(dir.path()), names()).expect_err("taken");
        assert!(error.to_string().contains("aws-p1"), "{error:#}");
        assert!(dir.path().join("aws-p1").is_dir());
    }

    #[test]
    fn leftovers_of_a_killed_playground_are_cleared() {
        let dir = tempfile::tempdir().expect("a directory");
        let state = serde_json::json!({
            "ready": true, "suffix": "fabric.internal", "contracts": [], "dir": dir.path(), "pid": u32::MAX,
            "nodes": [{"name": "aws-p1", "zone": "aws", "role": "processor", "pid": 1, "socket": "s",
                       "api": "a", "dns": "127.0.0.1:1"}],
        });
        fs::write(dir.path().join("playground.json"), state.to_string()).expect("written");
        fs::create_dir(dir.path().join("aws-p1")).expect("made");
        fs::write(dir.path().join("aws-p1/log"), "").expect("written");
        Home::claim(Some(dir.path()), names()).expect("claimed again");
    }
}
