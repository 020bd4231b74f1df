//! A model of the replicated log, around the real rules: when a voter stands for election and who would
//! vote for it, what a majority is, which epoch is refused, and where voters belong.
//!
//! openraft itself runs in its own seeded tests, on the real store. This is a plain Raft, as the paper has
//! it, without snapshots: terms, votes, a log that is always sent from where the follower ends, and joint
//! changes of membership. Its entries are numbers; intent is agreed elsewhere in the simulation. It lives
//! through the same faults as the nodes, and its placement sees who is dead by the nodes' own detectors.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use selvedge_consensus::{
    Timers,
    placement::{self, Processor, Situation, Step},
    rules::{Countdown, Leadership, is_fenced, is_majority, would_vote},
};
use selvedge_fabric::{Epoch, command::AdmissionState, key::NodeId, policy::PolicyState, view::Liveness};
use selvedge_membership::core::judge::Judgement;

use super::log::{Deed, Entry, Last, Members, Message, Say, Stored, What};
use crate::mutant::Mutant;

/// The longest round trip between voters; timers follow it, as they do in the daemon.
const RTT: Duration = Duration::from_millis(160);
/// How often the leader looks at the placement.
const PLACEMENT_MS: u64 = 500;
/// A leader whose majority answered within this time does well: less than two heartbeats, after which it may be
/// replaced when it is held for dead.
const ANSWERED_MS: u64 = 700;
/// A learner this close to the end of the log may vote.
const CAUGHT_UP: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    Follower,
    Asking,
    Candidate,
    Leader,
}

pub(crate) struct Replica {
    me: NodeId,
    pub(crate) stored: Stored,
    timers: Timers,
    mutant: Option<Mutant>,
    role: Role,
    committed: usize,
    granted: BTreeSet<u64>,
    countdown: Countdown,
    /// When it asked whether it would be elected, since its start.
    asked: Duration,
    /// Whether somebody said no.
    declined: bool,
    started_ms: u64,
    heard_leader_ms: Option<u64>,
    /// Whom it heard last.
    leader: Option<NodeId>,
    /// When it last voted for another.
    voted_ms: Option<u64>,
    matched: BTreeMap<u64, usize>,
    answered_ms: BTreeMap<u64, u64>,
    /// Since when its majority answers without a gap.
    well_since_ms: Option<u64>,
    beat_ms: u64,
    placed_ms: u64,
    down_since_ms: BTreeMap<NodeId, u64>,
    pub(crate) out: Vec<(NodeId, Message)>,
    pub(crate) deeds: Vec<Deed>,
}

impl Replica {
    pub(crate) fn new(me: NodeId, stored: Stored, seed: u64, mutant: Option<Mutant>, now_ms: u64) -> Self {
        Self {
            me,
            stored,
            timers: Timers::default().scaled(RTT),
            mutant,
            role: Role::Follower,
            committed: 0,
            granted: BTreeSet::new(),
            countdown: Countdown::new(seed, Duration::from_millis(now_ms)),
            asked: Duration::ZERO,
            declined: false,
            started_ms: now_ms,
            heard_leader_ms: None,
            leader: None,
            voted_ms: None,
            matched: BTreeMap::new(),
            answered_ms: BTreeMap::new(),
            well_since_ms: None,
            beat_ms: 0,
            placed_ms: 0,
            down_since_ms: BTreeMap::new(),
            out: Vec::new(),
            deeds: Vec::new(),
        }
    }

    /// The founder's log: itself, alone.
    pub(crate) fn founding(me: NodeId) -> Stored {
        let members = Members { voters: vec![BTreeSet::from([me.0])], learners: BTreeSet::new() };
        Stored { log: vec![Entry { term: 0, what: What::Members(members) }], ..Stored::default() }
    }

