//! The maps as [`judge`](selvedge_abi::judge) wants to see them.

use aya_ebpf::{
    bindings::__sk_buff,
    btf_maps::{ArrayOfMaps, HashMap, LruHashMap, lpm_trie::Key},
    helpers::generated::bpf_ktime_get_coarse_ns,
    programs::sk_buff::SkBuff,
};
use selvedge_abi::{
    Address, Attachment, EdgeKey, FlowEntry, FlowKey, Groups, Identity, Range, Reason, Tables, Verdict,
    decide,
    judge::{Flows, Identities, World},
    packet::{self, Bytes, Packet},
};

use super::maps;

/// Nanoseconds in a second.
const SECOND_NS: u64 = 1_000_000_000;

/// The bytes of a socket buffer, whether or not they lie in one piece.
pub(super) struct Skb(pub(super) *mut __sk_buff);

impl Bytes for Skb {
    #[inline(always)]
    fn length(&self) -> usize {
        SkBuff { skb: self.0 }.len() as usize
    }

    #[inline(always)]
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        SkBuff { skb: self.0 }.load::<[u8; N]>(offset).ok()
    }

    #[inline(always)]
    fn parse(&self, offset: usize, ethertype: u16, packet: &mut Packet) -> Result<(), Reason> {
        let place = (offset as u32) << 16 | ethertype as u32;
        match selvedge_parse(self.0, place, packet) {
            0 => Ok(()),
            reason => Err(Reason::from_code(reason as u8)),
        }
    }
}

/// Reads a packet and returns 0, or the reason for which it is refused. A function of its own for the
/// verifier, like [`selvedge_decide`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn selvedge_parse(skb: *mut __sk_buff, place: u32, packet: *mut Packet) -> u32 {
    // SAFETY: callers have it in a map; the verifier wants the check all the same.
    let Some(packet) = (unsafe { packet.as_mut() }) else { return Reason::Malformed as u32 };
    match packet::parse(&Skb(skb), ((place >> 16) & 0xff) as usize, place as u16, packet) {
        Ok(()) => 0,
        Err(reason) => reason as u32,
    }
}

/// The tables in a slot.
struct Slot(u32);

/// A function of its own for the verifier: it is verified once, for all arguments, and its callers know
/// nothing of its ways.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn selvedge_decide(tables: u32, source: u32, destination: u32, flow: u32) -> u64 {
    let (protocol, port) = ((flow >> 16) as u8, flow as u16);
    decide(Identity(source), Identity(destination), protocol, port, &Slot(tables & 1)).pack()
}

/// What one packet sees: the generation is read once, so all its look-ups are of one set of tables.
pub(super) struct Kernel {
    generation: u64,
    slot: u32,
    now_s: u32,
}

impl Kernel {
    #[inline(always)]
    pub(super) fn new(attachment: &Attachment) -> Self {
        Self { generation: generation(), slot: attachment.slot, now_s: now_s() }
    }

    #[inline(always)]
    const fn tables(&self) -> Slot {
        Slot((self.generation & 1) as u32)
    }
}

#[inline(always)]
fn generation() -> u64 {
    match maps::CONTROL.get(0) {
        // SAFETY: userspace writes the word in one piece.
        Some(control) => unsafe { core::ptr::read_volatile(&raw const control.generation) },
        None => 0,
    }
}

#[inline(always)]
fn now_s() -> u32 {
    // SAFETY: a helper without arguments.
    (unsafe { bpf_ktime_get_coarse_ns() } / SECOND_NS) as u32
}

#[inline(always)]
fn edge<const N: usize>(
    edges: &ArrayOfMaps<HashMap<EdgeKey, u32, N>, 2>,
    tables: u32,
    key: &EdgeKey,
) -> Option<&'static [Range]> {
    // SAFETY: the tables of a slot that is in use are not written to.
    let list = unsafe { HashMap::get(edges.get(tables)?, key) }?;
    let lists: &'static _ = maps::LISTS.get(tables)?;
    lists.get(*list).map(|ranges| &ranges[..])
}

impl Tables for Slot {
    #[inline(always)]
    fn groups(&self, identity: Identity) -> Option<Groups> {
        // SAFETY: as in `edge`.
        unsafe { HashMap::get(maps::GROUPS.get(self.0)?, identity.0) }.copied()
    }

    #[inline(always)]
    fn guardrail(&self, key: &EdgeKey) -> Option<&[Range]> {
        edge(&maps::GUARDRAILS, self.0, key)
    }

    #[inline(always)]
    fn contract(&self, key: &EdgeKey) -> Option<&[Range]> {
        edge(&maps::CONTRACTS, self.0, key)
    }
}

impl Tables for Kernel {
    #[inline(always)]
    fn groups(&self, identity: Identity) -> Option<Groups> {
        self.tables().groups(identity)
    }

    #[inline(always)]
    fn guardrail(&self, key: &EdgeKey) -> Option<&[Range]> {
        edge(&maps::GUARDRAILS, self.tables().0, key)
    }

    #[inline(always)]
    fn contract(&self, key: &EdgeKey) -> Option<&[Range]> {
        edge(&maps::CONTRACTS, self.tables().0, key)
    }
}

impl Identities for Kernel {
    #[inline(always)]
    fn identity(&self, address: &Address) -> Option<Identity> {
        // SAFETY: as in `edge`.
        let endpoint = unsafe { HashMap::get(maps::ENDPOINTS.get(self.tables().0)?, address) };
        let found = match endpoint {
            Some(identity) => *identity,
            None => *maps::NETWORKS.get(self.tables().0)?.get(&Key::new(128, *address))?,
        };
        (found != 0).then_some(Identity(found))
    }
}

impl Flows for Kernel {
    #[inline(always)]
    fn flow(&self, key: &FlowKey) -> Option<FlowEntry> {
        // SAFETY: the entry is copied at once.
        unsafe { LruHashMap::get(maps::FLOWS.get(self.slot)?, key) }.copied()
    }

    #[inline(always)]
    fn remember(&self, key: &FlowKey, entry: &FlowEntry) {
        if let Some(flows) = maps::FLOWS.get(self.slot) {
            // Without memory for it, the flow is decided again at its next packet.
            let _ = LruHashMap::insert(flows, key, entry, 0);
        }
    }
}

impl World for Kernel {
    #[inline(always)]
    fn generation(&self) -> u64 {
        self.generation
    }

    #[inline(always)]
    fn now_s(&self) -> u32 {
        self.now_s
    }

    #[inline(always)]
    fn decide(&self, source: Identity, destination: Identity, protocol: u8, port: u16) -> Verdict {
        let flow = (protocol as u32) << 16 | port as u32;
        Verdict::unpack(selvedge_decide(self.tables().0, source.0, destination.0, flow))
    }
}
