//! What a contract newly allows comes into force by stages: on one node, the canary, then in its zone, then
//! everywhere.
//!
//! A node outside the stage allows of the contract what it allowed before *and* still allows: so nothing that
//! is withdrawn waits, and nothing that worked stops. The state is part of the policy, so every node knows its
//! part; the leader moves it on ([`judge`]) by a command in the log. A node that does not hear of that stays where
//! it is, which allows less.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::{
    Revision, UnixMs,
    command::{AdmissionState, Role},
    id::{ContractRef, Name, NodeName, ServiceRef, ZoneName},
    key::Hash,
    object::{ContractRole, ContractSpec, PortRange, Protocol},
    policy::PolicyState,
    view::{Liveness, View},
};

/// How long each stage lasts unless the contract says otherwise, milliseconds.
pub const DEFAULT_SOAK_MS: u64 = 10 * 60 * 1_000;
/// Shortest stage: facts must have time to arrive.
pub const MIN_SOAK_MS: u64 = 1_000;
/// Longest stage.
pub const MAX_SOAK_MS: u64 = 7 * 24 * 3_600 * 1_000;

/// How much longer than the stage lasts a node may take to say that it enforces it: facts take their time.
pub const LATE_MS: u64 = 10_000;

/// How far a rollout has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// One node.
    Canary,
    /// The nodes of its zone.
    Zone,
    /// Nowhere: it was stopped, for this reason.
    Halted(String),
}

/// What a contract newly allows, on its way into force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// The revision that began it.
    pub revision: Revision,
    /// When its present stage began, by the leader's clock. With the revision it tells one stage from another.
    pub since_ms: UnixMs,
    /// How far it has come.
    pub stage: Stage,
    /// The node that begins.
    pub canary: NodeName,
    /// Its zone.
    pub zone: ZoneName,
    /// The contract as it was in force everywhere; `None` when it is new.
    pub before: Option<ContractSpec>,
    /// Who plays which role of it since.
    pub added: BTreeSet<(Name, ServiceRef)>,
}

/// What is to be done about a rollout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// On to the next stage; after the last one it is in force everywhere.
    Advance,
    /// Stop it, for this reason: what it newly allows is allowed nowhere.
    Halt(String),
}

impl Rollout {
    /// Whether a node is to allow all that the contract says.
    #[must_use]
    pub fn includes(&self, policy: &PolicyState, node: &NodeName) -> bool {
        match self.stage {
            Stage::Canary => *node == self.canary,
            Stage::Zone => policy.nodes.get(node).is_some_and(|admission| admission.zone == self.zone),
            Stage::Halted(_) => false,
        }
    }

    /// What a node outside the stage is to make of the contract; `None`: nothing.
    #[must_use]
    pub fn narrowed(&self, contract: &ContractSpec) -> Option<ContractSpec> {
        Some(narrow(self.before.as_ref()?, contract))
    }

    /// What people should know.
    #[must_use]
    pub fn message(&self, contract: &ContractRef) -> String {
        let Self { revision, canary, zone, .. } = self;
        match &self.stage {
            Stage::Canary => format!(
                "what contract {contract} newly allows since revision {revision} is in force on node {canary} only, \
                 then in zone {zone}, then everywhere"
            ),
            Stage::Zone => format!(
                "what contract {contract} newly allows since revision {revision} is in force in zone {zone} only, \
                 then everywhere"
            ),
            Stage::Halted(why) => format!(
                "what contract {contract} newly allows since revision {revision} is in force nowhere: {why}. Apply the \
                 contract without `rollout` to have it in force everywhere, with another one to begin again, or roll back"
            ),
        }
    }
}

/// The node that begins: of those that host workloads, if any, the one whose hash with contract and revision is
/// the greatest (rendezvous hashing, Thaler and Ravishankar 1998), so that not always the same node is the
/// canary.
#[must_use]
pub fn canary(
    policy: &PolicyState,
    contract: &ContractRef,
    revision: Revision,
) -> Option<(NodeName, ZoneName)> {
    let weight = |name: &NodeName| Hash::of(format!("{contract} {revision} {name}").as_bytes());
    let active = policy.nodes.iter().filter(|(_, admission)| admission.state == AdmissionState::Active);
    let best = active.max_by_key(|(name, admission)| (admission.role == Role::Workload, weight(name)));
    best.map(|(name, admission)| (name.clone(), admission.zone.clone()))
}

/// What both allow: the ports of both, in the stricter mode; all else as it is now.
#[must_use]
pub fn narrow(before: &ContractSpec, after: &ContractSpec) -> ContractSpec {
    let ports = |role: &Name, after: &ContractRole| {
        let before = before.roles.get(role).map_or(&[][..], |role| &role.ports);
        let both = after.ports.iter().flat_map(|a| before.iter().filter_map(move |b| both(a, b)));
        ContractRole { ports: both.collect() }
    };
    let roles = after.roles.iter().map(|(role, spec)| (role.clone(), ports(role, spec))).collect();
    ContractSpec { roles, mode: before.mode.min(after.mode), ..after.clone() }
}

fn both(a: &PortRange, b: &PortRange) -> Option<PortRange> {
    let protocol = match (a.protocol, b.protocol) {
        (Protocol::Any, other) | (other, Protocol::Any) => other,
        (one, other) if one == other => one,
        _ => return None,
    };
    let (low, high) = (a.low.max(b.low), a.high.min(b.high));
    (low <= high).then_some(PortRange { protocol, low, high })
}

/// What the leader is to do about a rollout now, by what is known of the nodes of its stage; `None`: wait.
///
/// A node that enforced it and is down since stops it. When the stage is over, every node of it that is not
/// known to be down must be heard of and enforce it, and one at least; who does not within [`LATE_MS`] more could
/// not carry it out.
#[must_use]
pub fn judge(
    policy: &PolicyState,
    rollout: &Rollout,
    soak_ms: u64,
    view: &View,
    now_ms: UnixMs,
) -> Option<Step> {
    if matches!(rollout.stage, Stage::Halted(_)) {
        return None;
    }
    let over_ms = rollout.since_ms.saturating_add(soak_ms);
    let active = policy.nodes.iter().filter(|(_, admission)| admission.state == AdmissionState::Active);
    let (mut tried, mut late) = (0, None);
    for (name, _) in active.filter(|(name, _)| rollout.includes(policy, name)) {
        let seen = view.nodes.get(name);
        let enforces = seen.and_then(|node| node.enforced).is_some_and(|e| e.revision >= rollout.revision);
        let state = seen.map_or(Liveness::Unknown, |node| node.state);
        let heard = view.me.as_ref() == Some(name) || matches!(state, Liveness::Alive | Liveness::Suspect);
        match (enforces, heard, state) {
            (true, true, _) => tried += 1,
            (true, false, Liveness::Down | Liveness::Left) => {
                return Some(Step::Halt(format!("node {name} enforced it and is down since")));
            }
            (false, false, Liveness::Down | Liveness::Left) => {}
            (..) => late = late.or(Some(name)),
        }
    }
    match late {
        _ if now_ms < over_ms => None,
        Some(_) if now_ms < over_ms.saturating_add(LATE_MS) => None,
        Some(name) => Some(Step::Halt(format!(
            "node {name} does not say that it enforces it; see the status of that node"
        ))),
        None if tried == 0 => Some(Step::Halt("no node of its stage was there to try it".to_owned())),
        None => Some(Step::Advance),
    }
}
