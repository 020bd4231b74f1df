//! The data plane in the kernel.

use std::{
    collections::BTreeMap,
    fmt,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, Map, MapData, MapError, PerCpuArray, PerCpuHashMap},
    programs::ProgramFd,
};
use selvedge_abi::{
    Address, Attachment, FlowEntry, FlowKey,
    layout::{EdgeCounterKey, EdgeCounters, EndpointCounters, FLOWS_PER_ATTACHMENT, MAX_ATTACHMENTS},
};

use crate::{Counters, DataplaneError, Events, TableImage, Workload};

mod attach;
mod control;
mod floor;
mod group;
mod hooks;
mod pins;
mod predecessor;
mod probe;
pub(crate) mod raw;
mod sys;
mod tables;

use control::ControlPage;
use hooks::Hook;
use pins::{MAPS, Pins};
pub use probe::Probe;
use raw::Raw;
use tables::KernelTables;

/// The programs, built by `cargo xtask ebpf build`.
static OBJECT: &[u8] = aya::include_bytes_aligned!("../../object/selvedge.bpf.o");

/// The variable of the programs that is the node's network namespace.
const NETNS: &str = "SELVEDGE_NETNS";

/// How the data plane is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The name of the node: letters, digits, `-` and `_`. Several nodes of one host have several names.
    pub name: String,
    /// The directory under which everything is pinned. `None`: nothing is, and with the process ends what
    /// lets packets pass; for tests.
    pub pins: Option<PathBuf>,
}

impl Options {
    /// Pinned at the usual place.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), pins: Some(PathBuf::from("/sys/fs/bpf/selvedge")) }
    }
}

/// Where something is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The host side of a workload's interface, by index: a veth or tap.
    Interface(u32),
    /// A control group, by number: that of its directory.
    Group(u64),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interface(index) => write!(f, "interface {index}"),
            Self::Group(id) => write!(f, "control group {id}"),
        }
    }
}

/// A workload at its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attached {
    /// Where.
    pub place: Place,
    /// What.
    pub workload: Workload,
    /// Its place in the tables that exist once per attachment; events carry it.
    pub slot: u32,
}

/// Something that was not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// The interface or group is gone.
    Gone(Place),
    /// A program was removed.
    Removed(Place),
    /// Another program runs before ours, and might let pass what ours refuses.
    Overtaken(Place),
    /// A pin was removed: the end of this process would end enforcement.
    Unpinned(Place),
    /// Nothing dropped what no program judges: removing the programs would have let everything pass.
    Floorless(Place),
    /// Nothing keeps processes outside of groups from speaking from their addresses.
    Unguarded,
}

/// The data plane of a node.
///
/// Dropping it ends nothing that is pinned; [`Dataplane::remove`] does.
pub struct Dataplane {
    ebpf: Ebpf,
    pins: Option<Pins>,
    control: ControlPage,
    tables: KernelTables,
    attachments: HashMap<MapData, u32, Raw<Attachment>>,
    groups: HashMap<MapData, u64, Raw<Attachment>>,
    guarded: HashMap<MapData, Raw<Address>, u64>,
    flows: MapData,
    endpoint_counters: PerCpuArray<MapData, Raw<EndpointCounters>>,
    edge_counters: PerCpuHashMap<MapData, Raw<EdgeCounterKey>, Raw<EdgeCounters>>,
    refusals: PerCpuArray<MapData, u64>,
    events: Option<Events>,
    attached: BTreeMap<Place, Attached>,
    links: BTreeMap<(Place, Hook), OwnedFd>,
    /// Of a process of another version, and still in force.
    predecessors: BTreeMap<(Place, Hook), OwnedFd>,
    guard: Option<OwnedFd>,
    group_paths: BTreeMap<u64, PathBuf>,
}

impl fmt::Debug for Dataplane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Dataplane");
        debug.field("pins", &self.pins).field("attached", &self.attached).finish_non_exhaustive()
    }
}

/// Loads the programs of a node in a network namespace; 0 for any.
fn load(pins: Option<&Pins>, netns: u64) -> Result<Ebpf, DataplaneError> {
    let mut loader = EbpfLoader::new();
    for spec in &MAPS {
        if let Some(pins) = pins {
            loader.map_pin_path(spec.name, pins.map(spec.name));
        }
    }
    let mut ebpf = loader.override_global(NETNS, &netns, true).load(OBJECT)?;
    hooks::load(&mut ebpf)?;
    Ok(ebpf)
}

