//! The proposer's side: finds the leader, follows it when it changes, and is honest about the outcome.
//!
//! Any processor takes a proposal. It is sent again only under the same [`CommandId`], which the policy
//! remembers, so a repeated one is applied once. Until the first copy may have reached a log, failing
//! means "refused: no quorum"; after that, it means "outcome unknown".
//!
//! [`CommandId`]: selvedge_fabric::key::CommandId

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use selvedge_fabric::{
    Revision,
    command::{Applied, Refusal},
    id::NodeName,
};
use tokio::time::Instant;

use crate::{
    batch,
    core::Core,
    network::CallError,
    rpc::RpcError,
    status::stopped_text,
    types::{Member, Outcome, Proposal},
    wire::{self, Answer, Ask, LeaderHint, Proposed, ReadIndex},
};

/// How long a leader is looked for before the answer is that there is none.
pub const NO_LEADER_PATIENCE: Duration = Duration::from_millis(2_000);
/// Pause between two looks.
const RETRY_PAUSE: Duration = Duration::from_millis(75);
/// Deadline for asking somebody who leads.
const SURVEY: Duration = Duration::from_millis(400);
/// Most nodes asked in one survey.
const SURVEY_PEERS: usize = 16;
/// Longest wait for a leader's answer to one copy of a proposal; then another is tried.
const ATTEMPT: Duration = Duration::from_secs(5);
/// Longest wait for a read index.
const READ_ATTEMPT: Duration = Duration::from_millis(900);

/// Why a proposal has no [`Applied`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// The policy refuses the command; its state is as before.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Nothing was written: no leader with a majority of the voters could be reached.
    #[error(
        "no quorum: {} {remedy}",
        if missing.is_empty() { "no voter could be reached.".to_owned() } else { format!("voters that do not answer: {}.", list(missing)) }
    )]
    NoQuorum {
        /// The voters that do not answer.
        missing: Vec<NodeName>,
        /// What to do.
        remedy: String,
    },
    /// It was sent, and nobody said in time what became of it.
    #[error(
        "outcome unknown: the command was sent, and no answer came in time. It may still be applied; look with \
         selvedge history, or send it again under the same id"
    )]
    OutcomeUnknown,
    /// Nothing was written: too large, or too many at once.
    #[error("{0}")]
    Rejected(String),
    /// This node and the leader were recovered apart.
    #[error("{0}")]
    Fenced(String),
}

fn list(names: &[NodeName]) -> String {
    names.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
}

impl ProposeError {
    pub(crate) fn no_quorum(missing: Vec<NodeName>) -> Self {
        let remedy = "Bring enough of them back, or restore their network; reads, DNS and endpoints go on \
                      meanwhile. If a majority is lost for good: selvedge quorum recover --recovery-key FILE"
            .to_owned();
        Self::NoQuorum { missing, remedy }
    }
}

/// What one try came to.
enum Attempt<T> {
    Done(T),
    /// Nothing was appended; perhaps somebody else leads.
    Elsewhere(LeaderHint),
    NoQuorum(Vec<NodeName>),
    /// Nothing was sent.
    Unreached,
    /// It was sent and may have been appended.
    Lost,
    Failed(ProposeError),
}

/// Proposes from this replica.
pub(crate) async fn propose(
    core: &Core,
    proposal: Proposal,
    timeout: Duration,
) -> Result<Applied, ProposeError> {
    let encoded = serde_json::to_vec(&proposal).map_err(|e| ProposeError::Rejected(e.to_string()))?;
    let deadline = Instant::now() + timeout;
    let mut search = Search::new(core, deadline);
    loop {
        let Some(leader) = search.next().await else { return Err(search.give_up()) };
        let within = ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
        let attempt = if leader == core.me {
            decode_proposed(batch::submit(core, proposal.clone(), within).await)
        } else {
            let ask = Ask::Propose { proposal: encoded.clone(), within_ms: wire::millis(within) };
            send_proposal(core, &leader, ask, within).await
        };
        match attempt {
            Attempt::Done(outcome) => return outcome.map_err(ProposeError::Refused),
            // An earlier copy may be in a log, whatever is said of this one.
            Attempt::Failed(_) if search.sent => return Err(ProposeError::OutcomeUnknown),
            Attempt::Failed(error) => return Err(error),
            other => search.note(&leader, other),
        }
    }
}

async fn send_proposal(core: &Core, leader: &NodeName, ask: Ask, within: Duration) -> Attempt<Outcome> {
    let answer = tokio::select! {
        answer = core.link.call(None, leader, ask, Some(within)) => answer,
        () = somebody_else_leads(core, leader) => return Attempt::Lost,
    };
    match answer {
        Ok(Answer::Propose(proposed)) => decode_proposed(proposed),
        Ok(_) => Attempt::Lost,
        Err(error) => failed_call(error),
    }
}