    /// The newest membership, in force as soon as it is written.
    pub(crate) fn members(&self) -> Members {
        let newest = self.stored.log.iter().rev().find_map(|entry| match &entry.what {
            What::Members(members) => Some(members.clone()),
            What::Blank | What::Write(_) => None,
        });
        newest.unwrap_or_default()
    }

    /// What a planted bug does to the disk.
    pub(crate) const fn forget_votes(&mut self) {
        (self.stored.term, self.stored.voted) = (0, None);
    }

    pub(crate) fn leads(&self) -> bool {
        self.role == Role::Leader
    }

    /// Whether this leader's majority answered within so many milliseconds.
    pub(crate) fn quorum_answered(&self, within_ms: u64, now_ms: u64) -> bool {
        let recent = self.answered_ms.iter().filter(|(_, at)| now_ms.saturating_sub(**at) <= within_ms);
        let mut voices: BTreeSet<u64> = recent.map(|(id, _)| *id).collect();
        voices.insert(self.me.0);
        self.leads() && is_majority(&self.members().voters, &voices)
    }

    /// An operator with the recovery key makes this replica the only voter of a new epoch.
    pub(crate) fn recover(&mut self, epoch: Epoch) {
        self.stored.epoch = epoch;
        self.stored.term += 1;
        self.stored.voted = None;
        let members = Members { voters: vec![BTreeSet::from([self.me.0])], learners: BTreeSet::new() };
        self.stored.log.push(Entry { term: self.stored.term, what: What::Members(members) });
        (self.role, self.heard_leader_ms) = (Role::Follower, None);
    }

    fn last(&self) -> Last {
        self.stored.log.last().map(|entry| (entry.term, self.stored.log.len()))
    }

    fn leadership(&self, now_ms: u64) -> Leadership {
        let heard_ms = self.heard_leader_ms.unwrap_or(self.started_ms);
        let silence = Duration::from_millis(now_ms.saturating_sub(heard_ms));
        let voted = self.voted_ms.map(|at| Duration::from_millis(now_ms.saturating_sub(at)));
        let is_gone = self.leader.is_some_and(|id| self.down_since_ms.contains_key(&id));
        Leadership::new(silence, voted, is_gone)
    }

    fn is_majority(&self, granted: &BTreeSet<u64>) -> bool {
        let voters = self.members().voters;
        if self.mutant == Some(Mutant::LonelyMajority) {
            return voters.iter().all(|voters| voters.intersection(granted).count() * 3 >= voters.len());
        }
        is_majority(&voters, granted)
    }

    fn send(&mut self, to: u64, say: Say) {
        let Stored { epoch, term, .. } = self.stored;
        self.out.push((NodeId(to), Message { epoch, term, say }));
    }

    fn ask_voters(&mut self, say: &Say) {
        self.granted = BTreeSet::from([self.me.0]);
        let voters: BTreeSet<u64> = self.members().voters.into_iter().flatten().collect();
        let me = self.me.0;
        for id in voters.into_iter().filter(|id| *id != me) {
            self.send(id, say.clone());
        }
    }

    pub(crate) fn handle_tick(&mut self, policy: &PolicyState, judgement: &Judgement, now_ms: u64) {
        for (id, state) in &judgement.states {
            if *state == Liveness::Down {
                self.down_since_ms.entry(*id).or_insert(now_ms);
            } else {
                self.down_since_ms.remove(id);
            }
        }
        if self.leads() {
            self.lead(policy, now_ms);
        } else if self.members().voters.iter().any(|voters| voters.contains(&self.me.0)) {
            self.stand(now_ms);
        }
    }

