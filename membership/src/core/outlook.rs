//! What a node makes of the others: what its eyes, SWIM and the testimony of all say, the verdicts from
//! these, and what it testifies itself.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{
    command::Role,
    id::Name,
    key::NodeId,
    policy::PolicyState,
    record::{Observation, Seen},
    view::Liveness,
};

use super::{
    Now,
    detector::{Detector, SwimState},
    judge::{Judge, Judgement},
    sights::{Node, Sources, roster},
    store::RecordStore,
    watch::Watch,
};
use crate::Timers;

/// What did not change is repeated for nodes that started at most this often, however many start.
const REPEAT_INTERVAL_MS: u64 = 2_000;

/// What a node makes of the others.
#[derive(Debug)]
pub struct Outlook {
    me: NodeId,
    timers: Timers,
    /// The admitted nodes.
    pub roster: BTreeMap<NodeId, Node>,
    /// The eyes of this node; whoever hears something tells them.
    pub watch: Watch,
    /// SWIM; none on a workload node. Whoever has its packets and the time tells it.
    pub detector: Option<Detector>,
    judge: Judge,
    /// The present verdicts.
    pub judgement: Judgement,
    /// The newest start of each other node that was heard of.
    starts: BTreeMap<NodeId, u64>,
    /// Whether one of them is so new that it has not heard this node's testimony.
    unheard: bool,
    testified_ms: u64,
}

impl Outlook {
    /// A node that knows nobody yet.
    #[must_use]
    pub fn new(me: NodeId, timers: Timers, now: Now) -> Self {
        Self {
            me,
            timers,
            roster: BTreeMap::new(),
            watch: Watch::new(me, timers),
            detector: None,
            judge: Judge::new(timers, now.mono_ms),
            judgement: Judgement::default(),
            starts: BTreeMap::new(),
            unheard: false,
            testified_ms: 0,
        }
    }

    /// Takes over who is admitted. This node takes part in SWIM from when it is a processor, under
    /// `incarnation` and with random choices from `seed`.
    pub fn handle_policy(&mut self, policy: &PolicyState, incarnation: u64, seed: u64, now: Now) {
        self.roster = roster(policy);
        let processors: BTreeSet<NodeId> =
            self.roster.iter().filter(|(_, n)| n.role == Role::Processor).map(|(id, _)| *id).collect();
        self.watch.set_members(&processors, now.mono_ms);
        if processors.contains(&self.me) && self.detector.is_none() {
            self.detector = Some(Detector::new(self.me, incarnation, &self.timers, seed));
        }
        if let Some(detector) = &mut self.detector {
            detector.set_members(processors);
        }
        self.starts.retain(|id, _| self.roster.contains_key(id));
    }

    /// A signed presence shows which start of a node is its newest.
    pub fn handle_start(&mut self, node: NodeId, incarnation: u64, now: Now) {
        let newest = self.starts.entry(node).or_insert(0);
        if incarnation > *newest {
            *newest = incarnation;
            self.unheard = true;
            // A workload node hears no probes: nothing else takes back what was refused before.
            self.watch.handle_moved(node, now.mono_ms);
        }
    }

    /// This node goes on under a higher incarnation.
    pub fn raise(&mut self, incarnation: u64, now: Now) {
        if let Some(detector) = &mut self.detector {
            detector.raise(incarnation, now.mono_ms);
        }
    }

    /// Where this node is; none while it is not admitted.
    #[must_use]
    pub fn my_cloud(&self) -> Option<Name> {
        self.roster.get(&self.me).map(|node| node.cloud.clone())
    }

