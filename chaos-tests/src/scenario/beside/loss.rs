//! One of five nodes dies: its processes are killed, or its host is cut off without a word. How long until
//! all others know?

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_lab::Conditions;
use serde_json::Value;

use super::serf::Serf;
use crate::{
    lab::{
        PATIENCE, eventually,
        http::{self, Request, Server},
        kernel::{Own, with_own},
        world::{Place, World},
    },
    scenario::{Dice, Distribution},
};

/// One node in each: what is between them can be cut.
const CLOUDS: [&str; 5] = ["aws", "azr", "gcp", "oci", "own"];
/// Between two sites of one region.
const NEAR: Conditions = Conditions { delay: Duration::from_millis(1), ..Conditions::IDEAL };
/// How often a node is asked what it knows.
const ASK_EVERY: Duration = Duration::from_millis(20);
const SOON: Duration = Duration::from_secs(5);

/// Times until the last of the others knew.
#[derive(Debug, Clone, Default)]
pub struct Losses {
    /// Of a killed process: Selvedge, serf.
    pub killed: [Distribution; 2],
    /// Of a host that was cut off: Selvedge, serf.
    pub cut: [Distribution; 2],
}

/// Loses a node `count` times by a kill and as often by a cut, of both at once. Needs root.
///
/// # Errors
/// When somebody does not come up, does not notice, or does not heal.
pub fn run(count: u32, seed: u64) -> anyhow::Result<Losses> {
    let mut losses = Losses::default();
    with_own(Own::Host, || {
        let mut ground = Ground::new(seed)?;
        let mut dice = Dice::new(seed);
        for number in 1..=count {
            let lost = CLOUDS[dice.below(CLOUDS.len() as u64) as usize];
            for (what, lose, seen) in
                [("kill", Ground::killed as Lose, &mut losses.killed), ("cut", Ground::cut, &mut losses.cut)]
            {
                let lasted =
                    lose(&mut ground, lost).with_context(|| format!("{what} {number}, of {lost}"))?;
                let [ours, serfs] = lasted.map(|time| time.as_millis());
                println!("{what} {number}, {lost}: all know after {ours} ms, serf {serfs} ms");
                seen.iter_mut().zip(lasted).for_each(|(times, time)| times.add(time));
            }
        }
        Ok(())
    })?;
    Ok(losses)
}

/// Loses a node of both, and says after what times all others of each know it.
type Lose = fn(&mut Ground, &str) -> anyhow::Result<[Duration; 2]>;

struct Ground {
    /// Declared first: its processes end before the ground goes.
    serf: Serf,
    world: World,
}

impl Ground {
    fn new(seed: u64) -> anyhow::Result<Self> {
        let mut ground = Self { serf: Serf::default(), world: World::new(&CLOUDS, seed, NEAR)? };
        for cloud in CLOUDS {
            ground.world.start(Place { name: cloud, cloud, is_processor: true })?;
            ground.launch_serf(cloud)?;
        }
        ground.settle()?;
        Ok(ground)
    }

    fn launch_serf(&mut self, name: &str) -> anyhow::Result<()> {
        let seed = CLOUDS.iter().find(|other| **other != name).context("another")?;
        let seed = self.world.host(seed).ok();
        self.serf.launch(self.world.host(name)?, seed)
    }

    fn killed(&mut self, lost: &str) -> anyhow::Result<[Duration; 2]> {
        self.serf.kill(lost);
        self.world.kill(lost)?;
        let took = self.all_know(lost, Instant::now())?;
        self.launch_serf(lost)?;
        self.world.launch(lost)?;
        self.settle()?;
        Ok(took)
    }

    fn cut(&mut self, lost: &str) -> anyhow::Result<[Duration; 2]> {
        self.set_cut(lost, true)?;
        let took = self.all_know(lost, Instant::now())?;
        self.set_cut(lost, false)?;
        self.settle()?;
        Ok(took)
    }

    fn set_cut(&self, lost: &str, cut: bool) -> anyhow::Result<()> {
        let mut others = CLOUDS.iter().filter(|other| **other != lost);
        others.try_for_each(|other| Ok(self.world.clouds.cut(lost, other, cut)?))
    }

    fn sockets(&self) -> Vec<(&'static str, PathBuf)> {
        CLOUDS.iter().map(|name| (*name, self.world.socket(name))).collect()
    }

    fn all_know(&self, lost: &str, since: Instant) -> anyhow::Result<[Duration; 2]> {
        let sockets = self.sockets();
        let ours = std::thread::scope(|scope| {
            let others = sockets.iter().filter(|(name, _)| *name != lost);
            let asked: Vec<_> = others
                .map(|(name, socket)| (name, scope.spawn(move || knows(socket, lost, since))))
                .collect();
            let mut last = Duration::ZERO;
            for (name, asked) in asked {
                let took = asked.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?;
                last = last.max(took.with_context(|| format!("{name} does not notice"))?);
            }
            anyhow::Ok(last)
        })?;
        Ok([ours, self.serf.all_know(lost, since, PATIENCE)?])
    }

    /// All take all for alive, in both.
    fn settle(&self) -> anyhow::Result<()> {
        eventually("the nodes do not agree", PATIENCE, || {
            for (name, socket) in self.sockets() {
                let members = members(&socket)?;
                let alive = members.iter().filter(|member| member["state"] == "alive").count();
                ensure!(alive == CLOUDS.len(), "{name} sees {alive} alive");
            }
            Ok(())
        })?;
        self.serf.settle()
    }
}

fn members(socket: &std::path::Path) -> anyhow::Result<Vec<Value>> {
    let request = Request { method: "GET", path: "/v1/members", headers: "", body: "" };
    let body = http::ask(Server::Socket(socket), request, SOON).success().context("no answer")?;
    // A bare list, or one beside the revision.
    body.as_array().or_else(|| body["items"].as_array()).cloned().context("no members")
}

fn knows(socket: &std::path::Path, lost: &str, since: Instant) -> anyhow::Result<Duration> {
    while since.elapsed() < PATIENCE {
        if members(socket)?.iter().any(|member| member["name"] == lost && member["state"] == "down") {
            return Ok(since.elapsed());
        }
        std::thread::sleep(ASK_EVERY);
    }
    anyhow::bail!("not within {PATIENCE:?}")
}
