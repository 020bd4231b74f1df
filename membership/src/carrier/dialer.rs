//! Whom to connect with.
//!
//! Small fabrics are fully connected. In a large one each node dials until it has [`TARGET_PEERS`], first
//! one peer in each cloud, then at random, and now and then one more than that: else two halves that were
//! cut apart, each content with itself, would never find together again.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};
use selvedge_fabric::{id::Name, key::NodeId};

use super::Candidate;

/// Connections that a node strives for: as many as make a random graph of 5,000 nodes connected with a
/// wide margin, and few enough that each costs next to nothing.
pub(super) const TARGET_PEERS: usize = 16;
/// Dials under way at once.
const MAX_DIALING: usize = 8;
/// First wait after a failed dial; doubled with each further one.
const MIN_BACKOFF_MS: u64 = 250;
/// Longest wait: a peer that returns is dialled within this time even when it does not dial itself.
const MAX_BACKOFF_MS: u64 = 5_000;
/// A connection that ends sooner was refused by the other side, which the dialling side sees only so.
const STABLE_MS: u64 = 3_000;
/// How often a stranger is dialled beyond the target.
const STRANGER_EVERY_MS: u64 = 15_000;

#[derive(Debug, Default, Clone, Copy)]
struct Backoff {
    failures: u32,
    until_ms: u64,
}

#[derive(Debug)]
pub(super) struct Dialer {
    backoff: BTreeMap<NodeId, Backoff>,
    dialing: BTreeSet<NodeId>,
    /// Since when.
    connected: BTreeMap<NodeId, u64>,
    next_stranger_ms: u64,
    rng: SmallRng,
}

impl Dialer {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            backoff: BTreeMap::new(),
            dialing: BTreeSet::new(),
            connected: BTreeMap::new(),
            next_stranger_ms: STRANGER_EVERY_MS,
            rng: SmallRng::seed_from_u64(seed),
        }
    }

    pub(super) fn handle_connected(&mut self, peer: NodeId, now_ms: u64) {
        self.dialing.remove(&peer);
        self.connected.entry(peer).or_insert(now_ms);
    }

    pub(super) fn handle_disconnected(&mut self, peer: NodeId, now_ms: u64) {
        let since_ms = self.connected.remove(&peer).unwrap_or(now_ms);
        if now_ms.saturating_sub(since_ms) < STABLE_MS {
            self.handle_failed(peer, now_ms);
        } else {
            // A first dial at once: the peer may have restarted.
            self.backoff.remove(&peer);
        }
    }

    pub(super) fn handle_failed(&mut self, peer: NodeId, now_ms: u64) {
        self.dialing.remove(&peer);
        let backoff = self.backoff.entry(peer).or_default();
        let wait_ms = MIN_BACKOFF_MS.saturating_mul(1 << backoff.failures.min(10)).min(MAX_BACKOFF_MS);
        backoff.failures = backoff.failures.saturating_add(1);
        // Jitter keeps those that lost the same peer from dialling it together.
        backoff.until_ms = now_ms + wait_ms + self.rng.random_range(0..=wait_ms / 2);
    }

    /// The peers to dial now.
    pub(super) fn poll_dials(
        &mut self,
        candidates: &BTreeMap<NodeId, Candidate>,
        now_ms: u64,
    ) -> Vec<NodeId> {
        self.backoff.retain(|id, _| candidates.contains_key(id));
        let free = |id: &NodeId| {
            !self.connected.contains_key(id)
                && !self.dialing.contains(id)
                && self.backoff.get(id).is_none_or(|backoff| now_ms >= backoff.until_ms)
        };
        let mut ready: BTreeMap<NodeId, &Name> = candidates
            .iter()
            .filter(|(id, candidate)| free(id) && !candidate.gossip.is_empty())
            .map(|(id, candidate)| (*id, &candidate.cloud))
            .collect();
        let cloud_of = |id: &NodeId| candidates.get(id).map(|candidate| &candidate.cloud);
        let mut reached: BTreeSet<&Name> =
            self.connected.keys().chain(&self.dialing).filter_map(cloud_of).collect();
        let mut room = TARGET_PEERS.saturating_sub(self.connected.len() + self.dialing.len());
        if now_ms >= self.next_stranger_ms {
            self.next_stranger_ms = now_ms + STRANGER_EVERY_MS;
            room += 1;
        }
        let mut dials = Vec::new();
        while self.dialing.len() < MAX_DIALING {
            let unreached = ready.iter().filter(|(_, cloud)| !reached.contains(*cloud)).map(|(id, _)| *id);
            let next = match unreached.choose(&mut self.rng) {
                Some(id) => Some(id),
                None if room > 0 => ready.keys().copied().choose(&mut self.rng),
                None => None,
            };
            let Some(id) = next else { break };
            reached.extend(ready.remove(&id));
            room = room.saturating_sub(1);
            self.dialing.insert(id);
            dials.push(id);
        }
        dials
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(count: u64, clouds: u64) -> BTreeMap<NodeId, Candidate> {
        let candidate = |id: u64| Candidate {
            gossip: vec!["127.0.0.1:1".parse().expect("an address")],
            cloud: Name::new(&format!("c{}", id % clouds)).expect("a name"),
        };
        (1..=count).map(|id| (NodeId(id), candidate(id))).collect()
    }

    #[test]
    fn a_small_fabric_is_fully_connected_and_a_large_one_is_not() {
        for (count, expected) in [(5, 5), (500, TARGET_PEERS)] {
            let mut dialer = Dialer::new(1);
            let candidates = candidates(count, 3);
            for now_ms in 0..100 {
                for peer in dialer.poll_dials(&candidates, now_ms) {
                    dialer.handle_connected(peer, now_ms);
                }
            }
            assert_eq!(dialer.connected.len(), expected);
        }
    }

    #[test]
    fn every_cloud_is_reached_and_strangers_are_met() {
        let mut dialer = Dialer::new(1);
        let candidates = candidates(500, 20);
        for now_ms in (0..60_000).step_by(250) {
            for peer in dialer.poll_dials(&candidates, now_ms) {
                dialer.handle_connected(peer, now_ms);
            }
        }
        let clouds: BTreeSet<u64> = dialer.connected.keys().map(|id| id.0 % 20).collect();
        assert_eq!(clouds.len(), 20);
        assert!(dialer.connected.len() > 20);
    }

    #[test]
    fn failed_dials_back_off_and_a_lost_peer_is_dialled_at_once() {
        let mut dialer = Dialer::new(1);
        let candidates = candidates(1, 1);
        let mut dials = 0;
        for now_ms in (0..60_000).step_by(10) {
            for peer in dialer.poll_dials(&candidates, now_ms) {
                dials += 1;
                dialer.handle_failed(peer, now_ms);
            }
        }
        assert!((8..25).contains(&dials), "{dials}");
        dialer.handle_connected(NodeId(1), 60_000);
        dialer.handle_disconnected(NodeId(1), 70_000);
        assert_eq!(dialer.poll_dials(&candidates, 70_000), [NodeId(1)]);
    }

    #[test]
    fn who_is_shown_out_again_and_again_backs_off() {
        let mut dialer = Dialer::new(1);
        let candidates = candidates(1, 1);
        let mut dials = 0;
        for now_ms in (0..60_000).step_by(10) {
            for peer in dialer.poll_dials(&candidates, now_ms) {
                dials += 1;
                dialer.handle_connected(peer, now_ms);
                dialer.handle_disconnected(peer, now_ms + 5);
            }
        }
        assert!((8..25).contains(&dials), "{dials}");
    }
}
