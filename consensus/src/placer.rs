//! Carries out what [`crate::placement`] decides, on the leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use openraft::ChangeMembers;
use selvedge_fabric::{
    command::{AdmissionState, Role},
    event::Severity,
    key::NodeId,
    view::Liveness,
};
use tokio::time::Instant;

use crate::{
    core::{Core, member_name},
    placement::{self, Processor, Situation, Step},
    types::{Member, RaftMetrics},
};

/// How often the leader looks at the placement.
const INTERVAL: Duration = Duration::from_millis(500);
/// A learner this close to the leader's log may vote: it needs one append to catch up.
const CAUGHT_UP_ENTRIES: u64 = 64;
/// Longest wait for a change to commit. It goes on in the background; the next look sees its result.
const CHANGE_PATIENCE: Duration = Duration::from_secs(20);
/// A member that failure detection knows nothing of counts as silent after this time.
const SILENT: Duration = Duration::from_secs(3);

/// Runs until the replica ends.
pub(crate) async fn run(core: Arc<Core>) {
    let mut leading_since = None;
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
        }
        if !core.quorum_is_fresh() {
            if !core.leads() {
                leading_since = None;
            }
            continue;
        }
        let since = *leading_since.get_or_insert_with(Instant::now);
        let metrics = core.metrics();
        core.link.contacts.retain(|id| metrics.membership_config.membership().get_node(&id).is_some());
        let situation = situation(&core, &metrics, since);
        let change = match placement::next_step(&situation, core.link.timers.dead_voter) {
            Some(step) => Some(change_of(&core, &metrics, &situation, step)),
            None if situation.changing => half_done(&metrics),
            None => moved_members(&core, &metrics),
        };
        let Some((change, what)) = change else { continue };
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = carry_out(&core, change, &what) => {}
        }
    }
}

type Change = (ChangeMembers<u64, Member>, String);

fn change_of(core: &Core, metrics: &RaftMetrics, situation: &Situation, step: Step) -> Change {
    let name = |id: &u64| {
        let known = situation.processors.get(id).map(|p| p.name.clone());
        known.or_else(|| member_name(metrics, *id)).map_or_else(|| NodeId(*id).to_string(), |n| n.to_string())
    };
    let names = |ids: &BTreeSet<u64>| ids.iter().map(name).collect::<Vec<_>>().join(", ");
    match step {
        Step::SetVoters(voters) => {
            let what =
                format!("the voters become {} (they were {})", names(&voters), names(&situation.voters));
            (ChangeMembers::ReplaceAllVoters(voters), what)
        }
        Step::AddLearner(id) => {
            let what = format!("{} becomes a learner", name(&id));
            let nodes = situation.processors.get(&id).map(|processor| {
                let addrs = core.link.rpc.addresses(&processor.name);
                (id, Member { name: processor.name.clone(), addrs })
            });
            (ChangeMembers::AddNodes(nodes.into_iter().collect()), what)
        }
        Step::RemoveLearner(id) => {
            (ChangeMembers::RemoveNodes(BTreeSet::from([id])), format!("{} is no member any more", name(&id)))
        }
    }
}

/// A leader that died in the middle of a change leaves both configurations in force; the next one
/// completes the change. One that is not committed yet is left to Raft.
fn half_done(metrics: &RaftMetrics) -> Option<Change> {
    let stored = &metrics.membership_config;
    let committed = metrics.last_applied.as_ref() >= stored.log_id().as_ref();
    let goal = stored.membership().get_joint_config().get(1..)?.last()?.clone();
    committed
        .then(|| (ChangeMembers::ReplaceAllVoters(goal), "a change left half done is completed".to_owned()))
}

/// Members whose addresses are not what the log says: a replica that starts alone would look for them
/// in the wrong place.
fn moved_members(core: &Core, metrics: &RaftMetrics) -> Option<Change> {
    let now = |member: &Member| {
        let addrs = core.link.rpc.addresses(&member.name);
        (!addrs.is_empty() && addrs != member.addrs).then(|| Member { name: member.name.clone(), addrs })
    };
    let moved: BTreeMap<u64, Member> =
        metrics.membership_config.nodes().filter_map(|(id, member)| Some((*id, now(member)?))).collect();
    let names: Vec<_> = moved.values().map(|member| member.name.to_string()).collect();
    (!moved.is_empty())
        .then(|| (ChangeMembers::SetNodes(moved), format!("new addresses of {}", names.join(", "))))
}

async fn carry_out(core: &Core, change: ChangeMembers<u64, Member>, what: &str) {
    tracing::info!(change = what, "changing the membership");
    // Former voters stay as learners; a later step removes those that are not admitted any more.
    let changed = tokio::time::timeout(CHANGE_PATIENCE, core.raft.change_membership(change, true)).await;
    match changed {
        Ok(Ok(_)) => {
            core.events.emit(Severity::Info, "membership-changed", core.me.as_str(), what.to_owned())
        }
        Ok(Err(error)) => {
            tracing::warn!(%error, change = what, "the membership could not be changed; trying again")
        }
        Err(_) => tracing::warn!(change = what, "a change of membership takes long; waiting for it"),
    }
}

/// What the leader sees now.
fn situation(core: &Core, metrics: &RaftMetrics, leading_since: Instant) -> Situation {
    let stored = &metrics.membership_config;
    let voters: BTreeSet<u64> = stored.voter_ids().collect();
    let learners = stored.membership().learner_ids().collect();
    let last = metrics.last_log_index.unwrap_or(0);
    let caught_up = |id: u64| {
        let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
        matched.is_some_and(|log_id| log_id.index + CAUGHT_UP_ENTRIES >= last)
    };
    let policy = core.policy.borrow();
    let processors = policy.nodes.iter().filter(|(_, admission)| {
        admission.role == Role::Processor && admission.state != AdmissionState::Revoked
    });
    let processor =
        |(name, admission): (&selvedge_fabric::id::NodeName, &selvedge_fabric::policy::Admission)| {
            let id = admission.key.node_id().0;
            let processor = Processor {
                name: name.clone(),
                cloud: admission.zone.cloud().clone(),
                active: admission.state == AdmissionState::Active,
                down: core.down_for(id, metrics, leading_since),
                caught_up: caught_up(id),
            };
            (id, processor)
        };
    Situation {
        processors: processors.map(processor).collect(),
        voters,
        learners,
        leader: core.id,
        changing: stored.membership().get_joint_config().len() > 1
            || metrics.last_applied.as_ref() < stored.log_id().as_ref(),
    }
}

impl Core {
    /// How long a node has been down. Failure detection decides, unless Raft itself hears the node; a
    /// member that detection does not know is judged by Raft alone.
    fn down_for(&self, id: u64, metrics: &RaftMetrics, leading_since: Instant) -> Option<Duration> {
        let silence = self.link.contacts.silence(id).unwrap_or(Duration::MAX).min(leading_since.elapsed());
        if id == self.id || (silence < SILENT && self.link.contacts.silence(id).is_some()) {
            return None;
        }
        let peers = self.liveness.borrow();
        match peers.get(&NodeId(id)).map(|peer| (peer.liveness, peer.since_ms)) {
            Some((Liveness::Alive | Liveness::Suspect, _)) => None,
            Some((Liveness::Down | Liveness::Left, since_ms)) => {
                Some(Duration::from_millis(crate::batch::now_ms().saturating_sub(since_ms)))
            }
            Some((Liveness::Unknown, _)) | None => {
                let member = metrics.membership_config.membership().get_node(&id).is_some();
                (member && silence >= SILENT).then_some(silence)
            }
        }
    }
}