/// A map of the object, typed.
fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &'static str) -> Result<T, DataplaneError> {
    let map = ebpf.take_map(name).ok_or(DataplaneError::Missing(name))?;
    map.try_into().map_err(DataplaneError::map(name))
}

impl Dataplane {
    /// Loads the programs. What an earlier process of the same name pinned is adopted: its tables,
    /// attachments, flows and counters, and its programs are replaced by these between two packets. If it was
    /// of a version with other tables, its programs stay in force until each place is attached again.
    ///
    /// # Errors
    /// When the kernel does not take the programs, or what is pinned is not ours.
    pub fn open(options: &Options) -> Result<Self, DataplaneError> {
        let pins = options.pins.as_ref().map(|parent| Pins::open(parent, &options.name)).transpose()?;
        let netns = sys::network_namespace();
        let ebpf = match load(pins.as_ref(), netns) {
            // Before Linux 6.16 the kernel does not tell programs of control groups which network namespace
            // a packet is of, and does not take one that asks.
            Err(_) if netns != 0 => load(pins.as_ref(), 0)?,
            loaded => loaded?,
        };
        let mut plane = Self::assemble(ebpf, pins)?;
        plane.adopt()?;
        Ok(plane)
    }

    fn assemble(mut ebpf: Ebpf, pins: Option<Pins>) -> Result<Self, DataplaneError> {
        let Some(Map::Array(control)) = ebpf.take_map("CONTROL") else {
            return Err(DataplaneError::Missing("CONTROL"));
        };
        let Some(Map::ArrayOfMaps(flows)) = ebpf.take_map("FLOWS") else {
            return Err(DataplaneError::Missing("FLOWS"));
        };
        let Some(Map::RingBuf(ring)) = ebpf.take_map("EVENTS") else {
            return Err(DataplaneError::Missing("EVENTS"));
        };
        let events = Events::new(ring)?;
        let control =
            ControlPage::new(control.fd()).map_err(DataplaneError::system("map the control page"))?;
        Ok(Self {
            control,
            tables: KernelTables::take(&mut ebpf)?,
            attachments: take(&mut ebpf, "ATTACHMENTS")?,
            groups: take(&mut ebpf, "GROUPS_ATTACHED")?,
            guarded: take(&mut ebpf, "GUARDED")?,
            flows,
            endpoint_counters: take(&mut ebpf, "ENDPOINT_COUNTERS")?,
            edge_counters: take(&mut ebpf, "EDGE_COUNTERS")?,
            refusals: take(&mut ebpf, "REFUSALS")?,
            events: Some(events),
            attached: BTreeMap::new(),
            links: BTreeMap::new(),
            predecessors: BTreeMap::new(),
            guard: None,
            group_paths: BTreeMap::new(),
            pins,
            ebpf,
        })
    }

    /// Puts tables in force, all at once: no packet is judged by some of the old and some of the new.
    /// When it returns, no packet is judged by the old ones any more. Tables that are the same as those in
    /// force only take their revision.
    ///
    /// # Errors
    /// When the kernel has no memory for them; then the old ones stay in force.
    pub fn sync(&mut self, image: TableImage) -> Result<(), DataplaneError> {
        self.tables.install(image, &self.control)
    }

    /// Says by which interface of this host packets of other nodes arrive, the overlay's TUN; 0 for none, as
    /// at first. By any other, what claims an address of the fabric is refused, unless a workload is
    /// attached there.
    pub fn set_carrier(&self, ifindex: u32) {
        self.control.set_carrier(ifindex);
    }

    /// The revision of policy in force; `None` before the first [`Dataplane::sync`], when everything is
    /// refused. After adoption it is that of the process before.
    #[must_use]
    pub fn revision(&self) -> Option<u64> {
        let generation = self.control.generation();
        (generation != 0).then(|| self.control.revision(tables::slot_of(generation)))
    }

    /// Attaches a workload to the host side of its interface, in the network namespace of this thread.
    /// From here on only what its contracts allow passes. Attaching again changes what is attached; if
    /// identity or addresses differ, its flows are forgotten.
    ///
    /// # Errors
    /// When there is no such interface, no place, or the kernel refuses. Then the interface may be guarded
    /// already and refuse everything, but never the other way round.
    pub fn attach_interface(&mut self, ifindex: u32, workload: Workload) -> Result<(), DataplaneError> {
        let place = Place::Interface(ifindex);
        self.lay_floor(ifindex)?;
        let attached = self.prepare(place, workload)?;
        let entry = Raw(workload.attachment(attached.slot));
        self.attachments.insert(ifindex, entry, 0).map_err(DataplaneError::map("ATTACHMENTS"))?;
        self.attached.insert(place, attached);
        self.ensure_linked(place)
    }

