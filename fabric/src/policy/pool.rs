//! Which IPv4 block the next node gets.

use std::collections::BTreeSet;

use super::PolicyState;
use crate::{address::Ipv4Pool, command::Refusal};

impl PolicyState {
    /// The lowest block that no node has and no removed node still occupies. Block 0 is kept out: it is
    /// for addresses of the fabric itself.
    pub(super) fn free_block(&self, pool: &Ipv4Pool) -> Result<u32, Refusal> {
        let removed = self.removed.values().filter_map(|removed| removed.block);
        let taken: BTreeSet<u32> = self.nodes.values().map(|node| node.block).chain(removed).collect();
        (1..pool.blocks()).find(|block| !taken.contains(block)).ok_or_else(|| {
            let message = "every IPv4 block of the pool is taken; remove nodes that are gone (selvedge node \
                           remove), or wait until the blocks of removed ones are released";
            Refusal::Limit(message.to_owned())
        })
    }
}
