//! What a replica says of the quorum: leader, voters, and what their placement survives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use selvedge_fabric::{
    Epoch, UnixMs,
    event::Severity,
    id::{NodeName, ZoneName},
    key::NodeId,
    statement::SignedRecovery,
    view::Liveness,
};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    core::{Core, member_name},
    survival::{self, Seat},
    types::Member,
};

/// How often the status is looked at when nothing announces a change.
const INTERVAL: Duration = Duration::from_millis(250);

/// Pause after each look, however often the metrics change: a busy leader changes them with every entry.
const MIN_INTERVAL: Duration = Duration::from_millis(20);

/// A majority is lost when there was no quorum for so long: an election, or a start, takes less.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// A majority of the voters that is not heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LostMajority {
    /// Since when there is no quorum here, in milliseconds since 1970, by this node's clock.
    pub since_ms: UnixMs,
    /// The voters that are not heard of.
    pub missing: Vec<Silent>,
    /// How many voters there are.
    pub voters: usize,
}

/// A voter that is not heard of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Silent {
    /// Its name.
    pub name: NodeName,
    /// When this replica last heard it, in milliseconds since 1970; none when it never did since its start.
    pub heard_ms: Option<UnixMs>,
}

/// A snapshot of the quorum as one replica sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct QuorumStatus {
    /// The leader, if one was heard lately.
    pub leader: Option<NodeName>,
    /// Its term.
    pub term: u64,
    /// The voters, by name.
    pub voters: Vec<Replicant>,
    /// The other replicas, by name.
    pub learners: Vec<Replicant>,
    /// Index of the newest log entry here.
    pub last_index: u64,
    /// Index of the newest entry applied here.
    pub applied_index: u64,
    /// What the present placement survives, for instance `any one of aws, azr, gcp`.
    pub survives: Vec<String>,
    /// What is wrong with the placement or with this replica.
    pub warning: Option<String>,
    /// Why this replica writes nothing more until its node is restarted, if that is so: a full or broken
    /// disk, above all.
    pub stopped: Option<String>,
    /// The fence epoch.
    pub fence_epoch: Epoch,
    /// Whether writes can be accepted now.
    pub quorum: bool,
    /// How many milliseconds ago the leader was last heard here; for a leader, its quorum.
    pub staleness_ms: u64,
    /// The policy shown is that of an epoch before: none of the present one has arrived yet.
    pub outdated: bool,
    /// What began the present epoch, if a recovery did.
    pub recovery: Option<Arc<SignedRecovery>>,
    /// How many changes recoveries have left behind on this node.
    pub left_behind: usize,
    /// There is no quorum, because so many voters are not heard of that there can be none.
    pub lost: Option<LostMajority>,
}

/// A member of the quorum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Replicant {
    /// Its name.
    pub name: NodeName,
    /// Its zone; none while the policy does not know the node.
    pub zone: Option<ZoneName>,
    /// Whether it lives, as far as this node knows.
    pub live: bool,
}

/// The status now.
pub(crate) fn of(core: &Core) -> QuorumStatus {
    let metrics = core.metrics();
    let voter_ids: BTreeSet<u64> = metrics.membership_config.voter_ids().collect();
    let members: BTreeMap<u64, Member> =
        metrics.membership_config.nodes().map(|(id, member)| (*id, member.clone())).collect();
    let replicant = |(id, member): (&u64, &Member)| Replicant {
        name: member.name.clone(),
        zone: core.policy.borrow().nodes.get(&member.name).map(|admission| admission.zone.clone()),
        live: core.lives(*id),
    };
    let by_name = |mut all: Vec<Replicant>| {
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    };
    let (voters, learners): (Vec<_>, Vec<_>) = members.iter().partition(|(id, _)| voter_ids.contains(id));
    let voters = by_name(voters.into_iter().map(replicant).collect());
    let learners = by_name(learners.into_iter().map(replicant).collect());
    let seats: Vec<Seat> = voters
        .iter()
        .map(|v| Seat {
            name: v.name.clone(),
            cloud: v.zone.as_ref().map(|z| z.cloud().clone()),
            live: v.live,
        })
        .collect();
    let silence = core.leader_silence();
    let word = core.link.contacts.leader();
    let heard = silence <= core.link.timers().election_max();
    let leader = match core.leads() {
        true => heard.then(|| core.me.clone()),
        false => word.filter(|_| heard).and_then(|word| member_name(&metrics, word.id)),
    };
    let quorum = if core.leads() { core.quorum_is_fresh() } else { heard && word.is_some_and(|w| w.quorum) };
    let stopped = core.stopped().map(|why| stopped_text(&why));
    QuorumStatus {
        leader,
        term: metrics.current_term,
        survives: survival::survives(&seats),
        warning: stopped.clone().or_else(|| survival::warning(&seats)),
        stopped,
        voters,
        learners,
        last_index: metrics.last_log_index.unwrap_or(0),
        applied_index: metrics.last_applied.map_or(0, |id| id.index),
        fence_epoch: core.link.epoch(),
        quorum,
        staleness_ms: crate::wire::millis(silence),
        outdated: core.link.epoch() > 0 && core.machine.now().last.is_none(),
        recovery: core.link.recovery.clone(),
        left_behind: core.left_behind,
        lost: if quorum { None } else { lost_majority(core) },
    }
}

