//! `kill -9` of random nodes during a stream of writes: what was acknowledged must never be lost.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};

use super::Dice;
use crate::lab::{self, Lab, LabNode, Options, PATIENCE, ask, eventually, write_domain};

/// Exit code of a write that may or may not have happened.
const OUTCOME_UNKNOWN: i32 = 6;
/// Pause between two writes: enough of them for each kill to hit some, few enough for a long run.
const WRITE_PAUSE: Duration = Duration::from_millis(100);

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Nodes that were killed and started again.
    pub kills: u32,
    /// Writes that were acknowledged; every one of them was found on every node afterwards.
    pub acknowledged: usize,
    /// Writes whose outcome was reported as unknown.
    pub unknown: usize,
    /// Writes that were refused or found no node.
    pub refused: usize,
}

#[derive(Default)]
struct Ledger {
    acknowledged: BTreeSet<String>,
    unknown: usize,
    refused: usize,
}

/// Kills `count` nodes, one after the other, each chosen by the dice of `seed`.
///
/// # Errors
/// When an acknowledged write is missing anywhere afterwards, or a node does not come back.
pub fn run(count: u32, seed: u64) -> anyhow::Result<Outcome> {
    println!("kill9: {count} kills, seed {seed}");
    let graph = "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: kill-nine}\nspec: {}\n";
    let mut lab = Lab::start(&Options { graph: Some(graph.to_owned()), ..Options::default() })?;
    let sockets: Vec<_> = lab.nodes.iter().map(Target::of).collect();
    let ledger = Mutex::new(Ledger::default());
    let done = AtomicBool::new(false);
    let killed = std::thread::scope(|scope| {
        let writer = scope.spawn(|| write_until(&done, &sockets, &ledger, Dice::new(!seed)));
        let killed = kill_many(&mut lab, count, &mut Dice::new(seed));
        done.store(true, Ordering::Relaxed);
        writer.join().map_err(|_| anyhow::anyhow!("the writing thread panicked"))??;
        killed
    });
    killed?;
    lab.settle()?;
    let ledger = ledger.into_inner().unwrap_or_else(PoisonError::into_inner);
    for node in &lab.nodes {
        all_there(node, &ledger.acknowledged)?;
    }
    lab.close()?;
    Ok(Outcome {
        kills: count,
        acknowledged: ledger.acknowledged.len(),
        unknown: ledger.unknown,
        refused: ledger.refused,
    })
}

/// What the writing thread needs to know of a node; the lab itself belongs to the killing one.
struct Target {
    name: String,
    socket: std::path::PathBuf,
}

impl Target {
    fn of(node: &LabNode) -> Self {
        Self { name: node.name.clone(), socket: node.socket.clone() }
    }
}

fn write_until(
    done: &AtomicBool,
    targets: &[Target],
    ledger: &Mutex<Ledger>,
    mut dice: Dice,
) -> anyhow::Result<()> {
    for number in 0.. {
        if done.load(Ordering::Relaxed) {
            break;
        }
        let index = usize::try_from(dice.below(targets.len() as u64))?;
        let target = targets.get(index).context("no node")?;
        let name = format!("w{number}");
        let finished = lab::write_domain_at(&target.socket, &name)
            .with_context(|| format!("write {name} through {}", target.name))?;
        let mut ledger = ledger.lock().unwrap_or_else(PoisonError::into_inner);
        match finished.code {
            0 => {
                ledger.acknowledged.insert(name);
            }
            OUTCOME_UNKNOWN => ledger.unknown += 1,
            _ => ledger.refused += 1,
        }
        drop(ledger);
        std::thread::sleep(WRITE_PAUSE);
    }
    Ok(())
}

fn kill_many(lab: &mut Lab, count: u32, dice: &mut Dice) -> anyhow::Result<()> {
    for number in 1..=count {
        let index = usize::try_from(dice.below(lab.nodes.len() as u64))?;
        // Long enough for elections to happen sometimes, short enough for a restart amidst one.
        let (before, dead) = (dice.below(800), dice.below(1_500));
        let node = lab.nodes.get_mut(index).context("no node")?;
        std::thread::sleep(Duration::from_millis(before));
        node.kill()?;
        std::thread::sleep(Duration::from_millis(dead));
        node.restart()?;
        let name = node.name.clone();
        let node = &*node;
        let back = eventually(&format!("{name} does not come back"), PATIENCE, || {
            ensure!(node.is_running(), "its process has ended; {}", node.log_tail());
            let status = ask(node, &["status"])?;
            ensure!(status["ready"] == true, "{status}");
            Ok(())
        })
        .with_context(|| format!("kill {number}"))?;
        println!("kill {number}: {name}, dead for {dead} ms, ready {back:?} after its restart");
    }
    Ok(())
}

fn all_there(node: &LabNode, acknowledged: &BTreeSet<String>) -> anyhow::Result<()> {
    let domains = ask(node, &["get", "domain"])?;
    let present: BTreeSet<_> = domains
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|d| d["metadata"]["name"].as_str().or(d["name"].as_str()))
        .collect();
    let lost: Vec<_> = acknowledged.iter().filter(|name| !present.contains(name.as_str())).collect();
    ensure!(lost.is_empty(), "{} has lost {} acknowledged writes: {lost:?}", node.name, lost.len());
    Ok(())
}

/// Writes one domain through every node; all must be accepted.
///
/// # Errors
/// The first that is not.
pub fn writes_go_on(lab: &Lab, prefix: &str) -> anyhow::Result<()> {
    for node in lab.running() {
        eventually(&format!("no write through {}", node.name), PATIENCE, || {
            let finished = write_domain(node, &format!("{prefix}-{}", node.name))?;
            ensure!(finished.code == 0, "exit code {}: {}", finished.code, finished.stderr.trim());
            Ok(())
        })?;
    }
    Ok(())
}
