//! What every task of a replica shares, and what it knows about its own standing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use openraft::ServerState;
use selvedge_fabric::{
    UnixMs,
    event::EventSink,
    id::{NodeName, ZoneName},
    key::NodeId,
    policy::PolicyState,
    view::Liveness,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};

use tokio_util::sync::CancellationToken;

use crate::{
    batch::Submission,
    chunks::Receiving,
    machine::Machine,
    network::Link,
    rules::Leadership,
    statements::{Checkpoints, Statements},
    store::Store,
    types::{Member, PolicyRaft, RaftMetrics},
    wire::LeaderHint,
};

/// What failure detection says of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: NodeName,
    /// Where it is.
    pub zone: ZoneName,
    /// Whether it lives.
    pub liveness: Liveness,
    /// Since when that is so, by this node's clock.
    pub since_ms: UnixMs,
}

/// What failure detection says of all nodes.
pub type Peers = BTreeMap<NodeId, Peer>;

pub(crate) struct Core {
    pub(crate) me: NodeName,
    pub(crate) id: u64,
    pub(crate) raft: PolicyRaft,
    pub(crate) machine: Machine,
    pub(crate) store: Store,
    pub(crate) link: Arc<Link>,
    pub(crate) policy: watch::Receiver<Arc<PolicyState>>,
    pub(crate) liveness: watch::Receiver<Arc<Peers>>,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) submissions: mpsc::Sender<Submission>,
    pub(crate) statements: Statements,
    pub(crate) checkpoints: Checkpoints,
    /// The snapshot that a leader is sending.
    pub(crate) receiving: Mutex<Receiving>,
    /// How many changes recoveries have left behind here.
    pub(crate) left_behind: usize,
    pub(crate) started: Instant,
    /// Cancelled when the replica is to end.
    pub(crate) stop: CancellationToken,
}

impl Core {
    pub(crate) fn metrics(&self) -> RaftMetrics {
        self.raft.metrics().borrow().clone()
    }

    /// Whether this replica believes that it leads; its quorum may be gone.
    pub(crate) fn leads(&self) -> bool {
        !self.stop.is_cancelled() && self.raft.metrics().borrow().state == ServerState::Leader
    }

    /// How long ago a quorum last answered this leader.
    pub(crate) fn quorum_age(&self) -> Option<Duration> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let leads = !self.stop.is_cancelled() && metrics.state == ServerState::Leader;
        metrics.millis_since_quorum_ack.filter(|_| leads).map(Duration::from_millis)
    }

    /// Whether this replica leads and its quorum answered lately.
    pub(crate) fn quorum_is_fresh(&self) -> bool {
        self.quorum_age().is_some_and(|age| age <= self.link.timers().quorum_fresh())
    }

    /// How long no leader was heard; a leader counts its quorum's answers.
    pub(crate) fn leader_silence(&self) -> Duration {
        let since_start = self.started.elapsed();
        let heard = if self.leads() {
            self.quorum_age()
        } else {
            self.link.contacts.leader().map(|word| word.at.elapsed())
        };
        heard.map_or(since_start, |age| age.min(since_start))
    }

    /// What is known of the leader.
    pub(crate) fn leadership(&self) -> Leadership {
        let contacts = &self.link.contacts;
        let last = contacts.leader().map(|word| word.id).filter(|id| *id != self.id);
        let is_gone = last.is_some_and(|id| self.is_gone(id));
        Leadership::new(self.leader_silence(), contacts.since_vote(), is_gone)
    }

    /// Whether failure detection holds a member for dead, or it said that it leaves.
    pub(crate) fn is_gone(&self, id: u64) -> bool {
        let liveness = self.liveness.borrow().get(&NodeId(id)).map(|peer| peer.liveness);
        matches!(liveness, Some(Liveness::Down | Liveness::Left))
    }

    /// How long no quorum was heard of. A leader that is cut off from its quorum goes on to speak, so its
    /// followers are not silent; they hear from it that it has none.
    pub(crate) fn quorum_silence(&self) -> Duration {
        let since_start = self.started.elapsed();
        let heard =
            if self.leads() { self.quorum_age() } else { self.link.contacts.quorum().map(|at| at.elapsed()) };
        heard.map_or(since_start, |age| age.min(since_start))
    }

    /// The leader, as far as this replica can vouch for it.
    pub(crate) fn leader_hint(&self) -> LeaderHint {
        let metrics = self.metrics();
        let term = metrics.current_term;
        if self.leads() {
            return LeaderHint { leader: Some(self.me.clone()), term };
        }
        let recent = |at: Instant| at.elapsed() <= self.link.timers().election_max();
        let word = self.link.contacts.leader().filter(|word| recent(word.at));
        let leader = word.and_then(|word| member_name(&metrics, word.id));
        LeaderHint { leader, term }
    }

    /// The voters, this one included if it is one.
    pub(crate) fn voters(&self) -> BTreeMap<u64, Member> {
        let metrics = self.metrics();
        let membership = metrics.membership_config.membership();
        let ids: BTreeSet<u64> = membership.voter_ids().collect();
        membership.nodes().filter(|(id, _)| ids.contains(id)).map(|(id, m)| (*id, m.clone())).collect()
    }

    /// The voters that did not answer lately.
    pub(crate) fn missing_voters(&self) -> Vec<NodeName> {
        let patience = self.link.timers().election_max();
        let missing = |id: u64| id != self.id && self.link.contacts.silence(id).is_none_or(|s| s > patience);
        self.voters().into_iter().filter(|(id, _)| missing(*id)).map(|(_, m)| m.name).collect()
    }

    /// Why this replica's Raft does not run any more, if so.
    pub(crate) fn stopped(&self) -> Option<String> {
        if self.stop.is_cancelled() {
            return Some("the node is shutting down".to_owned());
        }
        self.raft.metrics().borrow().running_state.as_ref().err().map(ToString::to_string)
    }
}

/// The name under which the membership knows `id`.
pub(crate) fn member_name(metrics: &RaftMetrics, id: u64) -> Option<NodeName> {
    metrics.membership_config.membership().get_node(&id).map(|member| member.name.clone())
}
