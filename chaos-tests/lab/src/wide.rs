//! The wide area: what becomes of a frame between two clouds. Pure: time and seed are arguments.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, btree_map::BTreeMap},
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};

use crate::LabError;

/// Most bytes under way from one cloud to another: 100 ms of 10 Gbit/s, or two seconds of 500 Mbit/s.
/// What comes on top is dropped, as a router does whose memory is full.
pub const MAX_UNDER_WAY_BYTES: usize = 128 << 20;
/// Longest that a frame waits for its turn where there is a rate; then it is dropped.
pub const MAX_WAIT: Duration = Duration::from_millis(100);

/// A cloud's place in the wide area: its number, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(pub u8);

/// What happens to frames from one cloud to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Conditions {
    /// How long a frame takes.
    pub delay: Duration,
    /// By how much it may take longer or shorter, evenly distributed. Frames keep their order.
    pub jitter: Duration,
    /// Which part is lost, 0 to 1.
    pub loss: f64,
    /// Which part is held back by up to half of the delay, at least by up to one millisecond, so that
    /// later frames overtake it, 0 to 1.
    pub reorder: f64,
    /// Which part arrives twice, 0 to 1.
    pub duplicate: f64,
    /// How much passes at most, bits per second; without a limit when absent.
    pub rate: Option<u64>,
}

impl Conditions {
    /// A cable: nothing happens to frames.
    pub const IDEAL: Self = Self {
        delay: Duration::ZERO,
        jitter: Duration::ZERO,
        loss: 0.0,
        reorder: 0.0,
        duplicate: 0.0,
        rate: None,
    };
    /// An ordinary day between two continents: 40 ms ± 5 ms one way, one frame in 200 lost, one in 100
    /// overtaken, one in 1,000 twice.
    pub const ORDINARY: Self = Self {
        delay: Duration::from_millis(40),
        jitter: Duration::from_millis(5),
        loss: 0.005,
        reorder: 0.01,
        duplicate: 0.001,
        rate: None,
    };

    /// Checks that probabilities are such.
    ///
    /// # Errors
    /// Which one is not.
    pub fn check(&self) -> Result<(), LabError> {
        for (what, value) in
            [("loss", self.loss), ("reordering", self.reorder), ("duplication", self.duplicate)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(LabError::Probability { what, value });
            }
        }
        Ok(())
    }
}

/// What became of the frames from one cloud to another.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Frames that came to this way.
    pub sent: u64,
    /// Frames that were handed over at its end; duplicates are among them.
    pub delivered: u64,
    /// Frames that the conditions lost.
    pub lost: u64,
    /// Frames that the conditions doubled.
    pub doubled: u64,
    /// Frames for which there was no room, or no turn in time.
    pub crowded_out: u64,
    /// Frames that met a cut, or were under way when it came.
    pub cut: u64,
}

/// One direction between two clouds.
#[derive(Debug)]
struct Way {
    conditions: Conditions,
    cut: bool,
    /// When the last frame that keeps its order arrives.
    last: Duration,
    /// Until when the rate is used up.
    busy: Duration,
    under_way_bytes: usize,
    tally: Tally,
}

/// A frame under way. Ordered by when it arrives, then by when it was sent.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UnderWay {
    due: Duration,
    sequence: u64,
    from: Site,
    to: Site,
    frame: Vec<u8>,
}

/// Frames between clouds. Times are durations since any one moment and never go backwards.
///
/// The same seed and the same calls give the same results, on every machine.
#[derive(Debug)]
pub struct Wide {
    ways: BTreeMap<(Site, Site), Way>,
    conditions: Conditions,
    frames: BinaryHeap<Reverse<UnderWay>>,
    sequence: u64,
    random: Xoshiro256PlusPlus,
}

impl Wide {
    /// A wide area with these conditions everywhere.
    ///
    /// # Errors
    /// When they are none.
    pub fn new(seed: u64, conditions: Conditions) -> Result<Self, LabError> {
        conditions.check()?;
        let random = Xoshiro256PlusPlus::seed_from_u64(seed);
        Ok(Self { ways: BTreeMap::new(), conditions, frames: BinaryHeap::new(), sequence: 0, random })
    }

    /// Other conditions from one cloud to another, for what is sent from now on.
    ///
    /// # Errors
    /// When they are none.
    pub fn set(&mut self, from: Site, to: Site, conditions: Conditions) -> Result<(), LabError> {
        conditions.check()?;
        self.way(from, to).conditions = conditions;
        Ok(())
    }

