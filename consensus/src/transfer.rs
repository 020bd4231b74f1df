//! Leadership goes to a voter of somebody's choice, for instance before the leader's host is stopped.
//!
//! openraft 0.9 has no transfer. The leader lets the chosen voter catch up, takes no writes meanwhile, and falls
//! silent until the lease by which openraft keeps voters to it has run out (two heartbeats). Then it asks the
//! chosen one to stand for election, which needs no pre-vote because the leader itself asked. Writes wait for about
//! as long.

use std::{sync::Arc, time::Duration};

use selvedge_fabric::id::NodeName;
use tokio::time::Instant;

use crate::{
    core::Core,
    network::CallError,
    replica::Replica,
    wire::{Answer, Ask},
};

/// Time for the chosen voter to get the last entries.
const CATCH_UP: Duration = Duration::from_secs(3);
/// Entries that it may lack at the start; with more, writes would wait for long.
const MAX_BEHIND: u64 = 1_024;
/// How often to look.
const POLL: Duration = Duration::from_millis(20);
/// What the leader's silence must last beyond the lease: the voters' clocks started a little later.
const MARGIN: Duration = Duration::from_millis(100);
/// Time for the chosen voter to lead, once it was asked.
const TAKE_OVER: Duration = Duration::from_secs(3);
/// Time for the leader to do all of this, when another node was asked.
const WHOLE: Duration = Duration::from_secs(12);
/// Time for all of this when the leader stops: its host may be waiting.
const RETIRE: Duration = Duration::from_secs(3);

/// Why leadership was not transferred. Nothing is lost by it: somebody leads, or will.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransferError {
    /// Only a voter can lead.
    #[error("{0} is no voter: selvedge quorum status lists them")]
    NotAVoter(NodeName),
    /// It does not answer.
    #[error("{0} is not heard: it cannot lead")]
    Silent(NodeName),
    /// It would hold up writes.
    #[error("{node} is not caught up: it lacks {entries} entries. Wait until it has them")]
    Behind {
        /// The chosen voter.
        node: NodeName,
        /// How many entries it lacks.
        entries: u64,
    },
    /// There is nobody who could hand over.
    #[error("there is no leader that could hand over")]
    NoLeader,
    /// It was tried.
    #[error("{node} was asked to lead, and {leads} leads instead: try again")]
    NotTaken {
        /// The chosen voter.
        node: NodeName,
        /// Who leads.
        leads: String,
    },
    /// Another node said so.
    #[error("{0}")]
    Told(String),
}

impl Replica {
    /// Before this replica stops: if it leads, another voter does from then on, so that nobody waits for an election.
    /// Takes three seconds at most.
    pub async fn retire(&self) {
        let core = self.core();
        if !core.leads() {
            return;
        }
        let heard =
            |id: &u64| core.link.contacts.silence(*id).filter(|s| *s <= core.link.timers().vote_lease());
        let others = core.voters().into_iter().filter(|(id, _)| *id != core.id && heard(id).is_some());
        let Some((_, next)) = others.min_by_key(|(id, _)| lacks(&core, *id)) else { return };
        match tokio::time::timeout(RETIRE, hand_over(&core, &next.name)).await {
            Ok(Ok(())) => tracing::info!(leader = %next.name, "leadership was handed over"),
            Ok(Err(error)) => tracing::info!(%error, "leadership was not handed over"),
            Err(_) => tracing::info!(to = %next.name, "leadership was not taken over in time"),
        }
    }

    /// Has `to` lead. Returns when it does.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn transfer(&self, to: &NodeName) -> Result<(), TransferError> {
        let core = self.core();
        if core.leads() {
            return hand_over(&core, to).await;
        }
        let leader = core.leader_hint().leader.ok_or(TransferError::NoLeader)?;
        if leader == *to {
            return Ok(());
        }
        let answer = core.link.call(None, &leader, Ask::Transfer { to: to.clone() }, Some(WHOLE)).await;
        match answer {
            Ok(Answer::Transferred { refusal: None }) => Ok(()),
            Ok(Answer::Transferred { refusal: Some(why) }) => Err(TransferError::Told(why)),
            Ok(_) => Err(TransferError::Told(CallError::Mismatch(leader).to_string())),
            Err(error) => Err(TransferError::Told(error.to_string())),
        }
    }
}

/// The leader's part.
pub(crate) async fn hand_over(core: &Arc<Core>, to: &NodeName) -> Result<(), TransferError> {
    if *to == core.me {
        return Ok(());
    }
    let voters = core.voters();
    let id = voters.iter().find(|(_, member)| member.name == *to).map(|(id, _)| *id);
    let id = id.ok_or_else(|| TransferError::NotAVoter(to.clone()))?;
    if core.link.contacts.silence(id).is_none_or(|s| s > core.link.timers().election_max()) {
        return Err(TransferError::Silent(to.clone()));
    }
    let behind = lacks(core, id);
    if behind > MAX_BEHIND {
        return Err(TransferError::Behind { node: to.clone(), entries: behind });
    }
    let _no_writes = core.link.pause();
    let deadline = Instant::now() + CATCH_UP;
    while lacks(core, id) > 0 {
        if Instant::now() >= deadline {
            return Err(TransferError::Behind { node: to.clone(), entries: lacks(core, id) });
        }
        tokio::time::sleep(POLL).await;
    }
    tokio::time::sleep(core.link.timers.vote_lease() + core.link.rtt() + MARGIN).await;
    if let Err(error) = core.link.call(Some(id), to, Ask::Campaign, None).await {
        tracing::info!(%to, %error, "does not answer to the offer of leadership");
    }
    let deadline = Instant::now() + TAKE_OVER;
    loop {
        let leads = core.leader_hint().leader.filter(|_| !core.leads());
        match leads {
            Some(leader) if leader == *to => return Ok(()),
            other if Instant::now() >= deadline => {
                let leads = other.map_or_else(|| core.me.to_string(), |name| name.to_string());
                return Err(TransferError::NotTaken { node: to.clone(), leads });
            }
            _ => tokio::time::sleep(POLL).await,
        }
    }
}

/// Entries that a member has not been seen to have.
fn lacks(core: &Core, id: u64) -> u64 {
    let metrics = core.metrics();
    let last = metrics.last_log_index.unwrap_or(0);
    let matched = metrics.replication.as_ref().and_then(|all| all.get(&id).copied().flatten());
    last.saturating_sub(matched.map_or(0, |log_id| log_id.index))
}

/// The chosen voter's part: stands for election, when it has everything that it knows to be there.
pub(crate) async fn campaign(core: &Core) -> Answer {
    match core.raft.trigger().elect().await {
        Ok(()) => Answer::Transferred { refusal: None },
        Err(error) => Answer::Transferred { refusal: Some(error.to_string()) },
    }
}
