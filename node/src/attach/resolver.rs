//! Name resolution of what is attached: its resolv.conf(5), set up on attaching, put back on leaving.
//!
//! A file is always replaced as a whole, so that no program ever reads half of one. What was there is kept
//! beside it until it is put back, and a file that somebody else changed in between is left alone.

//!
//! The directory may belong to a workload that means harm, with links in it that lead to the host's files.
//! So every path is resolved within the workload's own root (openat2(2), RESOLVE_IN_ROOT), and nothing is
//! written through a link.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::IpAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, mkdirat, openat, openat2, renameat, unlinkat};
use serde::{Deserialize, Serialize};

/// First line of the files that we write, by which we know them again.
const MARK: &str = "# Written by selvedge; the file of before is put back when the endpoint is detached.";
/// The file.
const FILE: &str = "resolv.conf";
/// What the file of before is called.
const KEPT: &str = "resolv.conf.before-selvedge";
/// Largest file that we take for a resolv.conf.
const MAX_BYTES: u64 = 64 * 1024;

/// Why name resolution could not be set up or put back.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} {path}: {source}")]
pub struct ResolverError {
    what: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Where the resolv.conf is that a namespace's programs read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// This file is theirs alone.
    Own(ResolvConf),
    /// They read the host's, which is not theirs to change. Why, and what to do.
    Shared(String),
}

/// A resolv.conf within the root directory of those who read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvConf {
    root: PathBuf,
    directory: PathBuf,
}

/// Where programs in a namespace that `ip netns` made find their resolv.conf: `ip netns exec` lays the
/// file over /etc/resolv.conf when it is there (ip-netns(8)).
#[must_use]
pub fn of_named(netns: &Path) -> Place {
    let directories = ["/run/netns", "/var/run/netns"];
    let named = netns.parent().is_some_and(|p| directories.iter().any(|d| p == Path::new(d)));
    match netns.file_name() {
        Some(name) if named => {
            let directory = Path::new("etc/netns").join(name);
            Place::Own(ResolvConf { root: PathBuf::from("/"), directory })
        }
        _ => Place::Shared(format!(
            "{} has no resolv.conf of its own: point its programs to the gateway, or attach by --pid",
            netns.display()
        )),
    }
}

/// Where a process finds its resolv.conf: in its own root, if its mount namespace is not ours.
#[must_use]
pub fn of_process(pid: u32) -> Place {
    let id = |p: String| fs::read_link(format!("/proc/{p}/ns/mnt")).ok();
    match (id(pid.to_string()), id("self".to_owned())) {
        (Some(theirs), Some(own)) if theirs != own => {
            let root = PathBuf::from(format!("/proc/{pid}/root"));
            Place::Own(ResolvConf { root, directory: PathBuf::from("etc") })
        }
        _ => Place::Shared(format!(
            "process {pid} reads the host's /etc/resolv.conf: give it a mount namespace with its own (unshare -m)"
        )),
    }
}

impl ResolvConf {
    /// Makes it ask `gateways`, keeping search lists and options of the one that was there.
    ///
    /// # Errors
    /// When it cannot be written; the old one is then still there.
    pub fn set_up(&self, gateways: &[IpAddr]) -> Result<(), ResolverError> {
        let directory = self.open(true).map_err(|e| self.error("open the directory of", e))?;
        let Some(directory) = directory else {
            return Err(self.error("open the directory of", io::ErrorKind::NotFound.into()));
        };
        let before = directory.read(FILE).map_err(|e| self.error("read", e))?;
        if let Some(text) = before.as_deref().filter(|text| !text.starts_with(MARK)) {
            directory.replace(KEPT, text).map_err(|e| self.error("keep a copy of", e))?;
        }
        let kept = directory.read(KEPT).map_err(|e| self.error("read the copy of", e))?;
        let text = text_for(gateways, kept.or(before).as_deref().unwrap_or_default());
        directory.replace(FILE, &text).map_err(|e| self.error("write", e))
    }

