//! Control groups (cgroups(7), second version) of process trees: made, looked after, removed.
//!
//! A process in the group carries the endpoint's identity, and so does every child of it, whatever it
//! runs. The group belongs to the endpoint alone, so it ends with it, and its processes with the group:
//! outside, they would go on without an identity. What an earlier life of the node left behind ends when
//! the next one starts, or takes its place.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use selvedge_fabric::{
    id::{EndpointId, NodeName},
    key::FabricId,
};
use serde::{Deserialize, Serialize};

/// How long a new group waits for its first process.
const ENTER_LIMIT: Duration = Duration::from_secs(10);
/// How long killed processes may take to end.
const END_LIMIT: Duration = Duration::from_secs(5);
/// How often to look whether they have.
const END_TICK: Duration = Duration::from_millis(20);
/// How deep groups that the processes made within their own are followed.
const MAX_DEPTH: u32 = 16;
/// The directory of all our groups.
const OURS: &str = "selvedge";

/// The control group of a process tree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its directory.
    pub directory: PathBuf,
    /// Its number, that of its directory; 0 until it is there.
    pub id: u64,
    /// Whether a process of it was seen.
    #[serde(skip)]
    entered: bool,
    /// Since when it waits for one.
    #[serde(skip)]
    waiting: Option<Instant>,
}

/// Whose groups they are. Several nodes may share a host, also of several fabrics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The fabric.
    pub fabric: FabricId,
    /// The node.
    pub node: NodeName,
}

impl Owner {
    fn directory(&self) -> Result<PathBuf, GroupError> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = mount_of(&mounts).ok_or(GroupError::NotMounted)?;
        Ok(root.join(OURS).join(format!("{}-{}", self.node, self.fabric)))
    }

    /// The groups of this node that are there and not among these: an earlier life left them behind.
    #[must_use]
    pub fn leftovers(&self, known: &BTreeSet<PathBuf>) -> Vec<Group> {
        self.directory().map_or_else(|_| Vec::new(), |directory| groups_in(&directory, known))
    }
}

fn groups_in(directory: &Path, known: &BTreeSet<PathBuf>) -> Vec<Group> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.map(|entry| entry.path()).filter(|path| !known.contains(path)).map(Group::at).collect()
}