    /// Asks whether the others would vote for this one, when it is time.
    fn stand(&mut self, now_ms: u64) {
        let now = Duration::from_millis(now_ms);
        let election = self.timers.election;
        let asked = self.role == Role::Asking;
        if asked && now < self.asked + self.countdown.patience(election) {
            return; // Answers are still waited for.
        }
        if asked {
            self.role = Role::Follower;
            match self.declined {
                true => self.countdown.retry(now),
                false => self.countdown.retry_with_patience(now),
            }
        }
        let leadership = self.leadership(now_ms);
        if leadership.silence < election {
            self.countdown.relax();
        }
        let voters = self.members().voters;
        let alone = voters.iter().all(|voters| voters.len() == 1);
        let voters: BTreeSet<u64> = voters.into_iter().flatten().collect();
        let before = voters.range(..self.me.0).filter(|id| !self.down_since_ms.contains_key(&NodeId(**id)));
        let before = u32::try_from(before.count()).unwrap_or(u32::MAX);
        if alone || self.countdown.is_over(now, leadership, before, &self.timers) {
            (self.asked, self.declined) = (now, false);
            self.role = Role::Asking;
            self.ask_voters(&Say::PreVote(self.last()));
            self.count_voices(now_ms);
        }
    }

    fn count_voices(&mut self, now_ms: u64) {
        if !self.is_majority(&self.granted) {
            return;
        }
        match self.role {
            Role::Asking => {
                self.countdown.restart(Duration::from_millis(now_ms));
                self.role = Role::Candidate;
                self.stored.term += 1;
                self.stored.voted = Some(self.me);
                self.ask_voters(&Say::Vote(self.last()));
                self.count_voices(now_ms);
            }
            Role::Candidate => {
                let Stored { epoch, term, .. } = self.stored;
                (self.role, self.well_since_ms) = (Role::Leader, None);
                (self.matched, self.answered_ms) = (BTreeMap::new(), BTreeMap::new());
                self.deeds.push(Deed::Led { epoch, term });
                self.write(What::Blank, now_ms);
            }
            Role::Follower | Role::Leader => {}
        }
    }

    /// Appends as a leader, and tells everybody.
    fn write(&mut self, what: What, now_ms: u64) {
        self.stored.log.push(Entry { term: self.stored.term, what });
        self.replicate(now_ms);
        self.commit();
    }

    /// A client's write; a leader without a fresh quorum refuses it.
    pub(crate) fn propose(&mut self, number: u64, now_ms: u64) {
        let fresh_ms = u64::try_from(self.timers.quorum_fresh().as_millis()).unwrap_or(u64::MAX);
        if self.quorum_answered(fresh_ms, now_ms) {
            self.write(What::Write(number), now_ms);
        }
    }

    fn lead(&mut self, policy: &PolicyState, now_ms: u64) {
        let well = self.quorum_answered(ANSWERED_MS, now_ms);
        self.well_since_ms = well.then(|| self.well_since_ms.unwrap_or(now_ms));
        let heartbeat_ms = u64::try_from(self.timers.heartbeat.as_millis()).unwrap_or(u64::MAX);
        if now_ms >= self.beat_ms + heartbeat_ms {
            self.replicate(now_ms);
        }
        if now_ms >= self.placed_ms + PLACEMENT_MS {
            self.placed_ms = now_ms;
            self.place(policy, now_ms);
        }
    }

    fn replicate(&mut self, now_ms: u64) {
        self.beat_ms = now_ms;
        let me = self.me.0;
        for id in self.members().all().into_iter().filter(|id| *id != me) {
            let from = self.matched.get(&id).copied().unwrap_or(0).min(self.stored.log.len());
            let before = from.checked_sub(1).map_or(0, |at| self.stored.log[at].term);
            let entries = self.stored.log[from..].to_vec();
            self.send(id, Say::Append { from, before, entries, committed: self.committed });
        }
    }

    fn commit(&mut self) {
        let Stored { epoch, term, .. } = self.stored;
        for index in (self.committed..self.stored.log.len()).rev() {
            let have = self.matched.iter().filter(|(_, matched)| **matched > index);
            let mut have: BTreeSet<u64> = have.map(|(id, _)| *id).collect();
            have.insert(self.me.0);
            // Only entries of its own term are counted (the Raft paper, section 5.4.2).
            if self.stored.log[index].term == term && self.is_majority(&have) {
                for index in self.committed..=index {
                    let entry = self.stored.log[index].clone();
                    self.deeds.push(Deed::Committed { epoch, term, index, entry });
                }
                self.committed = index + 1;
                return;
            }
        }
    }

