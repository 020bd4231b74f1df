//! Control groups: process trees that carry an identity.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io,
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use selvedge_abi::Address;

use super::{
    Attached, Dataplane, Place,
    attach::GUARD_PIN,
    hooks::GUARD,
    ignore_absent,
    pins::unpin,
    raw::Raw,
    sys::{self, AttachType},
};
use crate::{DataplaneError, Workload};

/// Most directories that are searched for a group after a restart. A busy host has a few thousand.
const MAX_SEARCHED: usize = 100_000;

/// Where the second version of control groups is mounted: `/sys/fs/cgroup` on most systems.
pub(crate) fn root() -> io::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut lines = mounts.lines().map(|line| line.split(' '));
    let found = lines.find_map(|mut fields| {
        let place = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(place))
    });
    found.ok_or_else(|| io::Error::other("cgroup2 is not mounted; mount -t cgroup2 none /sys/fs/cgroup"))
}

/// The directory of a group, by its number.
fn find(id: u64) -> io::Result<PathBuf> {
    let mut waiting = VecDeque::from([root()?]);
    for _ in 0..MAX_SEARCHED {
        let Some(directory) = waiting.pop_front() else { break };
        if fs::metadata(&directory).is_ok_and(|found| found.ino() == id) {
            return Ok(directory);
        }
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        let children = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        waiting.extend(children.map(|entry| entry.path()));
    }
    Err(io::Error::from(io::ErrorKind::NotFound))
}

impl Dataplane {
    /// Attaches a workload to a control group: every socket of every process in it carries the workload's
    /// addresses, which must be local to this host, and only what its contracts allow passes, over loopback
    /// too. What the process tree says to `127.0.0.1` or `::1` it says to itself, except where these are
    /// the workload's gateway and the node offers something on the port. Returns the place, to detach.
    ///
    /// Attach before the first process enters: sockets that exist already keep their addresses, and what
    /// they send from these is refused.
    ///
    /// # Errors
    /// When the directory is no control group of the second version, no place is left, or the kernel
    /// refuses. Then the group may be guarded already and refuse everything, but never the other way round.
    pub fn attach_cgroup(&mut self, directory: &Path, workload: Workload) -> Result<Place, DataplaneError> {
        let failed = || DataplaneError::system(format!("use the control group {}", directory.display()));
        if !directory.join("cgroup.procs").exists() || directory.join("tasks").exists() {
            return Err(failed()(io::Error::other("it is no directory of cgroup2")));
        }
        let id = fs::metadata(directory).map_err(failed())?.ino();
        let place = Place::Group(id);
        self.group_paths.insert(id, directory.to_owned());
        let attached = self.prepare(place, workload)?;
        let attachment = workload.group_attachment(attached.slot);
        for address in attachment.addresses.iter().filter(|address| !address.is_none()) {
            self.guarded.insert(Raw(*address), id, 0).map_err(DataplaneError::map("GUARDED"))?;
        }
        self.unguard(place, &attachment.addresses)?;
        self.groups.insert(id, Raw(attachment), 0).map_err(DataplaneError::map("GROUPS_ATTACHED"))?;
        self.attached.insert(place, attached);
        self.ensure_guard()?;
        self.ensure_linked(place)?;
        Ok(place)
    }

    /// No address but these is a group's any more.
    pub(super) fn unguard(&mut self, place: Place, but: &[Address]) -> Result<(), DataplaneError> {
        let Place::Group(id) = place else { return Ok(()) };
        let guarded = self.guarded.iter().filter_map(Result::ok);
        let gone = guarded.filter(|(address, owner)| *owner == id && !but.contains(&address.0));
        for address in gone.map(|(address, _)| address).collect::<Vec<_>>() {
            ignore_absent(self.guarded.remove(&address)).map_err(DataplaneError::map("GUARDED"))?;
        }
        Ok(())
    }

    /// Whether the guard is in its place, and pinned.
    pub(super) fn is_guarded(&self) -> Result<bool, DataplaneError> {
        let is_pinned = self.pins.as_ref().is_none_or(|pins| pins.link(GUARD_PIN).exists());
        Ok(is_pinned && self.guard_runs()?)
    }

    fn guard_runs(&self) -> Result<bool, DataplaneError> {
        let failed = || DataplaneError::system("inspect the guard of process trees");
        let Some(guard) = &self.guard else { return Ok(false) };
        let root = fs::metadata(root().map_err(failed())?).map_err(failed())?.ino();
        Ok(sys::link_info(guard.as_fd()).map_err(failed())?.target == root)
    }

    /// Nobody outside a group speaks from its address: a program at the root sees to that.
    pub(super) fn ensure_guard(&mut self) -> Result<(), DataplaneError> {
        let failed = || DataplaneError::system("guard the addresses of process trees");
        if !self.guard_runs()? {
            let root = File::open(root().map_err(failed())?).map_err(failed())?;
            let program = self.program(GUARD)?.as_fd();
            let link = sys::link_group(program, root.as_fd(), AttachType::GroupEgress).map_err(failed())?;
            self.guard = Some(link);
        }
        if let (Some(pins), Some(guard)) = (&self.pins, &self.guard) {
            let path = pins.link(GUARD_PIN);
            unpin(&path).and_then(|()| sys::pin(guard, &path)).map_err(failed())?;
        }
        Ok(())
    }

    pub(super) fn adopt_groups(&mut self) -> Result<(), DataplaneError> {
        for entry in self.groups.iter() {
            let (id, attachment) = entry.map_err(DataplaneError::map("GROUPS_ATTACHED"))?;
            let place = Place::Group(id);
            let workload = Workload::from(&attachment.0);
            self.attached.insert(place, Attached { place, workload, slot: attachment.0.slot });
            if let Ok(directory) = find(id) {
                self.group_paths.insert(id, directory);
            }
        }
        Ok(())
    }

    /// The directory of a group that is there.
    pub(super) fn group_directory(&self, id: u64) -> Result<File, DataplaneError> {
        let place = Place::Group(id);
        let directory = self.group_paths.get(&id).ok_or(DataplaneError::NotAttached(place))?;
        let failed = || DataplaneError::system(format!("open {place}"));
        let file = File::open(directory).map_err(failed())?;
        match file.metadata().map_err(failed())?.ino() == id {
            true => Ok(file),
            false => Err(DataplaneError::NotAttached(place)),
        }
    }
}
