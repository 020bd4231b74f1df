//! The network between the nodes: distances, weather, cuts.

use std::collections::BTreeSet;

use rand::{RngExt, rngs::SmallRng};

/// How the network treats what is sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    /// Messages lost, per thousand.
    pub(crate) loss_permille: u32,
    /// Messages that arrive twice, per thousand.
    pub(crate) repeat_permille: u32,
    /// Longest that one takes more than the distance says, milliseconds.
    pub(crate) jitter_ms: u64,
}

/// When copies of one message arrive, milliseconds from now.
pub(crate) type Arrivals = Vec<u64>;

#[derive(Debug)]
pub(crate) struct Network {
    /// One way, between each two clouds, milliseconds.
    distances_ms: Vec<Vec<u64>>,
    pub(crate) weather: Weather,
    /// Ways that are cut, by slot: (from, to).
    cuts: BTreeSet<(usize, usize)>,
}

impl Network {
    pub(crate) fn new(clouds: usize, rng: &mut SmallRng) -> Self {
        let mut distances_ms = vec![vec![1; clouds]; clouds];
        for (a, b) in (0..clouds).flat_map(|a| (0..a).map(move |b| (a, b))) {
            let distance_ms = rng.random_range(2..=75);
            (distances_ms[a][b], distances_ms[b][a]) = (distance_ms, distance_ms);
        }
        Self { distances_ms, weather: Weather { jitter_ms: 2, ..Weather::default() }, cuts: BTreeSet::new() }
    }

    /// One way, milliseconds.
    pub(crate) fn distance_ms(&self, from_cloud: usize, to_cloud: usize) -> u64 {
        self.distances_ms[from_cloud][to_cloud]
    }

    pub(crate) fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cuts.contains(&(from, to))
    }

    pub(crate) fn connects(&self, a: usize, b: usize) -> bool {
        self.reaches(a, b) && self.reaches(b, a)
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize) {
        self.cuts.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// What becomes of a message: none, one or two arrivals.
    pub(crate) fn fate(&self, distance_ms: u64, rng: &mut SmallRng) -> Arrivals {
        let Weather { loss_permille, repeat_permille, jitter_ms } = self.weather;
        let mut arrival = || distance_ms + rng.random_range(0..=jitter_ms);
        let first = arrival();
        let second = arrival();
        let lost = rng.random_range(0..1_000) < loss_permille;
        let repeated = rng.random_range(0..1_000) < repeat_permille;
        match (lost, repeated) {
            (true, _) => Vec::new(),
            (false, false) => vec![first],
            (false, true) => vec![first, second],
        }
    }
}