    fn place(&mut self, policy: &PolicyState, now_ms: u64) {
        let before = self.members();
        let newest = self.stored.log.iter().rposition(|entry| matches!(entry.what, What::Members(_)));
        let under_way = newest.is_some_and(|at| at >= self.committed);
        if let ([_, goal], false) = (before.voters.as_slice(), under_way) {
            let after = Members { voters: vec![goal.clone()], ..before.clone() };
            return self.reseat(before, after, false, now_ms);
        }
        let changing = under_way || before.voters.len() > 1;
        let mut situation = self.situation(policy, &before, now_ms);
        situation.changing = changing && self.mutant != Some(Mutant::HastyPlacement);
        let Some(step) = placement::next_step(&situation, self.timers.dead_voter) else { return };
        let mut after = before.clone();
        match step {
            Step::SetVoters(voters) => {
                let voters = if self.mutant == Some(Mutant::CrowdedSeats) {
                    crowd(&situation, voters)
                } else {
                    voters
                };
                after.learners.extend(situation.voters.difference(&voters));
                after.learners.retain(|id| !voters.contains(id));
                after.voters.push(voters);
            }
            Step::AddLearner(id) => {
                after.learners.insert(id);
            }
            Step::RemoveLearner(id) => {
                after.learners.remove(&id);
            }
        }
        self.reseat(before, after, changing, now_ms);
    }

    fn reseat(&mut self, before: Members, after: Members, under_way: bool, now_ms: u64) {
        self.deeds.push(Deed::Reseated { before, after: after.clone(), under_way });
        let still_leads = after.voters.iter().any(|voters| voters.contains(&self.me.0));
        self.write(What::Members(after), now_ms);
        if !still_leads {
            self.role = Role::Follower;
        }
    }

    fn situation(&self, policy: &PolicyState, members: &Members, now_ms: u64) -> Situation {
        let end = self.stored.log.len();
        let processor =
            |(name, admission): (&selvedge_fabric::id::NodeName, &selvedge_fabric::policy::Admission)| {
                let id = admission.key.node_id();
                let down =
                    self.down_since_ms.get(&id).map(|at| Duration::from_millis(now_ms.saturating_sub(*at)));
                let processor = Processor {
                    name: name.clone(),
                    cloud: admission.zone.cloud().clone(),
                    active: admission.state == AdmissionState::Active,
                    down: down.filter(|_| id != self.me),
                    caught_up: self.matched.get(&id.0).is_some_and(|matched| matched + CAUGHT_UP >= end),
                };
                (id.0, processor)
            };
        Situation {
            processors: policy.nodes.iter().map(processor).collect(),
            voters: members.voters.first().cloned().unwrap_or_default(),
            learners: members.learners.clone(),
            leader: self.me.0,
            changing: false,
        }
    }

