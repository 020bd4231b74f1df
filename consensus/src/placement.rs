//! Where the voters of the policy store belong: a pure function of who is admitted and who lives.
//!
//! * 3, 5 or 7 voters, one in each cloud where there are three clouds or more, so that no cloud ever
//!   holds a majority and any cloud may vanish.
//! * A voter that stays dead is replaced only in its own cloud or in a cloud without a voter. Otherwise
//!   its seat stays: moving seats out of dead clouds would gather a majority in the last one alive, and
//!   that one's death would then be the end.
//! * Nodes that are revoked, removed or drained leave. New processors are learners first and become
//!   voters when they have caught up.
//! * One step at a time: the next is decided only when the last is committed.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use selvedge_fabric::id::{Name, NodeName};

/// Most voters: more make every write slower and no placement safer.
pub const MAX_VOTERS: usize = 7;
/// Voters where there are fewer than three clouds.
const FEW_CLOUD_VOTERS: usize = 3;
/// Most members of the Raft cluster: the leader sends every entry to each of them.
pub const MAX_MEMBERS: usize = 64;

/// An admitted processor, as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Processor {
    /// Its name; breaks ties, so that every leader decides alike.
    pub name: NodeName,
    /// Its cloud.
    pub cloud: Name,
    /// Admitted and neither draining nor revoked: may be a voter.
    pub active: bool,
    /// How long it has been silent; none when it lives.
    pub down: Option<Duration>,
    /// A learner whose log is close to the leader's.
    pub caught_up: bool,
}

/// What placement decides upon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Situation {
    /// Admitted processors, draining ones included, revoked and removed ones not.
    pub processors: BTreeMap<u64, Processor>,
    /// Present voters.
    pub voters: BTreeSet<u64>,
    /// Present learners.
    pub learners: BTreeSet<u64>,
    /// The leader; it keeps its seat when there is a choice.
    pub leader: u64,
    /// A change of membership is not committed yet.
    pub changing: bool,
}

/// A change of membership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Makes these the voters; those that were voters and are not any more become learners.
    SetVoters(BTreeSet<u64>),
    /// Starts to replicate to a processor.
    AddLearner(u64),
    /// Ends replication to a node that is no admitted processor any more.
    RemoveLearner(u64),
}

/// The next step towards the right placement; none when there is nothing to do or a change is under way.
#[must_use]
pub fn next_step(situation: &Situation, dead_after: Duration) -> Option<Step> {
    if situation.changing || situation.voters.is_empty() {
        return None;
    }
    let seats = desired_voters(situation, dead_after);
    if seats != situation.voters {
        return Some(Step::SetVoters(seats));
    }
    let members = situation.voters.len() + situation.learners.len();
    let is_member = |id: &u64| situation.voters.contains(id) || situation.learners.contains(id);
    let gone = situation.learners.iter().find(|id| !situation.processors.contains_key(id));
    if let Some(gone) = gone {
        return Some(Step::RemoveLearner(*gone));
    }
    // A processor that is down would only be dialled in vain.
    let alive = situation.processors.iter().filter(|(_, p)| p.down.is_none());
    let newcomer = alive.map(|(id, _)| id).find(|id| !is_member(id)).filter(|_| members < MAX_MEMBERS);
    newcomer.copied().map(Step::AddLearner)
}

/// How many voters a fabric of these clouds should have.
fn seats_for(situation: &Situation) -> usize {
    let active: Vec<_> = situation.processors.values().filter(|p| p.active).collect();
    let clouds = active.iter().map(|p| &p.cloud).collect::<BTreeSet<_>>().len();
    let odd = |n: usize| if n.is_multiple_of(2) { n.saturating_sub(1) } else { n };
    if clouds >= 3 { odd(clouds).min(MAX_VOTERS) } else { odd(active.len()).clamp(1, FEW_CLOUD_VOTERS) }
}

/// The voters there should be now, given who can take a seat at once.
fn desired_voters(situation: &Situation, dead_after: Duration) -> BTreeSet<u64> {
    let seats = seats_for(situation);
    let mut plan = Plan::new(situation, seats);
    plan.drop_the_inactive();
    let kept = plan.voters.clone();
    plan.spread();
    plan.replace_the_dead(dead_after);
    plan.fill();
    let full = plan.settle();
    // Dropping a node may leave one cloud with a majority, and must happen all the same. Seats are then
    // given out in the next step, which starts from what is left.
    let gathered = !full.is_subset(&situation.voters) && !has_majority(situation, &situation.voters);
    let seated = if gathered && has_majority(situation, &full) { kept } else { full };
    if seated == situation.voters { without_the_surplus(situation, seats) } else { seated }
}

/// Whether one cloud holds a majority of several voters, where there are three clouds to choose from.
fn has_majority(situation: &Situation, voters: &BTreeSet<u64>) -> bool {
    let plan = Plan::new(situation, voters.len());
    let crowd = |id: &u64| {
        let alike = |other: &&u64| plan.cloud(**other) == plan.cloud(*id);
        voters.iter().filter(alike).count()
    };
    plan.clouds >= 3 && voters.len() > 1 && voters.iter().map(crowd).any(|n| n * 2 > voters.len())
}

/// The present voters less those of a cloud that left the fabric for good. Only when nothing else is to
/// be done: seats are moved to where they belong before any is given up.
fn without_the_surplus(situation: &Situation, seats: usize) -> BTreeSet<u64> {
    let mut plan = Plan::new(situation, seats);
    plan.make_room();
    plan.voters
}

