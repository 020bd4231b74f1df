//! Who was heard when, and how far away they are.
//!
//! openraft keeps such things to itself, so the RPC layer notes them: they decide elections, whether a
//! leader may still believe in its quorum, and which voters a refusal names as missing.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Round trips remembered of each peer; at a heartbeat of 150 ms, those of the last 40 seconds.
const RTT_SAMPLES: usize = 256;

/// What was heard of all peers.
pub(crate) struct Contacts {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    peers: BTreeMap<u64, Peer>,
    leader: Option<LeaderWord>,
}

#[derive(Default)]
struct Peer {
    heard: Option<Instant>,
    rtts: VecDeque<Duration>,
}

/// The last word of a leader.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaderWord {
    pub(crate) id: u64,
    pub(crate) at: Instant,
    /// Whether it had a fresh quorum then.
    pub(crate) quorum: bool,
    /// The round trip between voters, as the leader measures it.
    pub(crate) rtt: Duration,
}

impl Contacts {
    pub(crate) fn new() -> Self {
        Self { inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something came from `peer`; `rtt` when it answered a request that costs it no disk write.
    pub(crate) fn heard(&self, peer: u64, rtt: Option<Duration>) {
        let mut inner = self.lock();
        let entry = inner.peers.entry(peer).or_default();
        entry.heard = Some(Instant::now());
        if let Some(rtt) = rtt {
            entry.rtts.push_back(rtt);
            if entry.rtts.len() > RTT_SAMPLES {
                entry.rtts.pop_front();
            }
        }
    }

    /// A leader spoke.
    pub(crate) fn led_by(&self, word: LeaderWord) {
        self.lock().leader = Some(word);
    }

    pub(crate) fn leader(&self) -> Option<LeaderWord> {
        self.lock().leader
    }

    /// How long ago `peer` was heard.
    pub(crate) fn silence(&self, peer: u64) -> Option<Duration> {
        self.lock().peers.get(&peer).and_then(|p| p.heard).map(|at| at.elapsed())
    }

    /// The 99th percentile of the round trips to `peers`: the largest of each one's.
    pub(crate) fn rtt(&self, peers: impl Iterator<Item = u64>) -> Duration {
        let inner = self.lock();
        let of = |id| inner.peers.get(&id).and_then(|p| percentile_99(&p.rtts));
        peers.filter_map(of).max().unwrap_or_default()
    }

    /// Forgets peers that are no members any more.
    pub(crate) fn retain(&self, keep: impl Fn(u64) -> bool) {
        self.lock().peers.retain(|id, _| keep(*id));
    }
}

fn percentile_99(samples: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<_> = samples.iter().copied().collect();
    sorted.sort_unstable();
    sorted.get((sorted.len().saturating_sub(1)) * 99 / 100).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_outlier_in_a_hundred_does_not_count() {
        let contacts = Contacts::new();
        for n in 0..200 {
            contacts.heard(1, Some(Duration::from_millis(if n == 77 { 900 } else { 2 })));
        }
        assert_eq!(contacts.rtt([1, 2].into_iter()), Duration::from_millis(2));
        assert!(contacts.silence(1).is_some() && contacts.silence(2).is_none());
    }
}
