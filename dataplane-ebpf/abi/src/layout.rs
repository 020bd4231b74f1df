//! What the maps of the kernel hold, besides what is looked up for a verdict.

use crate::{Address, MAX_RANGES, Range};

/// The version of every layout in this crate and of what the programs make of them. Maps of another
/// version are not adopted. Raise it with every change of a layout or of the meaning of a field. The feature
/// `next-layout` does so for a second program, with which tests upgrade the first.
pub const ABI_VERSION: u32 = if cfg!(feature = "next-layout") { 3 } else { 2 };

/// Most attachments of a node.
pub const MAX_ATTACHMENTS: u32 = 1024;
/// How deep in the tree of control groups attachments are looked for.
pub const MAX_GROUP_DEPTH: u32 = 16;
/// Flows that are remembered for each attachment; a new one takes the place of the one silent longest.
/// 1.7 MB of kernel memory each.
pub const FLOWS_PER_ATTACHMENT: u32 = 16_384;
/// Pairs of services whose traffic is counted; a new pair takes the place of the one silent longest.
pub const MAX_EDGE_COUNTERS: u32 = 16_384;
/// Bytes of the ring buffer of events: about 6,500 of them.
pub const EVENT_RING_BYTES: u32 = 512 * 1024;
/// Number of reason codes, and so of refusal counters.
pub const REASON_CODES: u32 = 256;
/// Events that an attachment may raise per second and CPU; more are counted, not told.
pub const EVENTS_PER_SECOND: u32 = 200;

/// The word that decides which tables hold, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Control {
    /// The generation; its lowest bit is the slot of the tables that hold. 0 before the first.
    pub generation: u64,
    /// The revision of policy in each slot.
    pub revisions: [u64; 2],
    /// [`ABI_VERSION`] of whoever made the maps.
    pub abi: u32,
    /// The interface by which packets of other nodes arrive, the overlay's TUN; 0 while there is none.
    pub carrier: u32,
}

/// The port ranges of edges. Edges that say the same share one list.
pub type RangeList = [Range; MAX_RANGES];

/// Traffic of an attachment on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EndpointCounters {
    /// Packets from the workload that passed.
    pub leaving_packets: u64,
    /// Their bytes, with Ethernet header.
    pub leaving_bytes: u64,
    /// Packets to the workload that passed.
    pub arriving_packets: u64,
    /// Their bytes.
    pub arriving_bytes: u64,
    /// Packets from the workload that were refused.
    pub leaving_refused: u64,
    /// Packets to the workload that were refused.
    pub arriving_refused: u64,
    /// Flows opened.
    pub flows: u64,
    /// Events that were not told, because there were too many or nobody read them.
    pub events_lost: u64,
    /// The second of the rate limit.
    pub window: u64,
    /// Events told in it.
    pub told: u64,
}

/// Traffic from one service to another on one CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
#[repr(C)]
pub struct EdgeCounters {
    /// Packets that passed.
    pub packets: u64,
    /// Their bytes, with Ethernet header.
    pub bytes: u64,
    /// Packets that were refused.
    pub refused: u64,
}

/// Whose traffic is counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct EdgeCounterKey {
    /// The service that packets come from.
    pub source: u32,
    /// The service that they go to.
    pub destination: u32,
}

/// Something that happened to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EventRecord {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// The revision of policy that decided.
    pub revision: u64,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The service at the source; 0 when unknown.
    pub source_identity: u32,
    /// The service at the destination; 0 when unknown.
    pub destination_identity: u32,
    /// The rule that decided; 0 when there was none.
    pub rule: u32,
    /// [`crate::Attachment::slot`] of where it was decided.
    pub slot: u32,
    /// Bytes of the packet, with Ethernet header.
    pub bytes: u32,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// [`crate::Direction`] as a number.
    pub direction: u8,
    /// [`crate::Reason`] as a number.
    pub reason: u8,
    /// [`crate::Mode`] as a number.
    pub mode: u8,
    /// [`crate::judge::Note`] as a number.
    pub note: u8,
    /// Nothing.
    pub zero: [u8; 3],
}