struct Plan<'a> {
    situation: &'a Situation,
    seats: usize,
    /// Clouds with a processor that may vote.
    clouds: usize,
    /// Most voters in one cloud, so that none has a majority where that can be.
    per_cloud: usize,
    voters: BTreeSet<u64>,
}

impl<'a> Plan<'a> {
    fn new(situation: &'a Situation, seats: usize) -> Self {
        let active = situation.processors.values().filter(|p| p.active);
        let clouds = active.map(|p| &p.cloud).collect::<BTreeSet<_>>().len();
        let per_cloud = seats.div_ceil(clouds.max(1)).max(1);
        Self { situation, seats, clouds, per_cloud, voters: situation.voters.clone() }
    }

    fn cloud(&self, id: u64) -> Option<&'a Name> {
        self.situation.processors.get(&id).map(|p| &p.cloud)
    }

    fn is_down(&self, id: u64) -> bool {
        self.situation.processors.get(&id).is_none_or(|p| p.down.is_some())
    }

    fn in_cloud(&self, cloud: &Name) -> usize {
        self.voters.iter().filter(|id| self.cloud(**id) == Some(cloud)).count()
    }

    /// Learners that could vote at once, best first: from the cloud with the fewest voters, by name.
    fn candidates(&self) -> Vec<(u64, &'a Processor)> {
        let ready = |id: &u64, p: &Processor| {
            p.active && p.caught_up && p.down.is_none() && self.situation.learners.contains(id)
        };
        let free =
            self.situation.processors.iter().filter(|(id, p)| ready(id, p) && !self.voters.contains(id));
        let mut free: Vec<_> = free.map(|(id, p)| (*id, p)).collect();
        free.sort_by_key(|(_, p)| (self.in_cloud(&p.cloud), p.name.clone()));
        free
    }

    fn drop_the_inactive(&mut self) {
        let active = |id: &u64| self.situation.processors.get(id).is_some_and(|p| p.active);
        if self.voters.iter().any(active) {
            self.voters.retain(active);
        } else if let Some((id, _)) = self.candidates().first() {
            self.voters = BTreeSet::from([*id]);
        }
    }

    /// Voters of crowded clouds, those that matter least first.
    fn dispensable(&self) -> Option<u64> {
        let rank = |id: &u64| {
            let crowd = self.cloud(*id).map_or(0, |cloud| self.in_cloud(cloud));
            let name = self.situation.processors.get(id).map(|p| p.name.clone());
            (crowd, self.is_down(*id), *id != self.situation.leader, name)
        };
        self.voters.iter().copied().max_by_key(rank)
    }

    /// Fewer seats than before: a cloud left the fabric for good. Two voters are never reduced to one:
    /// then an acknowledged write would be on one disk only.
    fn make_room(&mut self) {
        while self.voters.len() > self.seats.max(FEW_CLOUD_VOTERS)
            && let Some(id) = self.dispensable()
        {
            self.voters.remove(&id);
        }
    }

    fn replace_the_dead(&mut self, dead_after: Duration) {
        let dead = |id: &u64| {
            self.situation.processors.get(id).is_some_and(|p| p.down.is_some_and(|d| d >= dead_after))
        };
        let dead: Vec<u64> = self.voters.iter().copied().filter(dead).collect();
        for id in dead {
            let Some(cloud) = self.cloud(id) else { continue };
            let fits = |p: &Processor| p.cloud == *cloud || self.in_cloud(&p.cloud) == 0;
            let candidates = self.candidates();
            let own = candidates.iter().find(|(_, p)| p.cloud == *cloud);
            let heir = own.or_else(|| candidates.iter().find(|(_, p)| fits(p))).map(|(id, _)| *id);
            if let Some(heir) = heir {
                self.voters.remove(&id);
                self.voters.insert(heir);
            }
        }
    }

    fn fill(&mut self) {
        while self.voters.len() < self.seats {
            let room = |p: &Processor| self.in_cloud(&p.cloud) < self.per_cloud;
            let Some((id, _)) = self.candidates().into_iter().find(|(_, p)| room(p)) else { return };
            self.voters.insert(id);
        }
    }

    /// Moves seats out of crowded clouds into clouds without a voter.
    fn spread(&mut self) {
        while let Some(crowded) = self.dispensable()
            && let Some(cloud) = self.cloud(crowded)
            && self.in_cloud(cloud) > 1
            && let Some((id, _)) = self.candidates().into_iter().find(|(_, p)| self.in_cloud(&p.cloud) == 0)
        {
            self.voters.remove(&crowded);
            self.voters.insert(id);
        }
    }

    /// An even number of voters survives no more than one less, so growth waits until it makes the
    /// number odd. Shrinking to an even number is left alone: a dead seat costs no more.
    fn settle(mut self) -> BTreeSet<u64> {
        let grown =
            self.voters.len() > self.situation.voters.len() && self.situation.voters.is_subset(&self.voters);
        if grown && self.voters.len().is_multiple_of(2) {
            let added: Vec<u64> = self.voters.difference(&self.situation.voters).copied().collect();
            if let Some(last) = added.last() {
                self.voters.remove(last);
            }
        }
        self.voters
    }
}

#[cfg(test)]
mod tests;
