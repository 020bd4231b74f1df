//! Drills that are repeated many times, with what they measured.

pub mod beside;
pub mod cloud_loss;
pub mod kill9;
pub mod pauses;
pub mod recover;

use std::{fmt, time::Duration};

/// Times of repeated measurements.
#[derive(Debug, Clone, Default)]
pub struct Distribution(Vec<Duration>);

impl Distribution {
    /// Adds one.
    pub fn add(&mut self, time: Duration) {
        let at = self.0.partition_point(|t| *t <= time);
        self.0.insert(at, time);
    }

    /// The time that `percent` of the measurements do not exceed (nearest rank).
    #[must_use]
    pub fn percentile(&self, percent: usize) -> Duration {
        let rank = (self.0.len() * percent).div_ceil(100).max(1);
        self.0.get(rank - 1).copied().unwrap_or_default()
    }

    /// The longest.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.0.last().copied().unwrap_or_default()
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| time.as_millis();
        write!(f, "n {}, min {} ms, ", self.0.len(), ms(self.0.first().copied().unwrap_or_default()))?;
        write!(f, "p50 {} ms, p90 {} ms, ", ms(self.percentile(50)), ms(self.percentile(90)))?;
        write!(f, "max {} ms", ms(self.max()))
    }
}

/// Random choices that a printed seed repeats (SplitMix64).
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice that always fall the same way for the same seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `bound`, which must not be zero.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut times = Distribution::default();
        for ms in [30, 10, 20, 40, 50, 60, 70, 80, 90, 100] {
            times.add(Duration::from_millis(ms));
        }
        assert_eq!(times.percentile(50), Duration::from_millis(50));
        assert_eq!(times.percentile(90), Duration::from_millis(90));
        assert_eq!(times.to_string(), "n 10, min 10 ms, p50 50 ms, p90 90 ms, max 100 ms");
        assert_eq!(Distribution::default().max(), Duration::ZERO);
    }

    #[test]
    fn a_seed_repeats_its_choices() {
        let rolls = |seed| {
            let mut dice = Dice::new(seed);
            (0..20).map(|_| dice.below(6)).collect::<Vec<_>>()
        };
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
        assert!(rolls(7).iter().all(|&n| n < 6));
    }
}