    /// A slot for an attachment, with an empty table of flows unless nothing changes.
    fn prepare(&mut self, place: Place, workload: Workload) -> Result<Attached, DataplaneError> {
        let known = self.attached.get(&place).copied();
        let slot = match known {
            Some(known) => known.slot,
            None => self.free_slot()?,
        };
        if known.is_none_or(|known| known.workload != workload) {
            self.clear_flows(slot)?;
        }
        Ok(Attached { place, workload, slot })
    }

    fn free_slot(&self) -> Result<u32, DataplaneError> {
        let taken = |slot: &u32| self.attached.values().any(|attached| attached.slot == *slot);
        let free = (0..MAX_ATTACHMENTS).find(|slot| !taken(slot));
        free.ok_or(DataplaneError::Full { limit: MAX_ATTACHMENTS })
    }

    fn clear_flows(&mut self, slot: u32) -> Result<(), DataplaneError> {
        let table = sys::create_map::<FlowKey, FlowEntry>(tables::LRU, FLOWS_PER_ATTACHMENT as usize)
            .map_err(DataplaneError::system("make a table of flows"))?;
        sys::set_inner(self.flows.fd().as_fd(), slot, table.as_fd())
            .map_err(DataplaneError::system("put a table of flows in its place"))
    }

    /// Detaches a workload. While its interface is there, nothing guards it any more: remove the
    /// interface, or the workload's addresses, first; or end the processes of its group.
    ///
    /// # Errors
    /// When nothing is attached there, or the kernel refuses.
    pub fn detach(&mut self, place: Place) -> Result<(), DataplaneError> {
        let attached = self.attached.remove(&place).ok_or(DataplaneError::NotAttached(place))?;
        // First the entry: until the programs are gone as well, everything is refused.
        let removed = match place {
            Place::Interface(ifindex) => self.attachments.remove(&ifindex),
            Place::Group(id) => self.groups.remove(&id),
        };
        ignore_absent(removed).map_err(DataplaneError::map("ATTACHMENTS"))?;
        for hook in Hook::of(place) {
            self.unlink(place, *hook)?;
        }
        if let Place::Interface(ifindex) = place {
            self.lift_floor(ifindex)?;
        }
        self.unguard(place, &[])?;
        // The kernel keeps their memory as long as the flows are in their slot.
        sys::clear_inner(self.flows.fd().as_fd(), attached.slot)
            .map_err(DataplaneError::system("release a table of flows"))
    }

    /// Everything that is attached.
    pub fn attachments(&self) -> impl Iterator<Item = &Attached> {
        self.attached.values()
    }

    /// The events of all attachments; `None` when they were taken before. Only one process of a name reads
    /// them.
    pub fn events(&mut self) -> Option<Events> {
        self.events.take()
    }

    /// What was counted since the maps were made; processes come and go without loss.
    ///
    /// # Errors
    /// When a map cannot be read.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        Counters::read(self)
    }

    /// Ends all enforcement, and removes everything that is pinned.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn remove(mut self) -> Result<(), DataplaneError> {
        let attached: Vec<_> = self.attached.keys().copied().collect();
        for place in attached {
            self.detach(place)?;
        }
        if let Some(guard) = &self.guard {
            sys::detach_link(guard.as_fd()).map_err(DataplaneError::system("detach the guard"))?;
        }
        match &self.pins {
            Some(pins) => pins.remove().map_err(DataplaneError::system("remove what is pinned")),
            None => Ok(()),
        }
    }

    pub(crate) const fn endpoint_counters(&self) -> &PerCpuArray<MapData, Raw<EndpointCounters>> {
        &self.endpoint_counters
    }

    pub(crate) const fn edge_counters(
        &self,
    ) -> &PerCpuHashMap<MapData, Raw<EdgeCounterKey>, Raw<EdgeCounters>> {
        &self.edge_counters
    }

    pub(crate) const fn refusals(&self) -> &PerCpuArray<MapData, u64> {
        &self.refusals
    }

    fn program(&self, name: &'static str) -> Result<&ProgramFd, DataplaneError> {
        let program = self.ebpf.program(name).ok_or(DataplaneError::Missing(name))?;
        program.fd().map_err(|source| DataplaneError::Program { name, source })
    }
}

/// Removing what is not there is fine.
fn ignore_absent(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