/// Why there is no control group to be had, or none to be got rid of.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// The host has none of the second version.
    #[error("control groups of the second version are not mounted: mount -t cgroup2 none /sys/fs/cgroup")]
    NotMounted,
    /// The system refuses.
    #[error("cannot {what} the control group {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Its directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Group {
    /// The group that an endpoint is to have. Nothing is made yet.
    ///
    /// # Errors
    /// When the host has no control groups of the second version.
    pub fn plan(owner: &Owner, endpoint: &EndpointId) -> Result<Self, GroupError> {
        Ok(Self::at(owner.directory()?.join(endpoint.as_str())))
    }

    const fn at(directory: PathBuf) -> Self {
        Self { directory, id: 0, entered: false, waiting: None }
    }

    /// Makes it, empty. What an earlier life of this node left in its place is ended.
    ///
    /// # Errors
    /// When what is there does not end, or the system refuses.
    pub async fn make(&mut self) -> Result<(), GroupError> {
        if self.directory.exists() {
            self.remove().await?;
        }
        let failed = |source| self.error("make", source);
        fs::create_dir_all(self.directory.parent().unwrap_or(&self.directory)).map_err(failed)?;
        fs::create_dir(&self.directory).map_err(failed)?;
        self.id = fs::metadata(&self.directory).map_err(failed)?.ino();
        Ok(())
    }

    /// Whether it is there: the one that was made, not another of its name.
    #[must_use]
    pub fn is_there(&self) -> bool {
        fs::metadata(&self.directory).is_ok_and(|found| found.ino() == self.id)
    }

    /// Why it is of no use any more, if it is not.
    pub fn tend(&mut self) -> Option<&'static str> {
        let events = fs::read_to_string(self.directory.join("cgroup.events"));
        let Some(events) = events.ok().filter(|_| self.is_there()) else {
            return Some("its control group is gone");
        };
        if events.lines().any(|line| line == "populated 1") {
            self.entered = true;
            return None;
        }
        let waited = self.waiting.get_or_insert_with(Instant::now).elapsed();
        match (self.entered, waited > ENTER_LIMIT) {
            (true, _) => Some("its processes have ended"),
            (_, true) => Some("no process entered its control group within 10 s"),
            _ => None,
        }
    }

    /// Ends every process in it and removes it. Fine when it is gone.
    ///
    /// # Errors
    /// When processes do not end, or the system refuses.
    pub async fn remove(&self) -> Result<(), GroupError> {
        let deadline = Instant::now() + END_LIMIT;
        loop {
            match remove_tree(&self.directory, MAX_DEPTH) {
                Ok(()) => break,
                Err(error) if Instant::now() > deadline => return Err(self.error("remove", error)),
                Err(_) => {
                    // What is in it all the same is killed, with all groups below it.
                    let _ = fs::write(self.directory.join("cgroup.kill"), "1");
                    tokio::time::sleep(END_TICK).await;
                }
            }
        }
        // That of the node, and that of all nodes of this host, as long as others are in them.
        let above = self.directory.ancestors().skip(1).take(2);
        let _ = above.take_while(|directory| fs::remove_dir(directory).is_ok()).count();
        Ok(())
    }

    fn error(&self, what: &'static str, source: io::Error) -> GroupError {
        GroupError::Io { what, path: self.directory.clone(), source }
    }
}

/// Where control groups of the second version are, by a table of mounts.
fn mount_of(mounts: &str) -> Option<PathBuf> {
    let mut lines = mounts.lines().map(|line| line.split(' ').skip(1));
    lines.find_map(|mut fields| {
        let place = fields.next()?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// Removes a group without processes, and those below it. Its files are the kernel's, and go with it.
fn remove_tree(directory: &Path, depth: u32) -> io::Result<()> {
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) if depth == 0 => return Err(error),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path(), depth - 1)?;
        }
    }
    fs::remove_dir(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_version_is_found_wherever_it_is_mounted() {
        let hybrid =
            "cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        assert_eq!(mount_of(hybrid), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_of("none /sys/fs/cgroup cgroup2 rw 0 0\n"), Some("/sys/fs/cgroup".into()));
        assert_eq!(mount_of("cgroup2 /x tmpfs rw 0 0\n\n"), None);
    }

    #[tokio::test]
    async fn what_is_not_there_is_told_and_can_be_removed() {
        let place = tempfile::tempdir().expect("a directory");
        let mut group = Group::at(place.path().join("selvedge/n1/web-1"));
        group.make().await.expect("made");
        assert!(group.is_there());
        assert_eq!(group.tend(), Some("its control group is gone"), "no file of the kernel is in it");
        group.remove().await.expect("removed");
        assert!(!group.is_there());
        group.remove().await.expect("gone");
        assert!(place.path().read_dir().expect("there").next().is_none(), "nor is what was made for it");
    }

    #[tokio::test]
    async fn what_an_earlier_life_left_is_found_and_replaced() {
        let place = tempfile::tempdir().expect("a directory");
        let (left, kept) = (place.path().join("web-1"), place.path().join("web-2"));
        let known = BTreeSet::from([kept.clone()]);
        assert_eq!(groups_in(place.path(), &known), []);
        fs::create_dir_all(left.join("below")).expect("made");
        fs::create_dir(kept).expect("made");
        assert_eq!(groups_in(place.path(), &known), [Group::at(left.clone())]);
        let mut group = Group::at(left);
        group.make().await.expect("made in the place of the other");
        assert!(group.is_there() && group.directory.read_dir().expect("there").next().is_none());
    }
}
