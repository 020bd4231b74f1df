//! From the eyes of all to one verdict on each node and each cloud.
//!
//! Evidence, strongest first:
//!
//! * A node says that it leaves: it has *left*.
//! * Its host refuses, repeatedly, as two observers see it: *down* at once. Where only one other observer
//!   lives, one is enough.
//! * SWIM finds that it refuted no suspicion in time: *down*. A workload node takes no part in SWIM, and pings
//!   nobody: there, two observers have said for a while that it is silent.
//! * Of a whole cloud, four processors in five are silent or refused, seen from two other clouds: one
//!   event, the *cloud is down*, and everybody silent in it with it.
//! * None of these, and not heard since this node started: *unknown*, and still served.
//!
//! Against all of these stands the doubt in oneself: a node that sees nobody is more likely cut off than
//! the last survivor, so while it is *isolated* it declares nobody down.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{id::Name, key::NodeId, record::Seen, view::Liveness};

use super::detector::{Swim, SwimState};
use crate::Timers;

/// Share of a cloud's processors, in percent, that must be gone for the cloud to be down.
pub const CLOUD_DOWN_PERCENT: usize = 80;
/// Observers whose refusals count as proof.
const OBSERVERS: usize = 2;
/// Clouds that must see it when a cloud is down.
const OBSERVING_CLOUDS: usize = 2;
/// Deaths within this time before the isolation are part of it: when the own link is lost, the others
/// seem to die one after the other, not at once.
pub const ISOLATION_WINDOW_MS: u64 = 10_000;
/// How long observers must go on saying that a processor is silent, where SWIM is not asked: those who say so have
/// waited for it already, and it may still refute it.
pub const SILENCE_SETTLES_MS: u64 = 1_500;

/// What is known of one processor other than this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Where it is.
    pub cloud: Name,
    /// Its newest incarnation.
    pub incarnation: u64,
    /// It said that it leaves.
    pub leaving: bool,
    /// Something of it was heard since this node started.
    pub heard: bool,
    /// What SWIM says.
    pub swim: Option<Swim>,
    /// What this node sees itself.
    pub own: Option<Seen>,
    /// What others report of it, of its newest incarnation.
    pub reports: BTreeMap<NodeId, Seen>,
}

impl Sight {
    /// Whether this node, by its own eyes and SWIM's, takes it for alive: able to testify.
    fn lives(&self) -> bool {
        let active = self.swim_state() != Some(SwimState::Down);
        self.heard && active && !self.leaving && self.own.is_none()
    }

    /// What SWIM says of its newest start; of an earlier one it does not matter any more.
    fn swim_state(&self) -> Option<SwimState> {
        self.swim.filter(|swim| swim.incarnation >= self.incarnation).map(|swim| swim.state)
    }
}

/// What is known of one workload node other than this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hosted {
    /// It said that it leaves.
    pub leaving: bool,
    /// The processors that vouch for its newest incarnation; this node among them when it does.
    pub vouched_by: BTreeSet<NodeId>,
}

/// Everything on which the verdicts depend.
#[derive(Debug, Clone)]
pub struct Sights {
    /// This node.
    pub me: NodeId,
    /// Its cloud.
    pub my_cloud: Name,
    /// Whether it takes part in SWIM: it is a processor.
    pub swims: bool,
    /// The other processors.
    pub processors: BTreeMap<NodeId, Sight>,
    /// The other workload nodes.
    pub workloads: BTreeMap<NodeId, Hosted>,
}

/// The verdicts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Judgement {
    /// The state of every node other than this one.
    pub states: BTreeMap<NodeId, Liveness>,
    /// Clouds that are down, and since when.
    pub clouds_down: BTreeMap<Name, u64>,
    /// This node sees nobody.
    pub isolated: bool,
}

/// Judges, with the memory that it needs: since when who is down.
#[derive(Debug)]
pub struct Judge {
    timers: Timers,
    started_ms: u64,
    down_since: BTreeMap<NodeId, u64>,
    silent_since: BTreeMap<NodeId, u64>,
    clouds_down: BTreeMap<Name, u64>,
    alone_since: Option<u64>,
    vouched_ms: BTreeMap<NodeId, u64>,
}

impl Judge {
    /// A judge who knows nothing yet.
    #[must_use]
    pub const fn new(timers: Timers, now_ms: u64) -> Self {
        Self {
            timers,
            started_ms: now_ms,
            down_since: BTreeMap::new(),
            silent_since: BTreeMap::new(),
            clouds_down: BTreeMap::new(),
            alone_since: None,
            vouched_ms: BTreeMap::new(),
        }
    }

