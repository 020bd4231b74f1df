//! Which counters were seen: a sliding window over the newest ones, as a ring of words (RFC 6479).

const WORD_BITS: u64 = 64;
/// Words of the ring. One of them is being filled, so the window is a word shorter than the ring.
const WORDS: usize = 128;
/// How far behind the newest counter one may be. Paths of different length reorder; at 2 million packets
/// a second this is 4 ms, at 100,000 it is 80.
pub(crate) const WINDOW: u64 = (WORDS as u64 - 1) * WORD_BITS;

/// The counters that were seen of one session.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    newest: u64,
    ring: [u64; WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self { newest: 0, ring: [0; WORDS] }
    }
}

impl Window {
    /// Whether a counter could be new: cheap, and asked before the packet is opened.
    pub(crate) const fn may_be_new(&self, counter: u64) -> bool {
        if counter > self.newest {
            return true;
        }
        let (word, bit) = Self::place(counter);
        self.newest - counter < WINDOW && self.ring[word] & bit == 0
    }

    /// Notes a counter that was authenticated; `false` when it was seen before or is too old to know.
    pub(crate) fn take(&mut self, counter: u64) -> bool {
        if !self.may_be_new(counter) {
            return false;
        }
        if counter > self.newest {
            let (from, to) = (self.newest / WORD_BITS, counter / WORD_BITS);
            for block in (from + 1..=to).take(WORDS) {
                self.ring[(block % WORDS as u64) as usize] = 0;
            }
            self.newest = counter;
        }
        let (word, bit) = Self::place(counter);
        self.ring[word] |= bit;
        true
    }

    const fn place(counter: u64) -> (usize, u64) {
        (((counter / WORD_BITS) % WORDS as u64) as usize, 1 << (counter % WORD_BITS))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn nothing_passes_twice_and_nothing_recent_is_lost(
            steps in proptest::collection::vec((0_u64..400, any::<bool>()), 1..2_000),
            start in prop_oneof![Just(0), Just(u64::from(u32::MAX)), any::<u32>().prop_map(u64::from)],
        ) {
            let (mut window, mut seen, mut newest) = (Window::default(), BTreeSet::from([start]), start);
            window.take(start);
            for (step, forward) in steps {
                let counter = if forward { newest + step } else { newest.saturating_sub(step * 40) };
                let fresh = !seen.contains(&counter);
                let recent = counter >= newest || newest - counter < WINDOW;
                prop_assert_eq!(window.take(counter), fresh && recent, "{} of {}", counter, newest);
                if fresh && recent {
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }

    #[test]
    fn a_jump_over_the_whole_ring_forgets_the_ring() {
        let mut window = Window::default();
        assert!(window.take(5) && !window.take(5));
        assert!(window.take(5 + 10 * WINDOW) && !window.take(5));
        assert!(window.take(5 + 10 * WINDOW - WINDOW + 1) && !window.take(5 + 9 * WINDOW));
        assert!(window.take(u64::MAX) && !window.take(u64::MAX));
    }
}
