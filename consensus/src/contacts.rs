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
/// Answers of a peer that are no measurement after it was silent: it has just started, or the path to it
/// has. What they took is a handshake, a log that is read, a host on which everything starts at once; it
/// says nothing of the distance, and would stretch elections for as long as it is remembered.
const WARM_UP: u32 = 10;
/// So many of the longest are left out, also while there are few: what the 99th percentile of all that are
/// remembered leaves out. Otherwise two stalls among the first would pass for the distance.
const OUTLIERS: usize = RTT_SAMPLES / 100 + 1;
/// Fewer are no measurement: those left out must be a minority.
const MIN_SAMPLES: usize = 2 * OUTLIERS + 1;

/// What was heard of all peers.
pub(crate) struct Contacts {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    peers: BTreeMap<u64, Peer>,
    leader: Option<LeaderWord>,
    /// When a leader last said that it has a quorum.
    quorum: Option<Instant>,
    /// When this replica last gave its vote to another.
    voted: Option<Instant>,
}

#[derive(Default)]
struct Peer {
    heard: Option<Instant>,
    rtts: VecDeque<Duration>,
    /// The shortest answer since it was heard again, the unmeasured ones included.
    nearest: Option<Duration>,
    /// Answers that are not measured yet.
    warming_up: u32,
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

    /// Something came from `peer`; `rtt` when it answered a request that costs it no disk write. A peer
    /// that was not heard for `silence` is measured anew.
    pub(crate) fn heard(&self, peer: u64, rtt: Option<Duration>, silence: Duration) {
        let now = Instant::now();
        let mut inner = self.lock();
        let entry = inner.peers.entry(peer).or_default();
        if entry.heard.replace(now).is_none_or(|before| now.duration_since(before) > silence) {
            entry.rtts.clear();
            entry.nearest = None;
            entry.warming_up = WARM_UP;
        }
        if let Some(rtt) = rtt {
            entry.nearest = Some(entry.nearest.map_or(rtt, |nearest| nearest.min(rtt)));
            if entry.warming_up > 0 {
                entry.warming_up -= 1;
                return;
            }
            entry.rtts.push_back(rtt);
            if entry.rtts.len() > RTT_SAMPLES {
                entry.rtts.pop_front();
            }
        }
    }

    /// A leader spoke.
    pub(crate) fn led_by(&self, word: LeaderWord) {
        let mut inner = self.lock();
        inner.leader = Some(word);
        if word.quorum {
            inner.quorum = Some(word.at);
        }
    }

    /// When a leader last said that it has a quorum.
    pub(crate) fn quorum(&self) -> Option<Instant> {
        self.lock().quorum
    }

    /// This replica voted for another.
    pub(crate) fn voted(&self) {
        self.lock().voted = Some(Instant::now());
    }

    /// How long ago it did.
    pub(crate) fn since_vote(&self) -> Option<Duration> {
        self.lock().voted.map(|at| at.elapsed())
    }

    pub(crate) fn leader(&self) -> Option<LeaderWord> {
        self.lock().leader
    }

    /// How long ago `peer` was heard.
    pub(crate) fn silence(&self, peer: u64) -> Option<Duration> {
        self.lock().peers.get(&peer).and_then(|p| p.heard).map(|at| at.elapsed())
    }

    /// The 99th percentile of the round trips to `peers`: the largest of each one's. `None` before any was
    /// measured.
    pub(crate) fn rtt(&self, peers: impl Iterator<Item = u64>) -> Option<Duration> {
        let inner = self.lock();
        let of = |id| inner.peers.get(&id).and_then(|p| percentile_99(&p.rtts));
        peers.filter_map(of).max()
    }

    /// Within which time `count` of `peers` answered at their best: good before there is a measurement,
    /// where otherwise no answer would come in time to be measured. `None` while fewer ever answered.
    pub(crate) fn reach(&self, peers: impl Iterator<Item = u64>, count: usize) -> Option<Duration> {
        let inner = self.lock();
        let mut shortest: Vec<_> = peers.filter_map(|id| inner.peers.get(&id)?.nearest).collect();
        shortest.sort_unstable();
        shortest.get(count.checked_sub(1)?).copied()
    }

    /// Forgets peers that are no members any more.
    pub(crate) fn retain(&self, keep: impl Fn(u64) -> bool) {
        self.lock().peers.retain(|id, _| keep(*id));
    }
}

fn percentile_99(samples: &VecDeque<Duration>) -> Option<Duration> {
    let mut sorted: Vec<_> = samples.iter().copied().collect();
    sorted.sort_unstable();
    let last = sorted.len().checked_sub(OUTLIERS + 1).filter(|_| sorted.len() >= MIN_SAMPLES)?;
    sorted.get(last).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE: Duration = Duration::from_millis(600);
    const NEAR: Duration = Duration::from_millis(2);
    const STALLED: Duration = Duration::from_millis(400);

    /// Answers of peer 1, a heartbeat apart.
    async fn answers(contacts: &Contacts, count: usize, rtt: Duration) {
        for _ in 0..count {
            tokio::time::advance(Duration::from_millis(150)).await;
            contacts.heard(1, Some(rtt), SILENCE);
        }
    }

    fn rtt(contacts: &Contacts) -> Option<Duration> {
        contacts.rtt([1, 2].into_iter())
    }

    #[tokio::test(start_paused = true)]
    async fn few_outliers_do_not_count_and_more_do() {
        let contacts = Contacts::new();
        answers(&contacts, WARM_UP as usize, NEAR).await;
        answers(&contacts, MIN_SAMPLES - 1, STALLED).await;
        assert_eq!(rtt(&contacts), None, "too few to tell");
        tokio::time::advance(SILENCE * 2).await;
        answers(&contacts, WARM_UP as usize, NEAR).await;
        for stalls in [OUTLIERS, 1] {
            answers(&contacts, 20, NEAR).await;
            assert_eq!(rtt(&contacts), Some(NEAR));
            answers(&contacts, stalls, STALLED).await;
        }
        assert_eq!(rtt(&contacts), Some(STALLED));
        answers(&contacts, RTT_SAMPLES, NEAR).await;
        assert_eq!(rtt(&contacts), Some(NEAR));
        assert!(contacts.silence(1).is_some() && contacts.silence(2).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_start_is_no_distance() {
        let contacts = Contacts::new();
        answers(&contacts, 50, NEAR).await;
        tokio::time::advance(SILENCE * 2).await;
        answers(&contacts, 8, STALLED).await;
        assert_eq!(rtt(&contacts), None, "not measured yet");
        assert_eq!(contacts.reach([1, 2].into_iter(), 1), Some(STALLED));
        contacts.heard(2, Some(NEAR), SILENCE);
        let reach = |count| contacts.reach([1, 2].into_iter(), count);
        assert_eq!((reach(1), reach(2), reach(3)), (Some(NEAR), Some(STALLED), None));
        answers(&contacts, 50, NEAR).await;
        assert_eq!(rtt(&contacts), Some(NEAR));
    }
}