    /// Judges.
    pub fn judge(&mut self, sights: &Sights, now_ms: u64) -> Judgement {
        self.judge_isolation(sights, now_ms);
        let all = || sights.processors.iter();
        let silent = all().filter(|(id, s)| is_silent(sights, **id, s)).map(|(id, _)| *id);
        remember(&mut self.silent_since, silent.collect(), now_ms);
        let settled = |id: &NodeId| {
            self.silent_since.get(id).is_some_and(|since| now_ms.saturating_sub(*since) >= SILENCE_SETTLES_MS)
        };
        let mut down: BTreeSet<NodeId> =
            all().filter(|(id, s)| is_down(sights, **id, s) || settled(id)).map(|(id, _)| *id).collect();
        let clouds = clouds_down(sights, &down);
        for (id, sight) in &sights.processors {
            if clouds.contains(&sight.cloud) && !sight.lives() && sight.heard {
                down.insert(*id);
            }
        }
        remember(&mut self.down_since, down, now_ms);
        remember(&mut self.clouds_down, clouds, now_ms);

        let alone_since = self.alone_since;
        let before_solitude =
            |since: u64| alone_since.is_none_or(|at| since.saturating_add(ISOLATION_WINDOW_MS) < at);
        let mut states: BTreeMap<NodeId, Liveness> = sights
            .processors
            .iter()
            .map(|(id, sight)| {
                let down = self.down_since.get(id).is_some_and(|&since| before_solitude(since));
                let missed = !sights.swims && missed(sights, *id, sight) > 0;
                (*id, processor_state(sight, down, missed))
            })
            .collect();
        let workloads = self.judge_workloads(sights, &states, now_ms);
        states.extend(workloads);
        let grace = now_ms.saturating_sub(self.grace_from_ms(sights)) < self.timers.isolation_grace_ms;
        let clouds_down = self.clouds_down.iter().filter(|(_, since)| before_solitude(**since));
        Judgement {
            states,
            clouds_down: clouds_down.map(|(cloud, since)| (cloud.clone(), *since)).collect(),
            isolated: self.alone_since.is_some() && !grace,
        }
    }

    fn judge_isolation(&mut self, sights: &Sights, now_ms: u64) {
        let mut others = sights.processors.values().filter(|sight| !sight.leaving).peekable();
        let alone = others.peek().is_some() && !others.any(Sight::lives);
        self.alone_since = alone.then(|| self.alone_since.unwrap_or(now_ms));
    }

    /// That nobody was heard yet is no news right after the start, nor right after the first other
    /// processor was admitted: it is still on its way. It is no evidence either.
    fn grace_from_ms(&self, sights: &Sights) -> u64 {
        let heard = sights.processors.values().any(|sight| sight.heard && !sight.leaving);
        self.alone_since.filter(|_| !heard).unwrap_or(self.started_ms)
    }

    fn judge_workloads(
        &mut self,
        sights: &Sights,
        states: &BTreeMap<NodeId, Liveness>,
        now_ms: u64,
    ) -> Vec<(NodeId, Liveness)> {
        self.vouched_ms.retain(|id, _| sights.workloads.contains_key(id));
        let lives = |id: &NodeId| {
            *id == sights.me || matches!(states.get(id), Some(Liveness::Alive | Liveness::Suspect))
        };
        let alone = self.alone_since.is_some();
        let mut verdicts = Vec::new();
        for (&id, node) in &sights.workloads {
            if node.vouched_by.iter().any(lives) {
                self.vouched_ms.insert(id, now_ms);
            }
            let unvouched_ms = self.vouched_ms.get(&id).map(|at| now_ms.saturating_sub(*at));
            let state = match unvouched_ms {
                _ if node.leaving => Liveness::Left,
                None => Liveness::Unknown,
                Some(0) => Liveness::Alive,
                Some(ms) if alone || ms < self.timers.vouch_grace_ms => Liveness::Suspect,
                Some(_) => Liveness::Down,
            };
            verdicts.push((id, state));
        }
        verdicts
    }
}

/// Keeps since when each of `present` is so, and forgets the others.
fn remember<T: Ord>(since: &mut BTreeMap<T, u64>, present: BTreeSet<T>, now_ms: u64) {
    since.retain(|item, _| present.contains(item));
    for item in present {
        since.entry(item).or_insert(now_ms);
    }
}

