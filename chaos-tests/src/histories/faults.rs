//! What happens to the fabric meanwhile: kills, pauses, cuts, and changes of membership, by the dice.

use std::{
    collections::BTreeMap,
    sync::{PoisonError, RwLock},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_lab::Conditions;

use super::client::Target;
use crate::{
    lab::{
        PATIENCE, eventually,
        http::{self, Answer, Request, Server},
        world::{Place, World},
    },
    scenario::Dice,
};

/// How long a node may take to say something about the quorum.
const ASK: Duration = Duration::from_millis(1_500);
/// Longest that a change of membership is asked for before it is left for the next calm.
const CHANGE: Duration = Duration::from_secs(20);
/// Between data centres of one region.
pub(super) const NEAR: Conditions = Conditions {
    delay: Duration::from_millis(2),
    jitter: Duration::from_millis(1),
    loss: 0.001,
    reorder: 0.005,
    duplicate: 0.001,
    rate: None,
};
/// A bad way.
const BAD: Conditions = Conditions {
    delay: Duration::from_millis(80),
    jitter: Duration::from_millis(40),
    loss: 0.05,
    reorder: 0.05,
    duplicate: 0.01,
    rate: None,
};

/// Something that is done and undone.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fault {
    /// `kill -9`; the process is started again later.
    Kill(Vec<String>),
    /// SIGSTOP, and SIGCONT.
    Pause(String),
    /// These ways carry nothing.
    Cut(Vec<(String, String)>),
    /// What leads to and from a cloud is bad.
    Bad(String),
    /// A node is drained: its seat goes to another. Later it is back.
    Drain(String),
}

impl Fault {
    fn name(&self) -> &'static str {
        match self {
            Self::Kill(names) if names.len() > 1 => "kill of several",
            Self::Kill(_) => "kill",
            Self::Pause(_) => "pause",
            Self::Cut(ways) if is_two_way(ways) => "partition",
            Self::Cut(_) => "one-way cut",
            Self::Bad(_) => "bad way",
            Self::Drain(_) => "drain",
        }
    }

    /// What it makes impossible to do to somebody else at the same time.
    fn clashes(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
            || matches!((self, other), (Self::Kill(_), Self::Pause(_)) | (Self::Pause(_), Self::Kill(_)))
    }
}

fn is_two_way(ways: &[(String, String)]) -> bool {
    ways.iter().all(|(a, b)| ways.contains(&(b.clone(), a.clone())))
}

/// The hand that does it.
pub(super) struct Hand<'a> {
    pub(super) world: &'a mut World,
    pub(super) clouds: &'a [&'a str],
    /// Whom clients may ask.
    pub(super) targets: &'a RwLock<Vec<Target>>,
    pub(super) dice: Dice,
    /// What was done how often.
    pub(super) tally: BTreeMap<String, u32>,
    /// A processor that joined and is to be removed again.
    newcomer: Option<String>,
    joined: u32,
}

