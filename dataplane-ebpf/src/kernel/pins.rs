//! Where programs and maps outlive the process: the BPF file system.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use aya::maps::{MapInfo, MapType};
use rustix::{
    fs::statfs,
    mount::{MountFlags, mount},
};
use selvedge_abi::{
    Address, Attachment,
    layout::{
        ABI_VERSION, Control, EVENT_RING_BYTES, EdgeCounterKey, EdgeCounters, EndpointCounters,
        MAX_ATTACHMENTS, MAX_EDGE_COUNTERS, REASON_CODES,
    },
};

use super::sys;
use crate::DataplaneError;

/// `BPF_FS_MAGIC` of the kernel.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;
/// Where distributions mount the BPF file system.
const BPF_FS: &str = "/sys/fs/bpf";

/// A map as this version makes it. A pinned one that differs is somebody else's.
pub(super) struct MapSpec {
    pub(super) name: &'static str,
    kind: MapType,
    key_size: usize,
    value_size: usize,
    entries: u32,
}

const fn spec(name: &'static str, kind: MapType, key: usize, value: usize, entries: u32) -> MapSpec {
    MapSpec { name, kind, key_size: key, value_size: value, entries }
}

/// Every map. Inner maps need no check: the kernel compares them with the pattern of their outer map.
pub(super) const MAPS: [MapSpec; 15] = [
    spec("CONTROL", MapType::Array, 4, size_of::<Control>(), 1),
    spec("ENDPOINTS", MapType::ArrayOfMaps, 4, 4, 2),
    spec("NETWORKS", MapType::ArrayOfMaps, 4, 4, 2),
    spec("GROUPS", MapType::ArrayOfMaps, 4, 4, 2),
    spec("GUARDRAILS", MapType::ArrayOfMaps, 4, 4, 2),
    spec("CONTRACTS", MapType::ArrayOfMaps, 4, 4, 2),
    spec("LISTS", MapType::ArrayOfMaps, 4, 4, 2),
    spec("ATTACHMENTS", MapType::Hash, 4, size_of::<Attachment>(), MAX_ATTACHMENTS),
    spec("GROUPS_ATTACHED", MapType::Hash, 8, size_of::<Attachment>(), MAX_ATTACHMENTS),
    spec("GUARDED", MapType::Hash, size_of::<Address>(), 8, 2 * MAX_ATTACHMENTS),
    spec("FLOWS", MapType::ArrayOfMaps, 4, 4, MAX_ATTACHMENTS),
    spec("ENDPOINT_COUNTERS", MapType::PerCpuArray, 4, size_of::<EndpointCounters>(), MAX_ATTACHMENTS),
    spec(
        "EDGE_COUNTERS",
        MapType::LruPerCpuHash,
        size_of::<EdgeCounterKey>(),
        size_of::<EdgeCounters>(),
        MAX_EDGE_COUNTERS,
    ),
    spec("REFUSALS", MapType::PerCpuArray, 4, size_of::<u64>(), REASON_CODES),
    spec("EVENTS", MapType::RingBuf, 0, 0, EVENT_RING_BYTES),
];

impl MapSpec {
    /// What differs from a map that is there.
    fn difference(&self, info: &MapInfo) -> Option<String> {
        let kind = info.map_type().ok();
        let found = (kind, info.key_size() as usize, info.value_size() as usize, info.max_entries());
        let wanted = (Some(self.kind), self.key_size, self.value_size, self.entries);
        (found != wanted).then(|| format!("kind, key, value and entries are {found:?}, not {wanted:?}"))
    }
}

/// The directories of a node.
#[derive(Debug, Clone)]
pub(super) struct Pins {
    root: PathBuf,
}

