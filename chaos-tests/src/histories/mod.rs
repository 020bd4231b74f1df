//! Histories of real clients at real nodes, under kills, pauses, cuts and changes of membership, judged by
//! [`selvedge_history`].
//!
//! A round brings a fabric up in network namespaces, has clients ask it for operations on few keys while
//! the dice decide what happens to its nodes and to what joins them, heals everything, reads every key once
//! more through every node, and judges the history of all of that. Seeds repeat the choices; what then
//! happens also depends on the machine.

mod client;
mod faults;
mod ledger;
mod returned;
mod stale;
mod workload;

use std::{
    collections::BTreeMap,
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_history::{Operation, Report, Verdict, check};

pub use client::Reads;
pub use ledger::{Soak, soak};
pub use returned::voter_returns;
pub use stale::a_stale_reader;

use self::{
    client::{Client, Notes, Target},
    faults::{Hand, NEAR},
};
use crate::{
    lab::world::{Place, World},
    scenario::Dice,
};

/// One processor in each of five clouds: five voters.
const FIVE: [&str; 5] = ["aws", "azr", "gcp", "ibm", "oci"];
/// Two processors in each of three clouds: three voters, and a learner beside each.
const THREE: [&str; 3] = ["aws", "azr", "gcp"];
/// Clients.
const CLIENTS: u32 = 32;

/// What a round is made of.
#[derive(Debug, Clone, Copy)]
pub struct Round {
    /// Repeats the choices.
    pub seed: u64,
    /// How long there are load and faults.
    pub length: Duration,
    /// Five clouds with a processor each, or three with two each.
    pub wide: bool,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Played {
    /// Everything that clients saw.
    pub history: Vec<Operation>,
    /// What was done to the fabric, how often.
    pub faults: BTreeMap<String, u32>,
    /// The judgement.
    pub report: Report,
    /// How long there were load and faults.
    pub length: Duration,
    /// What the nodes logged, where the history is not linearizable.
    pub logs: Option<String>,
}

/// Plays a round. The caller has namespaces of its own.
///
/// # Errors
/// When a node does not come back, or the history makes no sense. A violation is no error here: it is in
/// the report.
pub fn play(round: Round) -> anyhow::Result<Played> {
    let clouds = if round.wide { &FIVE[..] } else { &THREE[..] };
    let mut world = World::near(clouds, round.seed, NEAR)?;
    for cloud in clouds {
        for number in 1..=(if round.wide { 1 } else { 2 }) {
            let name = format!("{cloud}-{number}");
            world.start(Place { name: &name, cloud, is_processor: true })?;
        }
    }
    let played = under_load(&mut world, clouds, round);
    let (notes, faults, length) = played.with_context(|| world.logs())?;
    let history = notes.into_history();
    let report = check(&history)?;
    let logs = (report.verdict != Verdict::Linearizable).then(|| world.logs());
    Ok(Played { history, faults, report, length, logs })
}

fn target(world: &World, name: &str) -> Target {
    Target { name: name.to_owned(), socket: world.socket(name) }
}

fn under_load(
    world: &mut World,
    clouds: &[&str],
    round: Round,
) -> anyhow::Result<(Notes, BTreeMap<String, u32>, Duration)> {
    let names = world.names();
    let targets = RwLock::new(names.iter().map(|name| target(world, name)).collect::<Vec<_>>());
    let (notes, stop) = (Notes::new(Reads::Linearizable), AtomicBool::new(false));
    let began = Instant::now();
    let mut hand = Hand::new(world, clouds, &targets, Dice::new(round.seed));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let dice = Dice::new(round.seed ^ (u64::from(number) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let (notes, targets, stop) = (&notes, &targets, &stop);
            scope.spawn(move || workload::run(number, notes, targets, stop, dice));
        }
        let worked = hand.work(began + round.length).and_then(|()| hand.everybody_is_ready());
        stop.store(true, Ordering::Relaxed);
        worked
    })?;
    let (length, faults) = (began.elapsed(), hand.tally);
    read_all(&notes, &targets, length)?;
    Ok((notes, faults, length))
}

/// Reads every key through every node.
fn read_all(notes: &Notes, targets: &RwLock<Vec<Target>>, length: Duration) -> anyhow::Result<()> {
    let targets = targets.read().unwrap_or_else(PoisonError::into_inner);
    for target in targets.iter() {
        for key in workload::keys(length) {
            let client = Client { number: CLIENTS, notes, target };
            // A new leader may just be wanted.
            let seen = (0..5).find_map(|_| client.read(&key));
            ensure!(seen.is_some(), "{} does not answer when all is healed", target.name);
        }
    }
    Ok(())
}