/// Returns when this replica hears another leader: then there is no point in waiting for the old one.
async fn somebody_else_leads(core: &Core, leader: &NodeName) {
    while core.leader_hint().leader.is_none_or(|now| now == *leader) {
        tokio::time::sleep(RETRY_PAUSE).await;
    }
}

fn failed_call<T>(error: CallError) -> Attempt<T> {
    match error {
        CallError::Rpc(RpcError::NotSent(_) | RpcError::Refused(_)) | CallError::Stopped { .. } => {
            Attempt::Unreached
        }
        CallError::Rpc(RpcError::NoAnswer(_)) | CallError::Wire(_) | CallError::Mismatch(_) => Attempt::Lost,
        CallError::Fenced { .. } => Attempt::Failed(ProposeError::Fenced(error.to_string())),
    }
}

fn decode_proposed(proposed: Proposed) -> Attempt<Outcome> {
    match proposed {
        Proposed::Decided(json) => match serde_json::from_slice(&json) {
            Ok(outcome) => Attempt::Done(outcome),
            Err(_) => Attempt::Lost,
        },
        Proposed::NotLeader(hint) => Attempt::Elsewhere(hint),
        Proposed::NoQuorum(missing) => Attempt::NoQuorum(missing),
        Proposed::Rejected(why) => Attempt::Failed(ProposeError::Rejected(why)),
        Proposed::Unknown => Attempt::Lost,
    }
}

/// Waits until this replica has applied everything that was acknowledged before the call.
pub(crate) async fn barrier(core: &Core, timeout: Duration) -> Result<Revision, ProposeError> {
    let deadline = Instant::now() + timeout;
    let mut search = Search::new(core, deadline);
    let index = loop {
        let Some(leader) = search.next().await else { return Err(search.give_up()) };
        let within = READ_ATTEMPT.min(deadline.saturating_duration_since(Instant::now()));
        let attempt = if leader == core.me {
            decode_read(read_index(core, within).await)
        } else {
            let ask = Ask::ReadIndex { within_ms: wire::millis(within) };
            match core.link.call(None, &leader, ask, Some(within)).await {
                Ok(Answer::ReadIndex(read)) => decode_read(read),
                // A read changes nothing, so a lost one is as good as one that was not sent.
                Ok(_) | Err(CallError::Rpc(_)) => Attempt::Unreached,
                Err(error) => failed_call(error),
            }
        };
        match attempt {
            Attempt::Done(index) => break index,
            Attempt::Failed(error) => return Err(error),
            other => search.note(&leader, other),
        }
    };
    let reached = core.raft.wait(Some(deadline.saturating_duration_since(Instant::now())));
    match reached.applied_index_at_least(Some(index), "linearizable read").await {
        Ok(_) => Ok(core.policy.borrow().revision),
        Err(_) => Err(ProposeError::no_quorum(core.missing_voters())),
    }
}

/// Tells the other voters where a processor is that was admitted through this one: whoever of them leads must
/// bring it the policy, without which it cannot tell anybody itself.
pub(crate) async fn introduce(core: &Core, name: &NodeName, addrs: &[SocketAddr]) {
    let others = core.voters().into_values().filter(|voter| voter.name != core.me && voter.name != *name);
    let ask = Ask::Introduce { name: name.clone(), addrs: addrs.to_vec() };
    let within = SURVEY.max(core.link.rtt() * 2);
    let tell = |voter: Member| {
        let ask = ask.clone();
        async move { core.link.call(None, &voter.name, ask, Some(within)).await }
    };
    let told: Vec<_> = others.map(tell).collect::<FuturesUnordered<_>>().collect().await;
    let deaf = told.iter().filter(|answer| answer.is_err()).count();
    if deaf > 0 {
        tracing::debug!(deaf, node = %name, "not every voter heard where the newcomer is");
    }
}

fn decode_read(read: ReadIndex) -> Attempt<u64> {
    match read {
        ReadIndex::At(index) => Attempt::Done(index),
        ReadIndex::NotLeader(hint) => Attempt::Elsewhere(hint),
        ReadIndex::NoQuorum(missing) => Attempt::NoQuorum(missing),
    }
}

