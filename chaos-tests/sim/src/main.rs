//! Runs seeds: one to look at, or many, with a ledger of what was run.

mod ledger;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use selvedge_sim::{
    Mutant, Outcome, Scenario,
    dissemination::{Figure, Question, measure, model_ms},
    run,
};

use crate::ledger::{Entry, Ledger};

/// Seeds that are run and noted together.
const CHUNK: u64 = 50;

/// The fabric's cores under one seed and virtual time
#[derive(Parser)]
enum Args {
    /// Runs one seed and shows what happened
    Seed {
        /// The seed
        seed: u64,
        #[command(flatten)]
        of: Of,
    },
    /// Runs seeds until one shows a violation; goes on where the ledger of this commit ends
    Sim {
        /// How many seeds, from 0 on
        #[arg(long, default_value_t = 10_000)]
        seeds: u64,
        /// How many at a time
        #[arg(long, default_value_t = 1)]
        jobs: u64,
        /// Where it is noted what was run
        #[arg(long, default_value = "target/soak-ledger/sim.tsv")]
        ledger: PathBuf,
        #[command(flatten)]
        of: Of,
    },
    /// How fast a new fact reaches many nodes, and what that costs each
    Spread {
        /// How many nodes
        #[arg(long, default_value_t = 1_000)]
        nodes: usize,
        /// How many seeds
        #[arg(long, default_value_t = 20)]
        seeds: u64,
    },
    /// Plants each bug in turn, and tells with how many seeds it is seen
    Mutants {
        /// Most seeds for each
        #[arg(long, default_value_t = 1_000)]
        seeds: u64,
    },
}

#[derive(clap::Args, Clone, Copy)]
struct Of {
    /// As many nodes, instead of what the seed chooses
    #[arg(long, value_parser = clap::value_parser!(u16).range(3..=2_000))]
    nodes: Option<u16>,
    /// Plants a bug
    #[arg(long, value_enum)]
    mutant: Option<Mutant>,
}

impl Of {
    fn run(self, seed: u64) -> Outcome {
        run(Scenario::of(seed, self.nodes.map(usize::from)), self.mutant)
    }

    /// How to see this seed again.
    fn again(self, seed: u64) -> String {
        let nodes = self.nodes.map(|n| format!(" --nodes {n}")).unwrap_or_default();
        let mutant = self.mutant.and_then(|m| m.to_possible_value());
        let mutant = mutant.map(|m| format!(" --mutant {}", m.get_name())).unwrap_or_default();
        format!("again: cargo run -p selvedge-sim -- seed {seed}{nodes}{mutant}")
    }
}

fn main() -> ExitCode {
    let done = match Args::parse() {
        Args::Seed { seed, of } => one(seed, of),
        Args::Sim { seeds, jobs, ledger, of } => many(seeds, jobs, ledger, of),
        Args::Mutants { seeds } => mutants(seeds),
        Args::Spread { nodes, seeds } => spread(nodes, seeds),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn one(seed: u64, of: Of) -> Result<()> {
    let outcome = of.run(seed);
    println!("{outcome}\n{} packets, digest {:016x}", outcome.events, outcome.digest);
    if outcome.violation.is_some() { bail!("{}", of.again(seed)) } else { Ok(()) }
}

fn many(seeds: u64, jobs: u64, ledger: PathBuf, of: Of) -> Result<()> {
    let kind = of.nodes.map_or_else(|| "sim".to_owned(), |n| format!("sim-{n}-nodes"));
    let ledger = Ledger::open(ledger, kind)?;
    let done = ledger.done()?;
    if done > 0 {
        println!("{done} seeds were run at this commit already");
    }
    let next = AtomicU64::new(done);
    let failed = Mutex::new(None);
    let lock = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let from = next.fetch_add(CHUNK, Ordering::Relaxed);
                    if from >= seeds || lock().is_some() {
                        return;
                    }
                    if let Err(error) = chunk(from, (from + CHUNK).min(seeds), of, &ledger) {
                        lock().get_or_insert(error);
                    }
                }
            });
        }
    });
    match failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => {
            println!("{}", ledger.summary()?);
            Ok(())
        }
    }
}

fn chunk(from: u64, to: u64, of: Of, ledger: &Ledger) -> Result<()> {
    let mut entry = Entry { from, to, ..Entry::default() };
    for seed in from..to {
        let outcome = of.run(seed);
        entry.packets += outcome.events;
        entry.virtual_s += outcome.virtual_ms / 1_000;
        if outcome.violation.is_some() {
            bail!("{outcome}\n{}", of.again(seed));
        }
    }
    ledger.add(&entry).context("the ledger")
}

fn mutants(seeds: u64) -> Result<()> {
    for mutant in Mutant::ALL {
        let of = Of { nodes: None, mutant: Some(mutant) };
        let seen = (0..seeds).find_map(|seed| Some((seed, of.run(seed).violation?)));
        let Some((seed, violation)) = seen else { bail!("{mutant:?} is not seen in {seeds} seeds") };
        if !mutant.caught_by().contains(&violation.invariant) {
            bail!("{mutant:?} is seen with seed {seed} by {violation}, not by {:?}", mutant.caught_by());
        }
        println!("{mutant:?}: seen by `{}` with seed {seed}", violation.invariant);
    }
    Ok(())
}

/// Serf's defaults, then the product's own carrier over wide-area links.
fn spread(nodes: usize, seeds: u64) -> Result<()> {
    if nodes < 3 {
        bail!("{nodes} nodes are too few: at least 3");
    }
    let like_serf = |loss_permille| Question {
        seed: 0,
        nodes,
        fanout: 3,
        interval_ms: 200,
        delay_ms: 10,
        loss_permille,
        known: 0,
    };
    let at_once = Question { fanout: 5, interval_ms: 0, delay_ms: 75, ..like_serf(0) };
    for (what, question) in [
        ("each 200 ms to 3", like_serf(0)),
        ("each 200 ms to 3, 5 % lost", like_serf(50)),
        ("at once to 5, up to 75 ms away", at_once),
    ] {
        let figures: Vec<Figure> = (0..seeds).map(|seed| measure(Question { seed, ..question })).collect();
        let known: Option<Vec<u64>> = figures.iter().map(|figure| figure.known_ms).collect();
        let Some(mut known) = known else { bail!("{what}: a fact never reached 99.99 % of {nodes} nodes") };
        known.sort_unstable();
        let model_ms = model_ms(nodes, 3, 200, question.loss_permille);
        println!(
            "{nodes} nodes, {what}: 99.99 % know after {} ms (median of {seeds}), {} ms at most; Serf's model {model_ms:.0} \
             ms; {} bytes/s a node on average, {} of the busiest",
            known[known.len() / 2],
            known[known.len() - 1],
            figures.iter().map(|figure| figure.mean_bytes_per_s).sum::<u64>() / seeds.max(1),
            figures.iter().map(|figure| figure.most_bytes_per_s).max().unwrap_or(0),
        );
    }
    let full = measure(Question { known: nodes, ..like_serf(0) });
    println!(
        "everybody has a record of each of the {nodes}: {} bytes/s a node on average, {} of the busiest",
        full.mean_bytes_per_s, full.most_bytes_per_s
    );
    Ok(())
}
