//! Nodes that stand still for a while, as virtual machines do that are moved, on a host whose CPUs are all
//! busy: nobody may take a living node for dead.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{available_parallelism, sleep},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::Dice;
use crate::lab::{
    Lab, Options,
    http::{self, Request, Server},
};

/// How long a node stands still, of each period.
const STILL: Duration = Duration::from_secs(3);
const PERIOD: Duration = Duration::from_secs(10);
/// How often every node is asked whom it takes for dead.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long an answer may take: as long as the node stands still, on a busy host.
const ANSWER: Duration = Duration::from_secs(10);

/// What happened.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How often a node was stopped and continued.
    pub pauses: u32,
    /// How often a node said what it takes the others for.
    pub answers: u64,
    /// How often somebody was held for suspect, which is no harm.
    pub suspicions: u64,
}

/// Lets a random one of five nodes stand still again and again.
///
/// # Errors
/// When a living node was taken for dead: by whom, and when.
pub fn run(time: Duration, seed: u64) -> anyhow::Result<Outcome> {
    println!("pauses: {time:?}, seed {seed}");
    let options =
        Options { clouds: Some("aws,azr,gcp,oci,own".to_owned()), processors: 1, ..Options::default() };
    let lab = Lab::start(&options)?;
    lab.settle()?;
    let (over, judged) = (AtomicBool::new(false), Judged::default());
    let paused = std::thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop()
                }
            });
        }
        for node in &lab.nodes {
            let (over, judged) = (&over, &judged);
            scope.spawn(move || judged.watch(&node.name, &node.socket, over));
        }
        let paused = pause(&lab, time, &judged, &mut Dice::new(seed));
        over.store(true, Ordering::Relaxed);
        paused
    });
    let outcome = judged.outcome(paused?)?;
    lab.close()?;
    Ok(outcome)
}

/// What nodes said.
#[derive(Debug, Default)]
struct Judged {
    answers: AtomicU64,
    suspicions: AtomicU64,
    /// Who took whom for dead.
    wrong: Mutex<BTreeMap<(String, String), u64>>,
}

impl Judged {
    fn watch(&self, name: &str, socket: &Path, over: &AtomicBool) {
        let request = Request { method: "GET", path: "/v1/members", headers: "", body: "" };
        while !over.load(Ordering::Relaxed) {
            let body = http::ask(Server::Socket(socket), request, ANSWER).success().unwrap_or_default();
            let Some(members) = body.as_array().or_else(|| body["items"].as_array()) else { continue };
            self.answers.fetch_add(1, Ordering::Relaxed);
            for member in members {
                match member["state"].as_str() {
                    Some("suspect") => drop(self.suspicions.fetch_add(1, Ordering::Relaxed)),
                    Some("down") => {
                        let pair = (name.to_owned(), member["name"].as_str().unwrap_or_default().to_owned());
                        *self
                            .wrong
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .entry(pair)
                            .or_default() += 1;
                    }
                    _ => {}
                }
            }
            sleep(ASK_EVERY);
        }
    }

    /// None may have been wrong.
    fn check(&self) -> anyhow::Result<()> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(wrong.is_empty(), "living nodes were taken for dead, (by, whom) and answers: {wrong:?}");
        Ok(())
    }

    fn outcome(&self, pauses: u32) -> anyhow::Result<Outcome> {
        self.check()?;
        let (answers, suspicions) =
            (self.answers.load(Ordering::Relaxed), self.suspicions.load(Ordering::Relaxed));
        ensure!(answers > u64::from(pauses), "only {answers} answers");
        Ok(Outcome { pauses, answers, suspicions })
    }
}

fn pause(lab: &Lab, time: Duration, judged: &Judged, dice: &mut Dice) -> anyhow::Result<u32> {
    let (began, mut pauses) = (Instant::now(), 0);
    while began.elapsed() < time {
        let node = &lab.nodes[dice.below(lab.nodes.len() as u64) as usize];
        let pid = i32::try_from(node.pid).ok().and_then(Pid::from_raw).context("an impossible pid")?;
        kill_process(pid, Signal::STOP)?;
        sleep(STILL);
        kill_process(pid, Signal::CONT)?;
        pauses += 1;
        sleep(PERIOD - STILL);
        judged.check().with_context(|| format!("after {pauses} pauses, the last of {}", node.name))?;
        if pauses % 6 == 0 {
            println!("{pauses} pauses in {:?}", began.elapsed());
        }
    }
    Ok(pauses)
}
