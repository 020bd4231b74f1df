//! The tables in the kernel: two slots, of which one holds and the other is filled.

use std::{collections::BTreeMap, thread};

use aya::{
    Ebpf, Pod,
    maps::{Array, ArrayOfMaps, HashMap, InnerMap, LpmTrie, MapData, MapError, lpm_trie},
};
use selvedge_abi::{Address, EdgeKey, Groups, layout::RangeList};

use super::{control::ControlPage, raw::Raw, take};
use crate::{DataplaneError, TableImage};

/// `BPF_F_NO_PREALLOC`, which tries of prefixes ask for.
const NO_PREALLOC: u32 = 1;
/// `BPF_F_INNER_MAP`, as the programs declare the lists.
const INNER: u32 = 1 << 12;

type Slots<V> = ArrayOfMaps<MapData, V>;
type Endpoints = HashMap<MapData, Raw<Address>, u32>;
type Networks = LpmTrie<MapData, Raw<Address>, u32>;
type GroupTable = HashMap<MapData, u32, Raw<Groups>>;
type Edges = HashMap<MapData, Raw<EdgeKey>, u32>;
type Lists = Array<MapData, Raw<RangeList>>;

/// The outer maps.
#[derive(Debug)]
pub(super) struct KernelTables {
    endpoints: Slots<Endpoints>,
    networks: Slots<Networks>,
    groups: Slots<GroupTable>,
    guardrails: Slots<Edges>,
    contracts: Slots<Edges>,
    lists: Slots<Lists>,
    /// What holds, when this process installed it.
    installed: Option<TableImage>,
}

impl KernelTables {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DataplaneError> {
        Ok(Self {
            endpoints: take(ebpf, "ENDPOINTS")?,
            networks: take(ebpf, "NETWORKS")?,
            groups: take(ebpf, "GROUPS")?,
            guardrails: take(ebpf, "GUARDRAILS")?,
            contracts: take(ebpf, "CONTRACTS")?,
            lists: take(ebpf, "LISTS")?,
            installed: None,
        })
    }

    /// Puts an image in force. Until it is complete, the tables before it hold.
    pub(super) fn install(&mut self, image: TableImage, control: &ControlPage) -> Result<(), DataplaneError> {
        let generation = control.generation();
        let current = slot_of(generation);
        if self.installed.as_ref().is_some_and(|installed| installed.same_tables(&image)) {
            control.set_revision(current, image.revision);
            self.installed = Some(image);
            return Ok(());
        }
        let next = slot_of(generation + 1);
        let barrier = self.fill(next, &image)?;
        control.set_revision(next, image.revision);
        control.set_generation(generation + 1);
        // Storing into an array of maps waits until no program runs that may have seen the old word: from
        // here on every packet is judged by the new tables, and the slot before them may be filled again.
        store("CONTRACTS", &mut self.contracts, next, &barrier)?;
        self.installed = Some(image);
        Ok(())
    }

    /// Fills a slot that does not hold. The maps are put into their places at the same time: for each the
    /// kernel waits until every program that runs has ended, some 10 ms.
    fn fill(&mut self, slot: u32, image: &TableImage) -> Result<Edges, DataplaneError> {
        let endpoints = hash("ENDPOINTS", image.endpoints(), |a| Raw(*a), |id| *id)?;
        let networks = networks(image)?;
        let groups = hash("GROUPS", image.groups(), |id| *id, |groups| Raw(*groups))?;
        let guardrails = hash("GUARDRAILS", image.guardrails(), |key| Raw(*key), |list| *list)?;
        let lists = lists(image)?;
        let contracts = hash("CONTRACTS", image.contracts(), |key| Raw(*key), |list| *list)?;
        thread::scope(|scope| {
            let stores = [
                scope.spawn(|| store("ENDPOINTS", &mut self.endpoints, slot, &endpoints)),
                scope.spawn(|| store("NETWORKS", &mut self.networks, slot, &networks)),
                scope.spawn(|| store("GROUPS", &mut self.groups, slot, &groups)),
                scope.spawn(|| store("GUARDRAILS", &mut self.guardrails, slot, &guardrails)),
                scope.spawn(|| store("LISTS", &mut self.lists, slot, &lists)),
                scope.spawn(|| store("CONTRACTS", &mut self.contracts, slot, &contracts)),
            ];
            stores.into_iter().try_for_each(|store| match store.join() {
                Ok(stored) => stored,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })?;
        Ok(contracts)
    }
}

pub(super) const fn slot_of(generation: u64) -> u32 {
    (generation & 1) as u32
}

/// The size of a map: an empty one is not allowed.
fn entries(length: usize) -> u32 {
    u32::try_from(length.max(1)).unwrap_or(u32::MAX)
}

fn store<V: InnerMap>(
    name: &'static str,
    slots: &mut Slots<V>,
    slot: u32,
    map: &V,
) -> Result<(), DataplaneError> {
    slots.set(slot, map, 0).map_err(DataplaneError::map(name))
}

fn hash<A, B, K: Pod, V: Pod>(
    name: &'static str,
    contents: &BTreeMap<A, B>,
    key: impl Fn(&A) -> K,
    value: impl Fn(&B) -> V,
) -> Result<HashMap<MapData, K, V>, DataplaneError> {
    let fill = || -> Result<_, MapError> {
        let mut map: HashMap<MapData, K, V> = HashMap::create(entries(contents.len()), 0)?;
        for (k, v) in contents {
            map.insert(key(k), value(v), 0)?;
        }
        Ok(map)
    };
    fill().map_err(DataplaneError::map(name))
}

fn networks(image: &TableImage) -> Result<Networks, DataplaneError> {
    let fill = || -> Result<_, MapError> {
        let mut map = Networks::create(entries(image.networks().len()), NO_PREALLOC)?;
        for ((address, bits), identity) in image.networks() {
            map.insert(&lpm_trie::Key::new(u32::from(*bits), Raw(*address)), identity, 0)?;
        }
        Ok(map)
    };
    fill().map_err(DataplaneError::map("NETWORKS"))
}

fn lists(image: &TableImage) -> Result<Lists, DataplaneError> {
    let fill = || -> Result<_, MapError> {
        let mut map = Lists::create(entries(image.lists().len()), INNER)?;
        for (place, list) in (0..).zip(image.lists()) {
            map.set(place, Raw(*list), 0)?;
        }
        Ok(map)
    };
    fill().map_err(DataplaneError::map("LISTS"))
}