impl<'a> Hand<'a> {
    pub(super) fn new(
        world: &'a mut World,
        clouds: &'a [&'a str],
        targets: &'a RwLock<Vec<Target>>,
        dice: Dice,
    ) -> Self {
        Self { world, clouds, targets, dice, tally: BTreeMap::new(), newcomer: None, joined: 0 }
    }

    /// Does things until the time is up, and undoes them all.
    pub(super) fn work(&mut self, until: Instant) -> anyhow::Result<()> {
        while Instant::now() < until {
            self.rest(1_000, 4_000);
            if self.dice.below(8) == 0 {
                self.change_membership()?;
                continue;
            }
            let first = self.fault();
            let second = (self.dice.below(3) == 0).then(|| self.fault());
            let second = second.filter(|second| !second.clashes(&first));
            let faults: Vec<_> = [Some(first), second].into_iter().flatten().collect();
            for fault in &faults {
                println!("    {} {fault:?}", fault.name());
                *self.tally.entry(fault.name().to_owned()).or_default() += 1;
                self.inflict(fault)?;
                self.rest(0, 1_000);
            }
            self.rest(1_500, 9_000);
            for fault in &faults {
                self.heal(fault)?;
                self.rest(0, 1_000);
            }
        }
        Ok(())
    }

    fn rest(&mut self, least_ms: u64, most_ms: u64) {
        std::thread::sleep(Duration::from_millis(least_ms + self.dice.below(most_ms - least_ms)));
    }

    fn names(&self) -> Vec<String> {
        let targets = self.targets.read().unwrap_or_else(PoisonError::into_inner);
        targets.iter().map(|target| target.name.clone()).collect()
    }

    fn one_of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let at = self.dice.below(all.len().max(1) as u64);
        all.get(usize::try_from(at).ok()?).cloned()
    }

    /// A node; every other time the leader.
    fn victim(&mut self) -> String {
        let names = self.names();
        let leader = if self.dice.below(2) == 0 { self.leader() } else { None };
        leader.or_else(|| self.one_of(&names)).unwrap_or_default()
    }

    fn cloud_of(&self, node: &str) -> String {
        node.split('-').next().unwrap_or_default().to_owned()
    }

    fn fault(&mut self) -> Fault {
        let victim = self.victim();
        let cloud = self.cloud_of(&victim);
        let others: Vec<_> = self.clouds.iter().filter(|c| **c != cloud).map(|c| (*c).to_owned()).collect();
        match self.dice.below(16) {
            0..4 => Fault::Kill(vec![victim]),
            4 => {
                let all = self.names();
                let second = self.one_of(&all).filter(|second| *second != victim);
                Fault::Kill([Some(victim), second].into_iter().flatten().collect())
            }
            5 => Fault::Kill(self.names()),
            6..9 => Fault::Pause(victim),
            9..12 => {
                // One cloud, or two of five, on the other side.
                let friend = (others.len() > 2 && self.dice.below(2) == 0).then(|| others[0].clone());
                let inside: Vec<_> = [Some(cloud), friend].into_iter().flatten().collect();
                Fault::Cut(apart(&inside, &others))
            }
            12 => Fault::Cut(others.iter().map(|other| (cloud.clone(), other.clone())).collect()),
            13 => Fault::Cut(others.iter().map(|other| (other.clone(), cloud.clone())).collect()),
            14 => Fault::Bad(cloud),
            _ => Fault::Drain(victim),
        }
    }

    fn inflict(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(names) => names.iter().try_for_each(|name| self.world.kill(name)),
            Fault::Pause(name) => self.world.pause(name, true),
            Fault::Cut(ways) => self.cut(ways, true),
            Fault::Bad(cloud) => self.conditions(cloud, BAD),
            Fault::Drain(name) => {
                // Refused where there is no quorum just now: then it was none.
                self.set_state(name, "draining");
                Ok(())
            }
        }
    }

    fn heal(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(names) => names.iter().try_for_each(|name| self.world.launch_only(name)),
            Fault::Pause(name) => self.world.pause(name, false),
            Fault::Cut(ways) => self.cut(ways, false),
            Fault::Bad(cloud) => self.conditions(cloud, NEAR),
            Fault::Drain(name) => {
                eventually(&format!("{name} stays drained"), PATIENCE, || {
                    ensure!(self.set_state(name, "active"), "nobody agrees");
                    Ok(())
                })?;
                Ok(())
            }
        }
    }

    fn cut(&self, ways: &[(String, String)], cut: bool) -> anyhow::Result<()> {
        for (from, to) in ways {
            self.world.clouds.cut_one_way(from, to, cut)?;
        }
        Ok(())
    }

    fn conditions(&self, cloud: &str, conditions: Conditions) -> anyhow::Result<()> {
        for other in self.clouds.iter().filter(|other| **other != cloud) {
            self.world.clouds.set(cloud, other, conditions)?;
        }
        Ok(())
    }

    /// Lets a processor join, or removes the one that did.
    fn change_membership(&mut self) -> anyhow::Result<()> {
        if let Some(name) = self.newcomer.take() {
            println!("    removal {name}");
            self.remove(&name).with_context(|| format!("removal of {name}"))?;
            *self.tally.entry("removal".to_owned()).or_default() += 1;
            return Ok(());
        }
        self.everybody_is_ready()?;
        self.joined += 1;
        let clouds = self.clouds;
        let cloud = self.one_of(clouds).context("no cloud")?;
        let name = format!("{cloud}-x{}", self.joined);
        println!("    join {name}");
        let (place, names) = (Place { name: &name, cloud, is_processor: true }, self.names());
        let seed = self.one_of(&names).context("no node")?;
        let seed =
            if std::env::var_os("SEED_LEADER").is_some() { self.leader().unwrap_or(seed) } else { seed };
        self.world.start_by(place, Some(&seed)).with_context(|| format!("{name} joins by {seed}"))?;
        let target = Target { name: name.clone(), socket: self.world.socket(&name) };
        self.targets.write().unwrap_or_else(PoisonError::into_inner).push(target);
        *self.tally.entry("join".to_owned()).or_default() += 1;
        self.newcomer = Some(name);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> anyhow::Result<()> {
        let path = format!("/v1/nodes/{name}");
        eventually("the node is not removed", CHANGE.max(PATIENCE), || {
            let request = Request { method: "DELETE", path: &path, headers: "", body: "" };
            let gone = self.asked(request, Some(name), |status, body| {
                status == 200 || (status == 404 || body["code"] == "refused")
            });
            ensure!(gone, "nobody agrees");
            Ok(())
        })?;
        // It goes on for a moment as somebody who is not admitted any more.
        self.rest(500, 3_000);
        self.targets.write().unwrap_or_else(PoisonError::into_inner).retain(|t| t.name != name);
        self.world.forget(name)
    }

    /// Whether somebody was found who agreed to it.
    fn set_state(&self, name: &str, state: &str) -> bool {
        let (path, body) = (format!("/v1/nodes/{name}/state"), format!(r#"{{"state":"{state}"}}"#));
        self.asked(Request { method: "PUT", path: &path, headers: "", body: &body }, None, |s, _| s == 200)
    }

    fn asked(
        &self,
        request: Request<'_>,
        but: Option<&str>,
        agreed: impl Fn(u16, &serde_json::Value) -> bool,
    ) -> bool {
        let names = self.names();
        let others = names.iter().filter(|name| Some(name.as_str()) != but);
        others.map(|name| http::ask(Server::Socket(&self.world.socket(name)), request, CHANGE)).any(
            |answer| match answer {
                Answer::Said(status, body) => agreed(status, &body),
                Answer::NotSent | Answer::Lost => false,
            },
        )
    }

    /// Who leads, by the newest term that anybody knows.
    pub(super) fn leader(&self) -> Option<String> {
        let known = self.names().into_iter().filter_map(|name| leader_at(self.world, &name));
        known.max_by_key(|(term, _)| *term).map(|(_, leader)| leader)
    }

    /// Waits until all nodes are ready.
    pub(super) fn everybody_is_ready(&self) -> anyhow::Result<()> {
        for name in self.names() {
            is_ready(self.world, &name)?;
        }
        Ok(())
    }
}

/// Every way between these and those of the others that are not among them.
fn apart(inside: &[String], others: &[String]) -> Vec<(String, String)> {
    let outside = others.iter().filter(|other| !inside.contains(other));
    let both = |a: &String, b: &String| [(a.clone(), b.clone()), (b.clone(), a.clone())];
    outside.flat_map(|b| inside.iter().flat_map(move |a| both(a, b))).collect()
}

/// Term and leader, as a node sees them.
pub(super) fn leader_at(world: &World, name: &str) -> Option<(u64, String)> {
    let request = Request { method: "GET", path: "/v1/quorum", headers: "", body: "" };
    match http::ask(Server::Socket(&world.socket(name)), request, ASK) {
        Answer::Said(200, body) => Some((body["term"].as_u64()?, body["leader"].as_str()?.to_owned())),
        Answer::Said(..) | Answer::NotSent | Answer::Lost => None,
    }
}

fn is_ready(world: &World, name: &str) -> anyhow::Result<()> {
    let request = Request { method: "GET", path: "/readyz", headers: "", body: "" };
    eventually(&format!("{name} does not get ready"), PATIENCE, || {
        let answer = http::ask(Server::Socket(&world.socket(name)), request, ASK);
        ensure!(matches!(answer, Answer::Said(200, _)), "{answer:?}");
        Ok(())
    })?;
    Ok(())
}
