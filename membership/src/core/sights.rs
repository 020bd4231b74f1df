//! Gathers what the judge needs, and puts this node's own testimony into words.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::{Name, NodeName},
    key::NodeId,
    policy::PolicyState,
    record::{Body, MAX_OBSERVATIONS, Observation, Seen, Topic},
};

use super::{
    detector::{Detector, Swim},
    judge::{Hosted, Sight, Sights},
    store::{Key, RecordStore},
    watch::Watch,
};

/// An admitted node as far as membership needs it.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Where it is.
    pub cloud: Name,
    /// What it does.
    pub role: Role,
}

/// The admitted nodes by id.
#[must_use]
pub fn roster(policy: &PolicyState) -> BTreeMap<NodeId, Node> {
    let in_service = policy.nodes.iter().filter(|(_, a)| a.state != AdmissionState::Revoked);
    in_service
        .map(|(name, a)| {
            let node = Node { name: name.clone(), cloud: a.zone.cloud().clone(), role: a.role };
            (a.key.node_id(), node)
        })
        .collect()
}

/// Where the evidence comes from.
pub struct Sources<'a> {
    /// This node.
    pub me: NodeId,
    /// The admitted nodes.
    pub roster: &'a BTreeMap<NodeId, Node>,
    /// What all say.
    pub store: &'a RecordStore,
    /// What this node sees.
    pub watch: &'a Watch,
    /// What SWIM says; none on a workload node.
    pub detector: Option<&'a Detector>,
    /// Workload nodes for which this node vouches.
    pub vouched: &'a BTreeSet<NodeId>,
    /// The monotonic time.
    pub now_ms: u64,
}

impl Sources<'_> {
    /// Everything on which the verdicts depend.
    #[must_use]
    pub fn sights(&self, my_cloud: Name) -> Sights {
        let swim: BTreeMap<NodeId, Swim> =
            self.detector.map(|detector| detector.states().collect()).unwrap_or_default();
        let (processors, workloads) = (BTreeMap::new(), BTreeMap::new());
        let mut sights =
            Sights { me: self.me, my_cloud, swims: self.detector.is_some(), processors, workloads };
        for (&id, node) in self.roster.iter().filter(|(id, _)| **id != self.me) {
            let leaving = self.is_leaving(id);
            if node.role == Role::Processor {
                let sight = self.sight(id, node, leaving, swim.get(&id).copied());
                sights.processors.insert(id, sight);
            } else {
                let vouched_by = self.vouched.contains(&id).then_some(self.me).into_iter().collect();
                sights.workloads.insert(id, Hosted { leaving, vouched_by });
            }
        }
        self.add_reports(&mut sights);
        sights
    }

    fn sight(&self, id: NodeId, node: &Node, leaving: bool, swim: Option<Swim>) -> Sight {
        let fresh = |topic| self.store.get(&Key { node: id, topic }).is_some_and(|entry| entry.fresh);
        // A workload node takes no part in SWIM; that a processor's own records keep coming is what it has.
        let heard_of = self.detector.is_none() && fresh(Topic::Presence);
        Sight {
            cloud: node.cloud.clone(),
            incarnation: self.store.incarnation(id),
            leaving,
            heard: self.watch.heard_ms(id).is_some() || swim.is_some() || heard_of,
            swim,
            own: self.watch.seen(id, self.now_ms),
            reports: BTreeMap::new(),
        }
    }

    fn is_leaving(&self, id: NodeId) -> bool {
        matches!(self.store.body(id, Topic::Presence), Some(Body::Presence(p)) if p.leaving)
    }

    /// What others report. Only since this node's start: what the disk holds may be long over.
    fn add_reports(&self, sights: &mut Sights) {
        let processors = self.roster.iter().filter(|(_, node)| node.role == Role::Processor);
        for (&observer, _) in processors.filter(|(id, _)| **id != self.me) {
            let entry = self.store.get(&Key { node: observer, topic: Topic::Observations });
            let Some(entry) = entry.filter(|entry| entry.fresh) else { continue };
            let Body::Observations(observations) = &*entry.body else { continue };
            for observation in observations {
                add_report(sights, self.store, observer, observation);
            }
        }
    }

    /// What this node testifies: its own eyes on processors, then for whom it vouches.
    #[must_use]
    pub fn testimony(&self) -> Vec<Observation> {
        let of =
            |node: NodeId, seen: Seen| Observation { node, incarnation: self.store.incarnation(node), seen };
        let seen = |&id: &NodeId| Some(of(id, self.watch.seen(id, self.now_ms)?));
        let vouched = self.vouched.iter().map(|&id| of(id, Seen::Vouched));
        self.roster.keys().filter_map(seen).chain(vouched).take(MAX_OBSERVATIONS).collect()
    }
}

fn add_report(sights: &mut Sights, store: &RecordStore, observer: NodeId, observation: &Observation) {
    let Observation { node, incarnation, seen } = *observation;
    if incarnation < store.incarnation(node) {
        return; // Of an earlier start: over.
    }
    if let Some(sight) = sights.processors.get_mut(&node).filter(|_| seen != Seen::Vouched) {
        sight.reports.insert(observer, seen);
    }
    if let Some(hosted) = sights.workloads.get_mut(&node).filter(|_| seen == Seen::Vouched) {
        hosted.vouched_by.insert(observer);
    }
}
