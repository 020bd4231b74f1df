//! Whether one node key is used by two live machines.
//!
//! The boot nonce is random per start, so each record tells which start made it. A restart replaces one
//! nonce by another for good. When a nonce that was replaced *comes back* with newer records, both
//! machines live: a cloned image, or a stolen key. None of their facts can be told apart, so both are
//! quarantined until one of them falls silent.

use std::collections::BTreeMap;

use selvedge_fabric::key::NodeId;

/// How often a replaced nonce must come back. Once can be a record that was long on its way.
pub const RETURNS_TO_QUARANTINE: u32 = 2;
/// Returns count together when they lie within this time; the quarantine ends when there was none for it.
pub const QUARANTINE_MS: u64 = 60_000;
/// How many replaced nonces of a node are remembered.
const REMEMBERED_NONCES: usize = 4;

#[derive(Debug, Default)]
struct Holder {
    incarnation: u64,
    nonce: u64,
    replaced: Vec<u64>,
    returns: u32,
    last_return_ms: u64,
}

/// Which start made the newest record of each node, and which were replaced.
#[derive(Debug, Default)]
pub struct Holders {
    nodes: BTreeMap<NodeId, Holder>,
}

impl Holders {
    /// Notes that a newer record of `node` was taken. True when that begins its quarantine.
    ///
    /// Records of an older incarnation say nothing: a topic that the node has not spoken on since its
    /// restart still has its old record, and that one may well arrive late.
    pub fn handle_new_record(
        &mut self,
        node: NodeId,
        incarnation: u64,
        boot_nonce: u64,
        now_ms: u64,
    ) -> bool {
        let before = self.quarantined(node, now_ms);
        let first = || Holder { incarnation, nonce: boot_nonce, ..Holder::default() };
        let holder = self.nodes.entry(node).or_insert_with(first);
        if incarnation < holder.incarnation || holder.nonce == boot_nonce {
            holder.incarnation = holder.incarnation.max(incarnation);
            return false;
        }
        holder.incarnation = incarnation;
        if holder.replaced.contains(&boot_nonce) {
            let recent = now_ms.saturating_sub(holder.last_return_ms) < QUARANTINE_MS;
            holder.returns = if recent { holder.returns.saturating_add(1) } else { 1 };
            holder.last_return_ms = now_ms;
        }
        holder.replaced.retain(|&nonce| nonce != boot_nonce);
        if holder.replaced.len() == REMEMBERED_NONCES {
            holder.replaced.remove(0);
        }
        holder.replaced.push(holder.nonce);
        holder.nonce = boot_nonce;
        !before && self.quarantined(node, now_ms)
    }

    /// Whether `node` has two live holders.
    #[must_use]
    pub fn quarantined(&self, node: NodeId, now_ms: u64) -> bool {
        self.nodes.get(&node).is_some_and(|holder| {
            holder.returns >= RETURNS_TO_QUARANTINE
                && now_ms.saturating_sub(holder.last_return_ms) < QUARANTINE_MS
        })
    }

    /// Forgets the nodes that are not admitted any more.
    pub fn retain(&mut self, admitted: impl Fn(NodeId) -> bool) {
        self.nodes.retain(|&node, _| admitted(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId(1);

    #[test]
    fn restarts_are_no_second_holder() {
        let mut holders = Holders::default();
        for (at, nonce) in [1, 1, 2, 3, 3, 4, 5, 6, 7].into_iter().enumerate() {
            assert!(!holders.handle_new_record(NODE, 1, nonce, at as u64 * 10));
        }
        assert!(!holders.quarantined(NODE, 100));
    }

    #[test]
    fn one_late_record_is_no_second_holder() {
        let mut holders = Holders::default();
        for nonce in [1, 2, 1, 1] {
            holders.handle_new_record(NODE, 1, nonce, 0);
        }
        assert!(!holders.quarantined(NODE, 0));
    }

    #[test]
    fn late_records_of_an_older_start_are_no_second_holder() {
        let mut holders = Holders::default();
        for (incarnation, nonce) in [(6, 2), (5, 1), (6, 2), (5, 1), (6, 2), (5, 1)] {
            holders.handle_new_record(NODE, incarnation, nonce, 0);
        }
        assert!(!holders.quarantined(NODE, 0));
    }

    #[test]
    fn two_that_alternate_are_quarantined_until_one_is_silent() {
        let mut holders = Holders::default();
        let began: Vec<bool> =
            [1, 2, 1, 2, 1].iter().map(|&nonce| holders.handle_new_record(NODE, 1, nonce, 5)).collect();
        assert_eq!(began, [false, false, false, true, false]);
        assert!(holders.quarantined(NODE, QUARANTINE_MS));
        assert!(!holders.quarantined(NODE, QUARANTINE_MS + 5));
    }
}
