//! What a seed stands for: a size, a length, and phases.

use std::fmt;

use rand::{RngExt, SeedableRng, rngs::SmallRng};

use crate::{
    intent::{Birth, key_of, name},
    invariants::{Checks, Violation},
    mutant::Mutant,
    world::{Death, Sighting, World},
};

/// Time before the first fault.
const START_UP_MS: u64 = 6_000;
/// How often an invariant may look around.
const MOMENT_MS: u64 = 250;
/// Healed nodes must agree within this time: the longest wait of the dialer, the idle time-out of a dead
/// connection, and some rounds of anti-entropy with a record that is repeated only every 20 s.
const LIVENESS_MS: u64 = 60_000;
/// How long the last death is watched.
const LAST_DEATH_MS: u64 = 12_000;

/// Sizes that a seed chooses from; large ones are run by asking for them.
const MOST_NODES: usize = 9;
/// From this many nodes on, time-outs are looked at less often, so that a run ends within minutes.
const LARGE: usize = 40;

/// What a seed stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Nodes at the beginning.
    pub nodes: usize,
    /// Clouds over which they are spread.
    pub clouds: usize,
    /// Services, and as many contracts.
    pub services: usize,
    /// How long faults happen, milliseconds.
    pub chaos_ms: u64,
    /// Longest time between two faults, milliseconds.
    pub fault_every_ms: u64,
    /// Whether packets go between nodes: links are probed ten times a second, which is most of what happens.
    pub carries: bool,
    pub(crate) tick_ms: u64,
    pub(crate) view_ms: u64,
}

impl Scenario {
    /// The scenario of a seed; `nodes` instead of its own choice when given.
    #[must_use]
    pub fn of(seed: u64, nodes: Option<usize>) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed);
        let own = rng.random_range(3..=MOST_NODES);
        let nodes = nodes.unwrap_or(own);
        let large = nodes >= LARGE;
        Self {
            seed,
            nodes,
            clouds: rng.random_range(1..=5.min(nodes)),
            services: rng.random_range(3..=5),
            chaos_ms: if large { 10_000 } else { rng.random_range(10_000..40_000) },
            fault_every_ms: rng.random_range(500..4_000),
            carries: !large && rng.random_bool(0.5),
            tick_ms: if large { 500 } else { 50 },
            view_ms: if large { 1_000 } else { 20 },
        }
    }

    /// The node that is made as the `n`th.
    pub(crate) fn birth(&self, n: usize) -> Birth {
        let text = format!("n{n}");
        Birth { key: key_of(&text), name: name(&text), cloud: n % self.clouds, service: n % self.services }
    }
}

/// What became of a seed.
#[derive(Debug)]
pub struct Outcome {
    /// What was run.
    pub scenario: Scenario,
    /// The first violation.
    pub violation: Option<Violation>,
    /// The last things that happened.
    pub trace: Vec<String>,
    /// Equal for two runs in which the same happened.
    pub digest: u64,
    /// Packets that arrived.
    pub events: u64,
    /// Virtual time that passed, milliseconds.
    pub virtual_ms: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        let Scenario { seed, nodes, clouds, .. } = self.scenario;
        match &self.violation {
            None => write!(f, "seed {seed}: {nodes} nodes in {clouds} clouds: no violation"),
            Some(violation) => write!(
                f,
                "seed {seed}: {nodes} nodes in {clouds} clouds, after {:.3}s: {violation}",
                self.virtual_ms as f64 / 1_000.0
            ),
        }
    }
}

/// Runs a scenario, with a planted bug if one is asked for, until its end or the first violation.
#[must_use]
pub fn run(scenario: Scenario, mutant: Option<Mutant>) -> Outcome {
    let mut run = Run { world: World::new(scenario, mutant), checks: Checks::all(), next_moment_ms: 0 };
    let violation = run.phases().err();
    Outcome {
        scenario: run.world.scenario.clone(),
        violation,
        trace: run.world.trace.lines(),
        digest: run.world.trace.digest(),
        events: run.world.trace.events(),
        virtual_ms: run.world.now_ms,
    }
}

struct Run {
    world: World,
    checks: Checks,
    next_moment_ms: u64,
}

impl Run {
    fn phases(&mut self) -> Result<(), Violation> {
        self.pass(START_UP_MS)?;
        self.safety()?;
        self.liveness()?;
        self.last_death()
    }

    /// Lets time pass, and looks at everything that is to be looked at.
    fn pass(&mut self, for_ms: u64) -> Result<(), Violation> {
        let until_ms = self.world.now_ms + for_ms;
        loop {
            let stop_ms = until_ms.min(self.next_moment_ms);
            match self.world.advance(stop_ms) {
                Some(sightings) => self.look(sightings)?,
                None if self.world.now_ms >= self.next_moment_ms => {
                    self.next_moment_ms = self.world.now_ms + MOMENT_MS;
                    self.world.write_to_leaders();
                    self.look(vec![Sighting::Moment])?;
                }
                None => return Ok(()),
            }
        }
    }

    /// Looks at what was seen, and at what comes of looking.
    fn look(&mut self, mut sightings: Vec<Sighting>) -> Result<(), Violation> {
        while !sightings.is_empty() {
            for sighting in &sightings {
                self.checks.see(&mut self.world, sighting)?;
            }
            sightings = self.world.take_sightings();
        }
        Ok(())
    }

    /// Faults; whatever must never happen must not happen now.
    fn safety(&mut self) -> Result<(), Violation> {
        let until_ms = self.world.now_ms + self.world.scenario.chaos_ms;
        while self.world.now_ms < until_ms {
            self.world.disturb();
            let wait_ms = self.world.rng.random_range(1..=self.world.scenario.fault_every_ms);
            self.pass(wait_ms)?;
        }
        Ok(())
    }

    /// No faults; whatever must happen must happen now.
    fn liveness(&mut self) -> Result<(), Violation> {
        self.world.heal();
        let until_ms = self.world.now_ms + LIVENESS_MS;
        while let Err(violation) = self.checks.settled(&self.world) {
            if self.world.now_ms >= until_ms {
                return Err(violation);
            }
            self.pass(MOMENT_MS)?;
        }
        let after_ms = self.world.now_ms;
        self.world.tell(&format_args!("all agree, {} ms after healing", after_ms + LIVENESS_MS - until_ms));
        Ok(())
    }

    /// One more node dies in fair weather: how soon is that known?
    fn last_death(&mut self) -> Result<(), Violation> {
        let living: Vec<usize> = self.world.living().map(|(n, _)| n).collect();
        let death = if self.world.rng.random_bool(0.5) { Death::Process } else { Death::Host };
        let chosen = living[self.world.rng.random_range(0..living.len())];
        self.world.kill(chosen, death);
        self.pass(LAST_DEATH_MS)
    }
}
