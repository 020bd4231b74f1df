//! The maps. Their layouts are in [`selvedge_abi::layout`]; userspace fills them.

use aya_ebpf::{
    btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, LruPerCpuHashMap, PerCpuArray, RingBuf},
    macros::btf_map,
};
use selvedge_abi::{
    Address, Attachment, EdgeKey, FlowEntry, FlowKey, Groups,
    layout::{
        Control, EVENT_RING_BYTES, EdgeCounterKey, EdgeCounters, EndpointCounters, EventRecord,
        FLOWS_PER_ATTACHMENT, MAX_ATTACHMENTS, MAX_EDGE_COUNTERS, REASON_CODES, RangeList,
    },
    packet::Packet,
};

/// `BPF_F_INNER_MAP`: arrays in an array of maps may differ in size.
const INNER: usize = 1 << 12;
/// `BPF_F_MMAPABLE`: userspace writes the generation as one word.
const MAPPED: usize = 1 << 10;

/// Userspace gives the inner maps their real sizes; these are only those of the pattern.
type Endpoints = HashMap<Address, u32, 1>;
type Networks = LpmTrie<Address, u32, 1>;
type GroupTable = HashMap<u32, Groups, 1>;
type Edges = HashMap<EdgeKey, u32, 1>;
type Lists = Array<RangeList, 1, INNER>;
type FlowTable = LruHashMap<FlowKey, FlowEntry, { FLOWS_PER_ATTACHMENT as usize }>;

#[btf_map]
pub(super) static CONTROL: Array<Control, 1, MAPPED> = Array::new();
#[btf_map]
pub(super) static ENDPOINTS: ArrayOfMaps<Endpoints, 2> = ArrayOfMaps::new();
#[btf_map]
pub(super) static NETWORKS: ArrayOfMaps<Networks, 2> = ArrayOfMaps::new();
#[btf_map]
pub(super) static GROUPS: ArrayOfMaps<GroupTable, 2> = ArrayOfMaps::new();
#[btf_map]
pub(super) static GUARDRAILS: ArrayOfMaps<Edges, 2> = ArrayOfMaps::new();
#[btf_map]
pub(super) static CONTRACTS: ArrayOfMaps<Edges, 2> = ArrayOfMaps::new();
#[btf_map]
pub(super) static LISTS: ArrayOfMaps<Lists, 2> = ArrayOfMaps::new();

#[btf_map]
pub(super) static ATTACHMENTS: HashMap<u32, Attachment, { MAX_ATTACHMENTS as usize }> = HashMap::new();
/// By the number of the control group.
#[btf_map]
pub(super) static GROUPS_ATTACHED: HashMap<u64, Attachment, { MAX_ATTACHMENTS as usize }> = HashMap::new();
/// Addresses from which nobody but a control group may speak.
#[btf_map]
pub(super) static GUARDED: HashMap<Address, u64, { 2 * MAX_ATTACHMENTS as usize }> = HashMap::new();
#[btf_map]
pub(super) static FLOWS: ArrayOfMaps<FlowTable, { MAX_ATTACHMENTS as usize }> = ArrayOfMaps::new();

#[btf_map]
pub(super) static ENDPOINT_COUNTERS: PerCpuArray<EndpointCounters, { MAX_ATTACHMENTS as usize }> =
    PerCpuArray::new();
#[btf_map]
pub(super) static EDGE_COUNTERS: LruPerCpuHashMap<
    EdgeCounterKey,
    EdgeCounters,
    { MAX_EDGE_COUNTERS as usize },
> = LruPerCpuHashMap::new();
#[btf_map]
pub(super) static REFUSALS: PerCpuArray<u64, { REASON_CODES as usize }> = PerCpuArray::new();
#[btf_map]
pub(super) static EVENTS: RingBuf<EventRecord, { EVENT_RING_BYTES as usize }> = RingBuf::new();

/// Where a packet that was read waits to be judged.
#[btf_map]
pub(super) static SCRATCH: PerCpuArray<Packet, 1> = PerCpuArray::new();

/// The attachment at an interface.
#[inline(always)]
pub(super) fn attachment(ifindex: u32) -> Option<&'static Attachment> {
    // SAFETY: an attachment is changed only by userspace, as a whole and rarely; the reference does not
    // outlive the program.
    unsafe { ATTACHMENTS.get(ifindex) }
}

/// The attachment of a control group.
#[inline(always)]
pub(super) fn group(id: u64) -> Option<&'static Attachment> {
    // SAFETY: as above.
    unsafe { GROUPS_ATTACHED.get(id) }
}
