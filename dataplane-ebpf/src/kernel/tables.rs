//! The tables in the kernel: two slots, of which one holds and the other is filled.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    thread,
};

use aya::{
    Ebpf,
    maps::{Map, MapData},
};

use super::{
    control::ControlPage,
    raw::{Layout, Prefix},
    sys::{self, Making},
};
use crate::{DataplaneError, TableImage};

/// As the programs declare the inner maps: `BPF_MAP_TYPE_HASH`; `BPF_MAP_TYPE_LPM_TRIE` with
/// `BPF_F_NO_PREALLOC`; `BPF_MAP_TYPE_ARRAY` with `BPF_F_INNER_MAP`; `BPF_MAP_TYPE_LRU_HASH`.
const HASH: Making = Making { kind: 1, flags: 0 };
const TRIE: Making = Making { kind: 11, flags: 1 };
const ARRAY: Making = Making { kind: 2, flags: 1 << 12 };
pub(super) const LRU: Making = Making { kind: 9, flags: 0 };

/// The outer maps.
#[derive(Debug)]
pub(super) struct KernelTables {
    endpoints: Slots,
    networks: Slots,
    groups: Slots,
    guardrails: Slots,
    contracts: Slots,
    lists: Slots,
    /// What holds, when this process installed it.
    installed: Option<TableImage>,
}

impl KernelTables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            endpoints: Slots::take(ebpf, "ENDPOINTS")?,
            networks: Slots::take(ebpf, "NETWORKS")?,
            groups: Slots::take(ebpf, "GROUPS")?,
            guardrails: Slots::take(ebpf, "GUARDRAILS")?,
            contracts: Slots::take(ebpf, "CONTRACTS")?,
            lists: Slots::take(ebpf, "LISTS")?,
            installed: None,
        })
    }

    /// Puts an image in force. Until it is complete, the tables before it hold.
    pub(super) fn install(&mut self, image: TableImage, control: &ControlPage) -> Result<(), DataplaneError> {
        let generation = control.generation();
        if self.installed.as_ref().is_some_and(|installed| installed.same_tables(&image)) {
            control.set_revision(slot_of(generation), image.revision);
            self.installed = Some(image);
            return Ok(());
        }
        let next = slot_of(generation + 1);
        let contracts = self.fill(next, &image)?;
        control.set_revision(next, image.revision);
        control.set_generation(generation + 1);
        // Storing into an array of maps waits until no program runs that may have seen the old word: from
        // here on every packet is judged by the new tables, and the slot before them may be filled again.
        self.contracts.store(next, &contracts)?;
        self.installed = Some(image);
        Ok(())
    }

    /// Fills a slot that does not hold; returns the map of contracts. All maps at the same time: for each
    /// the kernel waits until every program that runs has ended, some 10 ms.
    fn fill(&self, slot: u32, image: &TableImage) -> Result<OwnedFd, DataplaneError> {
        thread::scope(|scope| {
            let others = [
                scope.spawn(|| {
                    self.endpoints.fill(slot, HASH, image.endpoints().iter().map(|(a, id)| (*a, *id)))
                }),
                scope.spawn(|| self.networks.fill(slot, TRIE, networks(image))),
                scope.spawn(|| self.groups.fill(slot, HASH, image.groups().iter().map(|(id, g)| (*id, *g)))),
                scope.spawn(|| {
                    self.guardrails.fill(slot, HASH, image.guardrails().iter().map(|(k, l)| (*k, *l)))
                }),
                scope.spawn(|| self.lists.fill(slot, ARRAY, (0..).zip(image.lists().iter().copied()))),
            ];
            let edges = image.contracts().iter().map(|(key, list)| (*key, *list));
            let contracts = self.contracts.fill(slot, HASH, edges);
            for other in others {
                other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            }
            contracts
        })
    }
}

fn networks(image: &TableImage) -> impl Iterator<Item = (Prefix, u32)> {
    let networks = image.networks().iter();
    networks.map(|((address, bits), id)| (Prefix { bits: u32::from(*bits), address: *address }, *id))
}

pub(super) const fn slot_of(generation: u64) -> u32 {
    (generation & 1) as u32
}

/// An array of maps with two places.
#[derive(Debug)]
struct Slots {
    name: &'static str,
    outer: MapData,
}

impl Slots {
    fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Self, DataplaneError> {
        match ebpf.take_map(name) {
            Some(Map::ArrayOfMaps(outer)) => Ok(Self { name, outer }),
            _ => Err(DataplaneError::Missing(name)),
        }
    }

    /// Puts a new map with these entries into a place.
    fn fill<K: Layout, V: Layout>(
        &self,
        slot: u32,
        making: Making,
        entries: impl Iterator<Item = (K, V)>,
    ) -> Result<OwnedFd, DataplaneError> {
        let (keys, values): (Vec<K>, Vec<V>) = entries.unzip();
        let make = || -> io::Result<OwnedFd> {
            let map = sys::create_map::<K, V>(making, keys.len())?;
            sys::fill_map(map.as_fd(), &keys, &values)?;
            Ok(map)
        };
        let action = format!("make a table of {} entries for {}", keys.len(), self.name);
        let map = make().map_err(DataplaneError::system(action))?;
        self.store(slot, &map)?;
        Ok(map)
    }

    fn store(&self, slot: u32, map: &OwnedFd) -> Result<(), DataplaneError> {
        let action = format!("put a table into its place in {}", self.name);
        sys::set_inner(self.outer.fd().as_fd(), slot, map.as_fd()).map_err(DataplaneError::system(action))
    }
}
