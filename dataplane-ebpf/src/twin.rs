//! The data plane in userspace: the same decisions on ordinary maps.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use selvedge_abi::{
    Address, Attachment, Direction, EdgeKey, FlowEntry, FlowKey, Groups, Identity, Judgement, Range, Tables,
    judge::{Flows, Identities, World, judge, judge_frame},
    layout::FLOWS_PER_ATTACHMENT,
    packet::{Packet, ethertype_of},
};

use crate::TableImage;

/// Judges packets as the programs in the kernel do. For the router, for tests, and for hosts on which no
/// program can be loaded.
#[derive(Debug, Default)]
pub struct Twin {
    image: Arc<TableImage>,
    generation: u64,
    flows: BTreeMap<u32, FlowTable>,
}

impl Twin {
    /// Takes over new tables; flows are decided again when their next packet comes.
    pub fn sync(&mut self, image: Arc<TableImage>) {
        if self.generation == 0 || !self.image.same_tables(&image) {
            self.generation += 1;
        }
        self.image = image;
    }

    /// The tables.
    #[must_use]
    pub const fn image(&self) -> &Arc<TableImage> {
        &self.image
    }

    /// Judges an Ethernet frame. `now_s` counts seconds from any start and never goes back.
    pub fn judge_frame(
        &mut self,
        frame: &[u8],
        direction: Direction,
        attachment: &Attachment,
        now_s: u32,
    ) -> Judgement {
        self.within(attachment, now_s, |world, packet| {
            judge_frame(frame, direction, attachment, world, packet)
        })
    }

    /// Judges an IP packet.
    pub fn judge_packet(
        &mut self,
        packet: &[u8],
        direction: Direction,
        attachment: &Attachment,
        now_s: u32,
    ) -> Judgement {
        let version = ethertype_of(packet);
        self.within(attachment, now_s, |world, parsed| {
            judge(packet, 0, version, direction, attachment, world, parsed)
        })
    }

    /// Forgets the flows of an attachment.
    pub fn forget(&mut self, slot: u32) {
        self.flows.remove(&slot);
    }

    fn within(
        &mut self,
        attachment: &Attachment,
        now_s: u32,
        judge: impl FnOnce(&TwinWorld<'_>, &mut Packet) -> Judgement,
    ) -> Judgement {
        let flows = RefCell::new(self.flows.entry(attachment.slot).or_default());
        let world = TwinWorld { image: &self.image, generation: self.generation, flows, now_s };
        judge(&world, &mut Packet::default())
    }
}

/// The flows of one attachment, at most [`FLOWS_PER_ATTACHMENT`].
#[derive(Debug, Default)]
struct FlowTable {
    flows: BTreeMap<FlowKey, FlowEntry>,
    by_age: BTreeSet<(u32, FlowKey)>,
}

impl FlowTable {
    fn remember(&mut self, key: &FlowKey, entry: &FlowEntry) {
        if let Some(old) = self.flows.insert(*key, *entry) {
            self.by_age.remove(&(old.seen_s, *key));
        }
        self.by_age.insert((entry.seen_s, *key));
        if self.flows.len() > FLOWS_PER_ATTACHMENT as usize
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.flows.remove(&oldest);
        }
    }
}

struct TwinWorld<'a> {
    image: &'a TableImage,
    generation: u64,
    flows: RefCell<&'a mut FlowTable>,
    now_s: u32,
}

impl Tables for TwinWorld<'_> {
    fn groups(&self, identity: Identity) -> Option<Groups> {
        Tables::groups(self.image, identity)
    }

    fn guardrail(&self, key: &EdgeKey) -> Option<&[Range]> {
        self.image.guardrail(key)
    }

    fn contract(&self, key: &EdgeKey) -> Option<&[Range]> {
        self.image.contract(key)
    }
}

impl Identities for TwinWorld<'_> {
    fn identity(&self, address: &Address) -> Option<Identity> {
        self.image.identity(address)
    }
}

impl Flows for TwinWorld<'_> {
    fn flow(&self, key: &FlowKey) -> Option<FlowEntry> {
        self.flows.borrow().flows.get(key).copied()
    }

    fn remember(&self, key: &FlowKey, entry: &FlowEntry) {
        self.flows.borrow_mut().remember(key, entry);
    }
}

impl World for TwinWorld<'_> {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn now_s(&self) -> u32 {
        self.now_s
    }
}