    pub(crate) fn handle(&mut self, from: NodeId, message: Message, now_ms: u64) {
        let Message { epoch, term, say } = message;
        let fenced = is_fenced(self.stored.epoch, epoch) && self.mutant != Some(Mutant::AnyEpoch);
        if fenced && epoch < self.stored.epoch {
            if !matches!(say, Say::Fenced) {
                self.send(from.0, Say::Fenced);
            }
            return;
        }
        if fenced {
            // The recovery key's statement comes with it: what this one has beyond is set aside, and it
            // waits to be made a learner.
            self.stored = Stored { epoch, ..Stored::default() };
            (self.role, self.committed, self.heard_leader_ms) = (Role::Follower, 0, None);
        }
        let higher = term > self.stored.term && !matches!(say, Say::PreVote(_) | Say::WouldVote(_));
        if higher {
            if self.leads() {
                // One that was stopped meanwhile has not noticed yet that nobody answers it any more.
                let well_since_ms = self.well_since_ms.filter(|_| self.quorum_answered(ANSWERED_MS, now_ms));
                let well_for_ms = well_since_ms.map_or(0, |since| now_ms.saturating_sub(since));
                self.deeds.push(Deed::Deposed { term, well_for_ms });
            }
            (self.stored.term, self.stored.voted, self.role) = (term, None, Role::Follower);
        }
        match say {
            Say::PreVote(theirs) => {
                let mine = if self.mutant == Some(Mutant::AnyLog) { None } else { self.last() };
                let quiet = self.mutant == Some(Mutant::EagerPreVote)
                    || (!self.leads() && would_vote(mine, theirs, self.leadership(now_ms), &self.timers));
                self.send(from.0, Say::WouldVote(quiet));
            }
            Say::WouldVote(false) => self.declined = true,
            Say::WouldVote(true) if self.role == Role::Asking => self.hear_voice(from, now_ms),
            Say::Vote(theirs) => {
                let free = self.stored.voted.is_none_or(|voted| voted == from);
                let newer = theirs >= self.last() || self.mutant == Some(Mutant::AnyLog);
                let granted = term == self.stored.term && free && newer;
                if granted {
                    (self.stored.voted, self.voted_ms) = (Some(from), Some(now_ms));
                }
                self.send(from.0, Say::Voted(granted));
            }
            Say::Voted(true) if self.role == Role::Candidate && term == self.stored.term => {
                self.hear_voice(from, now_ms);
            }
            Say::Append { from: at, before, entries, committed } if term == self.stored.term => {
                self.deeds.push(Deed::Followed { mine: self.stored.epoch, theirs: epoch });
                (self.role, self.heard_leader_ms, self.leader) = (Role::Follower, Some(now_ms), Some(from));
                let appended = self.append(at, before, entries, committed);
                self.send(from.0, appended);
            }
            Say::Append { .. } => self.send(from.0, Say::Appended { ok: false, matched: 0 }),
            Say::Appended { ok, matched } if self.leads() && term == self.stored.term => {
                self.answered_ms.insert(from.0, now_ms);
                let known = self.matched.entry(from.0).or_insert(0);
                *known = if ok { matched.max(*known) } else { matched };
                self.commit();
            }
            Say::WouldVote(_) | Say::Voted(_) | Say::Appended { .. } | Say::Fenced => {}
        }
    }

    fn hear_voice(&mut self, from: NodeId, now_ms: u64) {
        self.granted.insert(from.0);
        self.count_voices(now_ms);
    }

    fn append(&mut self, at: usize, before: u64, entries: Vec<Entry>, committed: usize) -> Say {
        let log = &mut self.stored.log;
        let fits = at <= log.len() && at.checked_sub(1).is_none_or(|last| log[last].term == before);
        if !fits {
            // Everything after the commit is sent again.
            return Say::Appended { ok: false, matched: self.committed.min(at) };
        }
        let matched = at + entries.len();
        for (index, entry) in (at..).zip(entries) {
            if log.get(index) == Some(&entry) {
                continue;
            }
            log.truncate(index);
            log.push(entry);
        }
        self.committed = self.committed.max(committed.min(matched));
        Say::Appended { ok: true, matched }
    }
}

/// The same number of voters, as many as can be from one cloud: a placement that knows no clouds.
fn crowd(situation: &Situation, voters: BTreeSet<u64>) -> BTreeSet<u64> {
    let members = situation.voters.iter().chain(&situation.learners);
    let mut by_cloud: Vec<_> =
        members.filter_map(|id| Some((situation.processors.get(id)?.cloud.clone(), *id))).collect();
    by_cloud.sort();
    by_cloud.into_iter().map(|(_, id)| id).take(voters.len()).collect()
}