    /// The conditions from one cloud to another.
    #[must_use]
    pub fn conditions(&self, from: Site, to: Site) -> Conditions {
        self.ways.get(&(from, to)).map_or(self.conditions, |way| way.conditions)
    }

    /// Cuts one direction, or mends it. What is under way when it is cut is lost.
    pub fn cut(&mut self, from: Site, to: Site, cut: bool) {
        self.way(from, to).cut = cut;
        if !cut {
            return;
        }
        let (stranded, kept) = std::mem::take(&mut self.frames)
            .into_iter()
            .partition::<Vec<_>, _>(|Reverse(frame)| (frame.from, frame.to) == (from, to));
        self.frames = kept.into();
        let way = self.way(from, to);
        way.tally.cut += stranded.len() as u64;
        way.under_way_bytes = 0;
    }

    /// What became of the frames from one cloud to another so far.
    #[must_use]
    pub fn tally(&self, from: Site, to: Site) -> Tally {
        self.ways.get(&(from, to)).map(|way| way.tally).unwrap_or_default()
    }

    /// Takes a frame.
    pub fn push(&mut self, now: Duration, from: Site, to: Site, frame: Vec<u8>) {
        let conditions = self.conditions(from, to);
        // Always as many draws, so that a cut does not change what happens elsewhere.
        let [loss, jitter, reorder, held_back, duplicate] = self.random.random::<[f64; 5]>();
        let way = self.way(from, to);
        way.tally.sent += 1;
        if way.cut {
            way.tally.cut += 1;
            return;
        }
        if loss < conditions.loss {
            way.tally.lost += 1;
            return;
        }
        let Some(departs) = way.departure(now, frame.len()) else {
            way.tally.crowded_out += 1;
            return;
        };
        let mut due = (departs + conditions.delay + conditions.jitter.mul_f64(2.0 * jitter))
            .saturating_sub(conditions.jitter)
            .max(way.last);
        if reorder < conditions.reorder {
            due += (conditions.delay / 2).max(Duration::from_millis(1)).mul_f64(held_back);
        } else {
            way.last = due;
        }
        if duplicate < conditions.duplicate && way.has_room(frame.len()) {
            way.tally.doubled += 1;
            self.send(due, from, to, frame.clone());
        }
        self.send(due, from, to, frame);
    }

    /// The next frame that has arrived by `now`, and where.
    pub fn pop(&mut self, now: Duration) -> Option<(Site, Vec<u8>)> {
        if self.next_due()? > now {
            return None;
        }
        let Reverse(arrived) = self.frames.pop()?;
        let way = self.way(arrived.from, arrived.to);
        way.under_way_bytes = way.under_way_bytes.saturating_sub(arrived.frame.len());
        way.tally.delivered += 1;
        Some((arrived.to, arrived.frame))
    }

    /// When the next frame arrives, if one is under way.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.frames.peek().map(|Reverse(frame)| frame.due)
    }

    fn send(&mut self, due: Duration, from: Site, to: Site, frame: Vec<u8>) {
        self.way(from, to).under_way_bytes += frame.len();
        self.sequence += 1;
        self.frames.push(Reverse(UnderWay { due, sequence: self.sequence, from, to, frame }));
    }

    fn way(&mut self, from: Site, to: Site) -> &mut Way {
        let conditions = self.conditions;
        self.ways.entry((from, to)).or_insert_with(|| Way {
            conditions,
            cut: false,
            last: Duration::ZERO,
            busy: Duration::ZERO,
            under_way_bytes: 0,
            tally: Tally::default(),
        })
    }
}

impl Way {
    fn has_room(&self, bytes: usize) -> bool {
        self.under_way_bytes + bytes <= MAX_UNDER_WAY_BYTES
    }

    /// When a frame has left, by the rate; none when there is no room for it.
    fn departure(&mut self, now: Duration, bytes: usize) -> Option<Duration> {
        let start = now.max(self.busy);
        if !self.has_room(bytes) || start - now > MAX_WAIT {
            return None;
        }
        let Some(rate) = self.conditions.rate else { return Some(now) };
        let nanoseconds = (bytes as u128 * 8 * 1_000_000_000) / u128::from(rate.max(1));
        self.busy = start + Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        Some(self.busy)
    }
}

#[cfg(test)]
mod tests;