    /// Puts back what was there before [`Self::set_up`]. A file that is not ours any more, or that went with
    /// its namespace, stays as it is.
    ///
    /// # Errors
    /// When it cannot be put back.
    pub fn put_back(&self) -> Result<(), ResolverError> {
        let Some(directory) = self.open(false).map_err(|e| self.error("open the directory of", e))? else {
            return Ok(());
        };
        let now = directory.read(FILE).map_err(|e| self.error("read", e))?;
        let ours = now.is_some_and(|text| text.starts_with(MARK));
        match directory.read(KEPT).map_err(|e| self.error("read the copy of", e))? {
            Some(text) if ours => directory.replace(FILE, &text).map_err(|e| self.error("put back", e))?,
            None if ours => directory.remove(FILE).map_err(|e| self.error("remove", e))?,
            _ => {}
        }
        directory.remove(KEPT).map_err(|e| self.error("remove the copy of", e))
    }

    /// The directory it is in; none when it is not there and need not be made.
    fn open(&self, make: bool) -> io::Result<Option<Directory>> {
        let absent = |e: &io::Error| e.kind() == io::ErrorKind::NotFound;
        let root: OwnedFd = match File::open(&self.root) {
            Ok(root) => root.into(),
            Err(e) if absent(&e) => return Ok(None),
            Err(e) => return Err(e),
        };
        if make {
            let mut path = PathBuf::new();
            for part in self.directory.components() {
                path.push(part);
                match mkdirat(&root, &path, Mode::from_raw_mode(0o755)) {
                    Ok(()) | Err(rustix::io::Errno::EXIST) => {}
                    Err(e) => return Err(e.into()),
                }
            }
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        match openat2(&root, &self.directory, flags, Mode::empty(), WITHIN) {
            Ok(fd) => Ok(Some(Directory { root, fd, path: self.directory.clone() })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    fn error(&self, what: &'static str, source: io::Error) -> ResolverError {
        ResolverError { what, path: self.root.join(&self.directory).join(FILE), source }
    }
}

/// How paths of a workload are resolved.
const WITHIN: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// An open directory of a workload.
struct Directory {
    root: OwnedFd,
    fd: OwnedFd,
    path: PathBuf,
}

impl Directory {
    /// The text of a file; none when it is not there. Links are followed within the workload's root.
    fn read(&self, name: &str) -> io::Result<Option<String>> {
        // Not blocking: a pipe by that name must not hold us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match openat2(&self.root, self.path.join(name), flags, Mode::empty(), WITHIN) {
            Ok(fd) => File::from(fd),
            Err(rustix::io::Errno::NOENT) => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let mut bytes = Vec::new();
        let read = file.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
        if u64::try_from(read).unwrap_or(u64::MAX) > MAX_BYTES {
            return Err(io::Error::other("far too large for a resolv.conf"));
        }
        Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// Replaces a file, or the link by that name, as a whole. One that is mounted over, as container
    /// engines do it, cannot be renamed over and is written in place.
    fn replace(&self, name: &str, text: &str) -> io::Result<()> {
        const NEW: &str = "resolv.conf.selvedge-new";
        self.remove(NEW)?;
        self.write(NEW, OFlags::CREATE | OFlags::EXCL, text)?;
        match renameat(&self.fd, NEW, &self.fd, name) {
            Err(rustix::io::Errno::BUSY) => {
                self.remove(NEW)?;
                self.write(name, OFlags::TRUNC, text)
            }
            done => Ok(done?),
        }
    }

    fn write(&self, name: &str, flags: OFlags, text: &str) -> io::Result<()> {
        let flags = flags | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let fd = openat(&self.fd, name, flags, Mode::from_raw_mode(0o644))?;
        File::from(fd).write_all(text.as_bytes())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match unlinkat(&self.fd, name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
            Err(e) => Err(e.into()),
        }
    }
}

/// The new text: our servers, then every line of the old one that names no server.
fn text_for(gateways: &[IpAddr], before: &str) -> String {
    let servers = gateways.iter().map(|gateway| format!("nameserver {gateway}"));
    let is_server = |line: &&str| line.split_whitespace().next() == Some("nameserver");
    let others = before.lines().filter(|line| !is_server(line) && *line != MARK).map(str::to_owned);
    let lines: Vec<_> = std::iter::once(MARK.to_owned()).chain(servers).chain(others).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "search corp.example\nnameserver 192.0.2.1\noptions ndots:2\n";

    fn gateways() -> Vec<IpAddr> {
        vec!["100.64.1.1".parse().expect("an address"), "fd00::1".parse().expect("an address")]
    }

    /// A root directory with `etc/` in it.
    fn root() -> (tempfile::TempDir, ResolvConf) {
        let root = tempfile::tempdir().expect("a directory");
        fs::create_dir(root.path().join("etc")).expect("made");
        let conf = ResolvConf { root: root.path().to_owned(), directory: PathBuf::from("etc") };
        (root, conf)
    }

    #[test]
    fn search_lists_stay_and_all_is_put_back() {
        let (root, conf) = root();
        let file = root.path().join("etc/resolv.conf");
        fs::write(&file, BEFORE).expect("written");
        for _ in 0..2 {
            conf.set_up(&gateways()).expect("set up, also twice");
            let now = fs::read_to_string(&file).expect("there");
            let ours = "nameserver 100.64.1.1\nnameserver fd00::1";
            assert_eq!(now, format!("{MARK}\n{ours}\nsearch corp.example\noptions ndots:2\n"));
        }
        conf.put_back().expect("put back");
        assert_eq!(fs::read_to_string(&file).expect("there"), BEFORE);
        let left = fs::read_dir(root.path().join("etc")).expect("a directory").count();
        assert_eq!(left, 1, "nothing is left beside it");
    }

    #[test]
    fn where_there_was_none_there_is_none_again() {
        let (root, _) = root();
        let directory = PathBuf::from("etc/netns/web");
        let conf = ResolvConf { root: root.path().to_owned(), directory };
        conf.set_up(&gateways()).expect("set up");
        let file = root.path().join("etc/netns/web/resolv.conf");
        assert!(file.exists());
        conf.put_back().expect("put back");
        assert!(!file.exists());
        fs::remove_dir_all(root.path()).expect("gone");
        conf.put_back().expect("gone with its root");
    }

    #[test]
    fn what_somebody_else_wrote_since_is_left_alone() {
        let (root, conf) = root();
        let file = root.path().join("etc/resolv.conf");
        fs::write(&file, BEFORE).expect("written");
        conf.set_up(&gateways()).expect("set up");
        fs::write(&file, "nameserver 192.0.2.2\n").expect("written");
        conf.put_back().expect("left alone");
        assert_eq!(fs::read_to_string(&file).expect("there"), "nameserver 192.0.2.2\n");
    }

    #[test]
    fn links_of_a_workload_lead_nowhere_outside_its_root() {
        let (root, conf) = root();
        let outside = tempfile::tempdir().expect("a directory");
        let secret = outside.path().join("secret");
        fs::write(&secret, "options secret\n").expect("written");
        std::os::unix::fs::symlink(&secret, root.path().join("etc/resolv.conf")).expect("linked");
        conf.set_up(&gateways()).expect("the link is replaced");
        let now = fs::read_to_string(root.path().join("etc/resolv.conf")).expect("there");
        assert!(!now.contains("secret"), "{now}");
        assert_eq!(fs::read_to_string(&secret).expect("there"), "options secret\n");

        let (evil, conf) = self::root();
        fs::remove_dir(evil.path().join("etc")).expect("removed");
        std::os::unix::fs::symlink(outside.path(), evil.path().join("etc")).expect("linked");
        conf.set_up(&gateways()).expect_err("a directory outside");
        assert!(!outside.path().join(FILE).exists());
    }

    #[test]
    fn places_are_told_apart() {
        let directory = PathBuf::from("etc/netns/web");
        let own = Place::Own(ResolvConf { root: PathBuf::from("/"), directory });
        assert_eq!(of_named(Path::new("/run/netns/web")), own);
        assert!(matches!(of_named(Path::new("/proc/1/ns/net")), Place::Shared(_)));
        assert!(matches!(of_process(std::process::id()), Place::Shared(_)));
    }
}