    /// Judges anew by the facts in `store` and the workload nodes for which this node vouches; returns the
    /// verdicts from before when they changed.
    pub fn judge(&mut self, store: &RecordStore, vouched: &BTreeSet<NodeId>, now: Now) -> Option<Judgement> {
        let sights = self.sources(store, vouched, now).sights(self.my_cloud()?);
        for (id, sight) in &sights.processors {
            let is_missed = sight.reports.values().any(|seen| *seen != Seen::Vouched);
            // Whatever record showed the later start, and also when SWIM hears of the earlier one only now.
            if let Some(detector) = &mut self.detector
                && sight.swim.is_some_and(|swim| swim.incarnation < sight.incarnation)
            {
                detector.handle_later_start(*id, sight.incarnation, is_missed, now.mono_ms);
            }
            let suspected = sight.swim.is_some_and(|swim| swim.state == SwimState::Suspect);
            if suspected || is_missed {
                self.watch.handle_accused(*id, now.mono_ms);
            }
        }
        let judgement = self.judge.judge(&sights, now.mono_ms);
        if judgement == self.judgement {
            return None;
        }
        if let Some(detector) = &mut self.detector {
            for (id, _) in judgement.states.iter().filter(|(_, state)| **state == Liveness::Down) {
                detector.declare_down(*id, now.mono_ms);
            }
        }
        Some(std::mem::replace(&mut self.judgement, judgement))
    }

    /// What this node testifies, and whether that is to be said again although nothing changed: for those that
    /// started since. They have it on their disk, where nobody can tell whether it still holds, and gossip
    /// brings them no news.
    pub fn testify(
        &mut self,
        store: &RecordStore,
        vouched: &BTreeSet<NodeId>,
        now: Now,
    ) -> (Vec<Observation>, bool) {
        let testimony = self.sources(store, vouched, now).testimony();
        let repeat = self.unheard && now.mono_ms >= self.testified_ms + REPEAT_INTERVAL_MS;
        if repeat {
            (self.unheard, self.testified_ms) = (false, now.mono_ms);
        }
        let refresh = repeat && !testimony.is_empty();
        (testimony, refresh)
    }

    fn sources<'a>(&'a self, store: &'a RecordStore, vouched: &'a BTreeSet<NodeId>, now: Now) -> Sources<'a> {
        Sources {
            me: self.me,
            roster: &self.roster,
            store,
            watch: &self.watch,
            detector: self.detector.as_ref(),
            vouched,
            now_ms: now.mono_ms,
        }
    }
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::key::Signer;

    use super::{
        super::testing::{FABRIC, key, load, policy},
        *,
    };

    /// Of a node that died right after a restart others may have no more than some fact of that start.
    #[test]
    fn a_later_start_is_looked_for_whatever_fact_shows_it() {
        let id = |n| key(n).public_key().node_id();
        let mut store = RecordStore::new(FABRIC, 0);
        store.set_policy(&policy(2));
        let now = |mono_ms| Now { mono_ms, unix_ms: 0 };
        let mut one = Outlook::new(id(1), Timers::default(), now(0));
        one.handle_policy(&policy(2), 1, 1, now(0));
        let mut two = Detector::new(id(2), 1, &Timers::default(), 2);
        two.set_members([id(1), id(2)].into());
        let mut meet = |one: &mut Outlook, at_ms| {
            let swim = one.detector.as_mut().expect("a processor");
            swim.handle_timeout(at_ms);
            two.handle_timeout(at_ms);
            while let Some((_, packet)) = swim.poll_transmit() {
                two.handle_packet(id(1), &packet, at_ms).expect("good");
            }
            while let Some((_, packet)) = two.poll_transmit() {
                swim.handle_packet(id(2), &packet, at_ms).expect("good");
            }
        };
        (0..3_000).step_by(50).for_each(|at_ms| meet(&mut one, at_ms));
        one.detector.as_mut().expect("a processor").declare_down(id(2), 3_000);
        store.merge(load(2, 7, 1, 1, 0), 0, true).expect("genuine");
        one.judge(&store, &BTreeSet::new(), now(3_000));
        let swim = one.detector.as_ref().expect("a processor").states().find(|(node, _)| *node == id(2));
        let swim = swim.map(|(_, swim)| (swim.incarnation, swim.state));
        assert_eq!(swim, Some((7, SwimState::Alive)), "until its probes fail");

        one.detector.as_mut().expect("a processor").handle_later_start(id(2), 8, true, 3_000);
        let swim = one.detector.as_ref().expect("a processor").states().find(|(node, _)| *node == id(2));
        let swim = swim.map(|(_, swim)| (swim.incarnation, swim.state));
        assert_eq!(swim, Some((8, SwimState::Suspect)), "others miss it");
    }
}