/// The voters that are not heard of, when there are too many of them for a quorum. One that failure detection
/// takes for alive, and Raft does not hear, counts as lost only when Raft should have heard it: a learner
/// hears nobody but the leader.
fn lost_majority(core: &Core) -> Option<LostMajority> {
    let silence = core.quorum_silence();
    if silence < LOST_AFTER {
        return None;
    }
    let voters = core.voters();
    let votes = voters.contains_key(&core.id);
    let patience = core.link.timers().election_max();
    let now_ms = crate::batch::now_ms();
    let missing = voters.iter().filter(|(id, _)| **id != core.id).filter_map(|(id, member)| {
        let silence = core.link.contacts.silence(*id);
        let silent = silence.is_none_or(|s| s > patience) && (votes || !core.lives(*id));
        let heard_ms = silence.map(|s| now_ms.saturating_sub(crate::wire::millis(s)));
        silent.then(|| Silent { name: member.name.clone(), heard_ms })
    });
    let missing: Vec<_> = missing.collect();
    let since_ms = now_ms.saturating_sub(crate::wire::millis(silence));
    let lost = missing.len() * 2 >= voters.len() && !voters.is_empty();
    lost.then_some(LostMajority { since_ms, missing, voters: voters.len() })
}

/// Times that are computed anew each look differ by a few milliseconds: what was said first stays, as long as
/// the same voters are missing.
fn steady(before: &QuorumStatus, mut now: QuorumStatus) -> QuorumStatus {
    let names = |lost: &LostMajority| lost.missing.iter().map(|m| m.name.clone()).collect::<Vec<_>>();
    if let (Some(was), Some(is)) = (&before.lost, &mut now.lost)
        && before.fence_epoch == now.fence_epoch
    {
        if names(was) == names(is) {
            *is = was.clone();
        }
        is.since_ms = was.since_ms;
    }
    now
}

impl Core {
    /// Whether a member lives: what failure detection says, or else whether it was heard lately.
    pub(crate) fn lives(&self, id: u64) -> bool {
        if id == self.id {
            return true;
        }
        let recent = self.link.contacts.silence(id).is_some_and(|s| s <= self.link.timers().election_max());
        match self.liveness.borrow().get(&NodeId(id)).map(|peer| peer.liveness) {
            Some(Liveness::Alive) => true,
            Some(Liveness::Down | Liveness::Left) => false,
            Some(Liveness::Suspect | Liveness::Unknown) | None => recent,
        }
    }
}

/// Publishes the status and tells of changes of the leader, until the replica ends.
pub(crate) async fn run(core: Arc<Core>, publish: Arc<watch::Sender<Arc<QuorumStatus>>>) {
    let mut metrics = core.raft.metrics();
    let (mut was_stopped, mut told_stopped, mut told_lost) = (false, false, false);
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(INTERVAL) => {}
            changed = metrics.changed(), if !was_stopped => was_stopped = changed.is_err(),
        }
        let before = Arc::clone(&publish.borrow());
        let now = steady(&before, of(&core));
        tell(&core, &before, &now, &mut told_lost);
        if let Some(why) = core.stopped().filter(|_| !told_stopped && !core.stop.is_cancelled()) {
            told_stopped = true;
            core.events.emit(Severity::Warning, "replica-stopped", core.me.as_str(), stopped_text(&why));
        }
        // Staleness grows all the time; by itself it is no news.
        let news = QuorumStatus { staleness_ms: before.staleness_ms, ..now.clone() } != *before;
        publish.send_if_modified(|status| {
            *status = Arc::new(now);
            news
        });
        tokio::time::sleep(MIN_INTERVAL).await;
    }
}

fn tell(core: &Core, before: &QuorumStatus, now: &QuorumStatus, told_lost: &mut bool) {
    if let Some(leader) = &now.leader
        && (before.leader.as_ref() != Some(leader) || before.term != now.term)
    {
        let message = format!("{leader} leads since term {}", now.term);
        core.events.emit(Severity::Info, "leader-changed", leader.as_str(), message);
    }
    if before.quorum && !now.quorum {
        let missing: Vec<_> = core.missing_voters().iter().map(ToString::to_string).collect();
        core.events.emit(Severity::Warning, "quorum-lost", core.me.as_str(), lost_text(&missing));
        *told_lost = true;
    }
    // There is none at the start either; to have one then is no news.
    if now.quorum && std::mem::take(told_lost) {
        let message = "a quorum answers again: intent can be changed".to_owned();
        core.events.emit(Severity::Info, "quorum-regained", core.me.as_str(), message);
    }
}

/// All voters may be taken for alive, when they are just slow.
fn lost_text(missing: &[String]) -> String {
    let whom = match missing {
        [] => "enough voters answer in time again".to_owned(),
        missing => format!("enough voters answer again ({} do not)", missing.join(", ")),
    };
    format!("no quorum: changes of intent are refused until {whom}; traffic, DNS and endpoints go on")
}

pub(crate) fn stopped_text(why: &str) -> String {
    format!(
        "this replica has stopped and acknowledges nothing more ({why}): check its disk, then restart the node"
    )
}