/// The leader's side of a linearizable read (the Raft paper, section 8): asks a quorum whether it
/// still leads, and names the index that was committed then.
pub(crate) async fn read_index(core: &Core, within: Duration) -> ReadIndex {
    if !core.leads() {
        return ReadIndex::NotLeader(core.leader_hint());
    }
    match tokio::time::timeout(within, core.raft.get_read_log_id()).await {
        Ok(Ok((Some(read), _))) => ReadIndex::At(read.index),
        Ok(Ok((None, _))) => ReadIndex::At(0),
        Ok(Err(_)) if !core.leads() => ReadIndex::NotLeader(core.leader_hint()),
        Ok(Err(_)) | Err(_) => ReadIndex::NoQuorum(core.missing_voters()),
    }
}

/// Looks for the leader, again and again, within bounds.
struct Search<'a> {
    core: &'a Core,
    deadline: Instant,
    /// When nothing sent yet will be called no quorum.
    patience: Instant,
    first: bool,
    /// Whether a copy may be in a log.
    sent: bool,
    missing: Option<Vec<NodeName>>,
    avoid: Option<NodeName>,
    hint: Option<NodeName>,
}

impl<'a> Search<'a> {
    fn new(core: &'a Core, deadline: Instant) -> Self {
        let patience = deadline.min(Instant::now() + NO_LEADER_PATIENCE);
        let (first, sent, missing, avoid, hint) = (true, false, None, None, None);
        Self { core, deadline, patience, first, sent, missing, avoid, hint }
    }

    fn out_of_time(&self) -> bool {
        Instant::now() >= if self.sent { self.deadline } else { self.patience }
    }

    /// The next node to try; none when it is time to give up.
    async fn next(&mut self) -> Option<NodeName> {
        loop {
            if !self.first {
                if self.out_of_time() {
                    return None;
                }
                tokio::time::sleep(RETRY_PAUSE).await;
            }
            let known = self.hint.take().or_else(|| self.known_leader());
            self.first = false;
            let leader = match known {
                Some(leader) => Some(leader),
                None => self.survey().await,
            };
            // The survey took time, and a leader without a quorum would take more.
            if self.out_of_time() {
                return None;
            }
            match leader {
                Some(leader) if Some(&leader) != self.avoid.as_ref() => return Some(leader),
                Some(_) => self.avoid = None,
                None => {}
            }
        }
    }

    /// The leader that spoke within the last heartbeats: no need to ask.
    fn known_leader(&self) -> Option<NodeName> {
        let recent = self.core.leader_silence() <= self.core.link.timers().quorum_fresh();
        self.core.leader_hint().leader.filter(|_| recent || self.core.leads())
    }

    /// Asks all voters (or, before this node is a member, whomever it knows) who leads; believes the
    /// newest term.
    async fn survey(&mut self) -> Option<NodeName> {
        let voters: Vec<NodeName> = self.core.voters().into_values().map(|member| member.name).collect();
        let known = if voters.is_empty() { self.core.link.rpc.acquaintances() } else { voters };
        let known: BTreeSet<NodeName> = known.into_iter().collect();
        let others = known.iter().filter(|name| **name != self.core.me).take(SURVEY_PEERS);
        let link = &self.core.link;
        let within = SURVEY.max(link.rtt() * 2);
        let asks = others.map(|name| async move {
            (name.clone(), link.call(None, name, Ask::Leader, Some(within)).await)
        });
        let answers: Vec<_> = asks.collect::<FuturesUnordered<_>>().collect().await;
        let mut hints = vec![self.core.leader_hint()];
        let mut missing = Vec::new();
        for (name, answer) in answers {
            match answer {
                Ok(Answer::Leader(hint)) => hints.push(hint),
                Ok(_) | Err(_) => missing.push(name),
            }
        }
        // A leader that does not answer itself is only hearsay.
        hints.retain(|hint| hint.leader.as_ref().is_some_and(|name| !missing.contains(name)));
        missing.sort_unstable();
        self.missing = Some(missing);
        hints.into_iter().max_by_key(|hint| hint.term).and_then(|hint| hint.leader)
    }

    fn note<T>(&mut self, tried: &NodeName, attempt: Attempt<T>) {
        match attempt {
            Attempt::Elsewhere(hint) => self.hint = hint.leader.filter(|name| name != tried),
            Attempt::NoQuorum(missing) => self.missing = Some(missing),
            Attempt::Unreached => self.avoid = Some(tried.clone()),
            Attempt::Lost => self.sent = true,
            Attempt::Done(_) | Attempt::Failed(_) => {}
        }
    }

    fn give_up(&mut self) -> ProposeError {
        if self.sent {
            return ProposeError::OutcomeUnknown;
        }
        if let Some(why) = self.core.stopped() {
            return ProposeError::Rejected(stopped_text(&why));
        }
        let missing = self.missing.take().filter(|names| !names.is_empty());
        ProposeError::no_quorum(missing.unwrap_or_else(|| self.core.missing_voters()))
    }
}