fn processor_state(sight: &Sight, down: bool, missed: bool) -> Liveness {
    let by_swim = matches!(sight.swim_state(), Some(SwimState::Suspect | SwimState::Down));
    let suspected = by_swim || missed || sight.own.is_some();
    match () {
        () if sight.leaving => Liveness::Left,
        () if down => Liveness::Down,
        () if !sight.heard => Liveness::Unknown,
        () if suspected => Liveness::Suspect,
        () => Liveness::Alive,
    }
}

fn is_down(sights: &Sights, id: NodeId, sight: &Sight) -> bool {
    sight.swim_state() == Some(SwimState::Down) || refused(sights, id, sight)
}

/// Whether enough observers saw that its host refuses.
fn refused(sights: &Sights, id: NodeId, sight: &Sight) -> bool {
    let mine = usize::from(sight.own == Some(Seen::Refused));
    let (theirs, enough) = reported(sights, id, sight, |seen| seen == Seen::Refused);
    mine + theirs >= enough
}

/// Whether enough observers say that it is silent, where SWIM is not asked. A single one may be cut off itself,
/// also when there are no more.
fn is_silent(sights: &Sights, id: NodeId, sight: &Sight) -> bool {
    !sights.swims && missed(sights, id, sight) >= OBSERVERS
}

fn missed(sights: &Sights, id: NodeId, sight: &Sight) -> usize {
    reported(sights, id, sight, |seen| matches!(seen, Seen::Silent | Seen::Refused)).0
}

/// How many living processors report so of it, and how many are enough: with two more witnesses than this
/// node it takes two; with one or none, one.
fn reported(sights: &Sights, id: NodeId, sight: &Sight, so: impl Fn(Seen) -> bool) -> (usize, usize) {
    let witnesses: BTreeSet<NodeId> =
        sights.processors.iter().filter(|(other, s)| **other != id && s.lives()).map(|(id, _)| *id).collect();
    let theirs = sight.reports.iter().filter(|(observer, seen)| so(**seen) && witnesses.contains(observer));
    (theirs.count(), witnesses.len().clamp(1, OBSERVERS))
}

/// The clouds other than this node's of which nearly all processors are gone, as enough clouds see it.
fn clouds_down(sights: &Sights, down: &BTreeSet<NodeId>) -> BTreeSet<Name> {
    let mut clouds: BTreeMap<&Name, Vec<(&NodeId, &Sight)>> = BTreeMap::new();
    for (id, sight) in sights.processors.iter().filter(|(_, sight)| !sight.leaving) {
        clouds.entry(&sight.cloud).or_default().push((id, sight));
    }
    let live_clouds: BTreeSet<&Name> = sights
        .processors
        .values()
        .filter(|sight| sight.lives())
        .map(|sight| &sight.cloud)
        .chain([&sights.my_cloud])
        .collect();
    let gone = |(cloud, processors): &(&Name, Vec<(&NodeId, &Sight)>)| {
        let nearly_all = |count: usize| count * 100 >= processors.len() * CLOUD_DOWN_PERCENT;
        let all_down = nearly_all(processors.iter().filter(|(id, _)| down.contains(id)).count());
        let observers: BTreeSet<&Name> = live_clouds.iter().filter(|c| *c != cloud).copied().collect();
        let seeing = observers.iter().filter(|observer| {
            nearly_all(processors.iter().filter(|(_, s)| seen_gone_from(sights, observer, s)).count())
        });
        all_down || seeing.count() >= observers.len().clamp(1, OBSERVING_CLOUDS)
    };
    clouds
        .into_iter()
        .filter(|(cloud, _)| **cloud != sights.my_cloud)
        .filter(gone)
        .map(|(cloud, _)| cloud.clone())
        .collect()
}

/// Whether a live processor of `cloud` sees that the processor is silent or refuses.
fn seen_gone_from(sights: &Sights, cloud: &Name, sight: &Sight) -> bool {
    let gone = |seen: &Seen| matches!(seen, Seen::Silent | Seen::Refused);
    let mine = *cloud == sights.my_cloud && sight.own.as_ref().is_some_and(gone);
    mine || sight.reports.iter().any(|(observer, seen)| {
        let witness = sights.processors.get(observer).filter(|s| s.lives() && s.cloud == *cloud);
        witness.is_some() && gone(seen)
    })
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