impl Pins {
    /// Makes the directories, and mounts the file system when it is not.
    pub(super) fn open(parent: &Path, name: &str) -> Result<Self, DataplaneError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(fits) {
            return Err(DataplaneError::Name(name.to_owned()));
        }
        let pins = Self { root: parent.join(name) };
        let failed = |source| DataplaneError::Pins { path: pins.root.clone(), source };
        mount_if_absent(parent).map_err(failed)?;
        fs::create_dir_all(pins.maps()).map_err(failed)?;
        fs::create_dir_all(pins.links()).map_err(failed)?;
        pins.check_maps()?;
        Ok(pins)
    }

    /// The directory of this version's maps.
    fn maps(&self) -> PathBuf {
        self.root.join(format!("v{ABI_VERSION}"))
    }

    fn links(&self) -> PathBuf {
        self.root.join("links")
    }

    pub(super) fn map(&self, name: &str) -> PathBuf {
        self.maps().join(name)
    }

    pub(super) fn link(&self, name: &str) -> PathBuf {
        self.links().join(name)
    }

    /// The names of the pinned links.
    pub(super) fn link_names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(self.links())?;
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    }

    /// aya opens whatever is pinned; so its making is checked before.
    fn check_maps(&self) -> Result<(), DataplaneError> {
        for spec in MAPS {
            let path = self.map(spec.name);
            if !path.exists() {
                continue;
            }
            let info = MapInfo::from_pin(&path).map_err(DataplaneError::map(spec.name))?;
            if let Some(what) = spec.difference(&info) {
                return Err(DataplaneError::ForeignMap { path, what });
            }
        }
        Ok(())
    }

    /// The directories of maps of other versions.
    fn predecessors(&self) -> io::Result<Vec<PathBuf>> {
        let (mut found, mine) = (Vec::new(), self.maps());
        for entry in fs::read_dir(&self.root)? {
            let path = entry?.path();
            let version =
                path.file_name().and_then(|name| name.to_str()?.strip_prefix('v')?.parse::<u32>().ok());
            if version.is_some() && path != mine {
                found.push(path);
            }
        }
        Ok(found)
    }

    /// Whether another version pinned its maps here.
    pub(super) fn has_predecessor(&self) -> io::Result<bool> {
        Ok(!self.predecessors()?.is_empty())
    }

    /// Removes the maps of other versions.
    pub(super) fn remove_predecessors(&self) -> io::Result<()> {
        self.predecessors()?.iter().try_for_each(|directory| remove_pins(directory))
    }

    /// Removes everything that is pinned: nothing is enforced any more.
    pub(super) fn remove(&self) -> io::Result<()> {
        // Links first: a program without its maps' pins still has its maps.
        remove_pins(&self.links())?;
        remove_pins(&self.maps())?;
        self.remove_predecessors()?;
        fs::remove_dir(&self.root)
    }
}

/// Removes a directory and the pins in it.
fn remove_pins(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        fs::remove_file(entry?.path())?;
    }
    fs::remove_dir(directory)
}

/// Removes a pin; that it is gone already is fine.
pub(super) fn unpin(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Opens a pin, if there is one.
pub(super) fn open_pin(path: &Path) -> io::Result<Option<std::os::fd::OwnedFd>> {
    match sys::open_pin(path) {
        Ok(fd) => Ok(Some(fd)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Mounts the BPF file system at its usual place, when the directory for pins lies there and it is not
/// mounted: systemd does that, containers and small systems often do not.
fn mount_if_absent(parent: &Path) -> io::Result<()> {
    if is_bpf_fs(parent)? {
        return Ok(());
    }
    if !parent.starts_with(BPF_FS) {
        return Err(io::Error::other("not on a BPF file system"));
    }
    mount("bpf", BPF_FS, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)?;
    tracing::info!("mounted the BPF file system at {BPF_FS}");
    Ok(())
}

/// Whether the nearest directory that exists is on a BPF file system.
fn is_bpf_fs(path: &Path) -> io::Result<bool> {
    let existing = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    // The field is as wide as the system likes, the number has 32 bits.
    Ok(statfs(existing)?.f_type as u32 == BPF_FS_MAGIC)
}
