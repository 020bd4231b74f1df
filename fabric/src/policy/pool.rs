//! The IPv4 pool of a fabric and its division into blocks, one for each node.

use std::{collections::BTreeSet, net::Ipv4Addr};

use super::{FabricParams, PolicyState};

/// The longest block: below it a node would have fewer than four addresses.
const MAX_BLOCK_LEN: u8 = 30;

/// A checked IPv4 pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pool {
    base: u32,
    len: u8,
    block_len: u8,
}

impl Pool {
    /// How many blocks it has, with block 0.
    fn blocks(self) -> u32 {
        1_u32.checked_shl(u32::from(self.block_len - self.len)).unwrap_or(u32::MAX)
    }

    /// First address of a block.
    fn network(self, block: u32) -> Option<Ipv4Addr> {
        let offset = block.checked_shl(u32::from(32 - self.block_len))?;
        (block < self.blocks()).then(|| Ipv4Addr::from(self.base | offset))
    }
}

impl FabricParams {
    /// The IPv4 pool.
    ///
    /// # Errors
    /// What is wrong with `ipv4_pool` or `ipv4_block_len`.
    pub(super) fn pool(&self) -> Result<Pool, String> {
        let text = &self.ipv4_pool;
        let bad = |why: &str| format!("the IPv4 pool {text:?} {why}; write one such as 100.64.0.0/10");
        let (address, len) = text.split_once('/').ok_or_else(|| bad("has no prefix length"))?;
        let base: Ipv4Addr = address.parse().map_err(|_| bad("does not start with an IPv4 address"))?;
        let len: u8 = len.parse().map_err(|_| bad("has a malformed prefix length"))?;
        if !(1..MAX_BLOCK_LEN).contains(&len) {
            return Err(bad("must have a prefix length of 1 to 29"));
        }
        let base = u32::from(base);
        if base & (u32::MAX >> len) != 0 {
            return Err(bad("has bits set beyond its prefix"));
        }
        let block_len = self.ipv4_block_len;
        if !(len + 1..=MAX_BLOCK_LEN).contains(&block_len) {
            return Err(format!(
                "blocks of /{block_len} do not fit a pool of /{len}; choose /{} to /{MAX_BLOCK_LEN}",
                len + 1
            ));
        }
        Ok(Pool { base, len, block_len })
    }

    /// First address of a node's block; the block has [`FabricParams::ipv4_block_len`]. `None` when the
    /// pool has no such block.
    #[must_use]
    pub fn block_network(&self, block: u32) -> Option<Ipv4Addr> {
        self.pool().ok()?.network(block)
    }
}

impl PolicyState {
    /// The lowest block that no node has and no removed node still occupies. Block 0 is kept out: it is
    /// for addresses of the fabric itself.
    pub(super) fn free_block(&self, pool: Pool) -> Result<u32, String> {
        let removed = self.removed.values().filter_map(|removed| removed.block);
        let taken: BTreeSet<u32> = self.nodes.values().map(|node| node.block).chain(removed).collect();
        (1..pool.blocks()).find(|block| !taken.contains(block)).ok_or_else(|| {
            "every IPv4 block of the pool is taken; remove nodes that are gone (selvedge node remove), or \
             wait until the blocks of removed ones are released"
                .to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_lie_in_the_pool() {
        let pool = Pool { base: u32::from(Ipv4Addr::new(100, 64, 0, 0)), len: 10, block_len: 24 };
        assert_eq!(pool.blocks(), 16_384);
        assert_eq!(pool.network(1), Some(Ipv4Addr::new(100, 64, 1, 0)));
        assert_eq!(pool.network(16_383), Some(Ipv4Addr::new(100, 127, 255, 0)));
        assert_eq!(pool.network(16_384), None);
    }
}
