//! News that is still to be pushed.
//!
//! A rumor is pushed once by each node that learns it otherwise than by a push; the carrier's mesh hands
//! a push on, each node once, so a record crosses n nodes in O(log n) hops and at most one push per link.
//! What a push misses, anti-entropy brings. The queue holds one rumor per (node, topic), the newest, and
//! lets out at most so many bytes a second: under a storm of changes the newest state is pushed, and the
//! states between are never sent at all.

use std::collections::{BTreeSet, VecDeque};

use super::store::Key;

/// Most rumors that wait; beyond it a rumor is dropped and left to anti-entropy.
pub const MAX_RUMORS: usize = 4_096;
/// Bytes a second that pushes may take.
pub const PUSH_BYTES_PER_SECOND: u64 = 1 << 20;
/// Bytes that may be pushed at once after a quiet time.
pub const PUSH_BURST_BYTES: u64 = 256 << 10;

/// Rumors in the order in which they came.
#[derive(Debug)]
pub struct Rumors {
    queue: VecDeque<Key>,
    queued: BTreeSet<Key>,
    credit_bytes: u64,
    refilled_ms: u64,
    dropped: u64,
}

impl Default for Rumors {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            queued: BTreeSet::new(),
            credit_bytes: PUSH_BURST_BYTES,
            refilled_ms: 0,
            dropped: 0,
        }
    }
}

impl Rumors {
    /// Adds the newest record of `key`. One that waits already keeps its place: what is pushed then is
    /// whatever is newest at that time.
    pub fn push(&mut self, key: Key) {
        if self.queue.len() >= MAX_RUMORS {
            self.dropped += 1;
        } else if self.queued.insert(key) {
            self.queue.push_back(key);
        }
    }

    /// The next rumor, when there is credit for it. `size` tells the bytes of a record; one that is gone
    /// is passed over.
    pub fn poll(&mut self, now_ms: u64, size: impl Fn(&Key) -> Option<u64>) -> Option<Key> {
        self.refill(now_ms);
        loop {
            let key = *self.queue.front()?;
            let bytes = size(&key);
            if bytes.is_some_and(|bytes| bytes > self.credit_bytes) {
                return None;
            }
            self.queue.pop_front();
            self.queued.remove(&key);
            if let Some(bytes) = bytes {
                self.credit_bytes -= bytes;
                return Some(key);
            }
        }
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many were dropped because too many waited.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    fn refill(&mut self, now_ms: u64) {
        let elapsed_ms = now_ms.saturating_sub(self.refilled_ms);
        let earned = elapsed_ms.saturating_mul(PUSH_BYTES_PER_SECOND) / 1_000;
        self.credit_bytes = self.credit_bytes.saturating_add(earned).min(PUSH_BURST_BYTES);
        self.refilled_ms = self.refilled_ms.max(now_ms);
    }
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::{key::NodeId, record::Topic};

    use super::*;

    fn key(node: u64) -> Key {
        Key { node: NodeId(node), topic: Topic::Presence }
    }

    #[test]
    fn one_rumor_per_key_and_bounded() {
        let mut rumors = Rumors::default();
        for node in 0..2 * MAX_RUMORS as u64 {
            rumors.push(key(node));
            rumors.push(key(node));
        }
        let mut out = 0;
        while rumors.poll(0, |_| Some(1)).is_some() {
            out += 1;
        }
        assert_eq!(out, MAX_RUMORS);
        assert!(rumors.dropped() >= MAX_RUMORS as u64);
    }

    #[test]
    fn bandwidth_is_bounded() {
        let mut rumors = Rumors::default();
        let size = PUSH_BURST_BYTES / 2;
        (0..10).for_each(|node| rumors.push(key(node)));
        let mut burst = || std::iter::from_fn(|| rumors.poll(0, |_| Some(size))).count();
        assert_eq!(burst(), 2);
        assert_eq!(burst(), 0);
        assert!(rumors.poll(1_000, |_| Some(size)).is_some());
    }

    #[test]
    fn a_record_that_is_gone_is_passed_over() {
        let mut rumors = Rumors::default();
        rumors.push(key(1));
        rumors.push(key(2));
        assert_eq!(rumors.poll(0, |k| (*k == key(2)).then_some(1)), Some(key(2)));
    }
}
