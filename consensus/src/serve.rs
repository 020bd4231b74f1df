//! Answers to the requests of other replicas.

use std::{
    sync::{Arc, PoisonError},
    time::Duration,
};

use openraft::{
    SnapshotSegmentId, Vote,
    error::{Fatal, InstallSnapshotError, RaftError, SnapshotMismatch},
    raft::{AppendEntriesResponse, InstallSnapshotRequest},
};
use selvedge_fabric::{event::Severity, id::NodeName};
use tokio::time::Instant;

use crate::{
    batch,
    chunks::{self, BadChunk, Chunk},
    contacts::LeaderWord,
    core::Core,
    propose,
    recovery::lead,
    replica::Shared,
    rules, transfer,
    types::TypeConfig,
    wire::{self, Answer, Ask, Proposed, Request, WireError},
};

/// Longest time a forwarded request may ask for.
const MAX_WITHIN: Duration = Duration::from_secs(30);
/// Most addresses of a newcomer that are taken over.
const MAX_INTRODUCED: usize = 8;

/// Answers one encoded request of the node `from`, whose id its certificate proved.
pub(crate) async fn serve(
    shared: &Arc<Shared>,
    from: u64,
    name: &NodeName,
    body: &[u8],
) -> Result<Vec<u8>, WireError> {
    let request: Request = wire::decode(body)?;
    let core = shared.generation().core;
    if request.ask.crosses_epochs() {
        return wire::encode(&lead::answer(shared, &core, request.ask).await);
    }
    wire::encode(&answer(&core, from, name, request).await)
}

async fn answer(core: &Arc<Core>, from: u64, name: &NodeName, request: Request) -> Answer {
    let epoch = core.link.epoch();
    if rules::is_fenced(epoch, request.epoch) {
        let message = format!(
            "{name} is at fence epoch {}, this node at {epoch}: the one with the lower epoch was left out of a \
             recovery and must not take part",
            request.epoch
        );
        core.events.emit(Severity::Security, "raft-fenced", name.as_str(), message);
        let signed = core.link.recovery.as_deref().filter(|_| request.epoch < epoch);
        return Answer::Fenced { epoch, signed: signed.cloned().map(Box::new) };
    }
    if let Some(why) = core.stopped() {
        return Answer::Stopped { why };
    }
    core.link.contacts.heard(from, None, core.link.timers().election);
    if let Some(leader) = spoken_as_leader(&request.ask)
        && leader.leader_id().voted_for() != Some(from)
    {
        let message = format!("{name} sent entries in the name of another leader");
        core.events.emit(Severity::Security, "raft-impostor", name.as_str(), message);
        return Answer::Stopped { why: "you are not the leader you claim to be".to_owned() };
    }
    let word = LeaderWord {
        id: from,
        at: Instant::now(),
        quorum: request.quorum,
        rtt: Duration::from_micros(request.rtt_us.into()),
    };
    handle(core, word, request.ask).await.unwrap_or_else(|fatal| Answer::Stopped { why: fatal.to_string() })
}

/// The vote under which a leader speaks, for requests that only a leader sends.
fn spoken_as_leader(ask: &Ask) -> Option<Vote<u64>> {
    match ask {
        Ask::Append(append) => Some(append.vote),
        Ask::Snapshot(chunk) => Some(chunk.vote),
        Ask::Vote(request) => Some(request.vote),
        Ask::PreVote { .. }
        | Ask::Leader
        | Ask::Propose { .. }
        | Ask::ReadIndex { .. }
        | Ask::Statements { .. }
        | Ask::Introduce { .. }
        | Ask::Position
        | Ask::Base { .. }
        | Ask::Recover { .. }
        | Ask::Lost
        | Ask::Transfer { .. }
        | Ask::Campaign => None,
    }
}

async fn handle(core: &Arc<Core>, word: LeaderWord, ask: Ask) -> Result<Answer, Fatal<u64>> {
    match ask {
        Ask::Append(append) => {
            note_leader(core, word, &append.vote);
            let response = core.raft.append_entries(append).await.map_err(fatal)?;
            if !matches!(response, AppendEntriesResponse::HigherVote(_)) {
                note(core, LeaderWord { at: Instant::now(), ..word });
            }
            Ok(Answer::Append(response))
        }
        Ask::Snapshot(chunk) => {
            note_leader(core, word, &chunk.vote);
            if let Err(refusal) = look_at(core, word.id, &chunk).await {
                return Ok(refusal);
            }
            match core.raft.install_snapshot(chunk).await {
                Ok(response) => Ok(Answer::Snapshot(Ok(response))),
                Err(RaftError::APIError(error)) => Ok(Answer::Snapshot(Err(error))),
                Err(RaftError::Fatal(error)) => Err(error),
            }
        }
        Ask::Vote(request) => {
            let response = core.raft.vote(request).await.map_err(fatal)?;
            if response.vote_granted {
                core.link.contacts.voted();
            }
            Ok(Answer::Vote(response))
        }
        Ask::PreVote { last } => Ok(Answer::PreVote { granted: would_vote(core, last) }),
        Ask::Leader => Ok(Answer::Leader(core.leader_hint())),
        Ask::Propose { proposal, within_ms } => {
            Ok(Answer::Propose(propose(core, &proposal, within_ms).await))
        }
        Ask::ReadIndex { within_ms } => {
            let within = Duration::from_millis(within_ms).min(MAX_WITHIN);
            Ok(Answer::ReadIndex(propose::read_index(core, within).await))
        }
        Ask::Statements { wanted, links_after } => {
            let (statements, links) = core.statements.answer(&wanted, links_after).await;
            Ok(Answer::Statements { statements, links })
        }
        Ask::Introduce { name, addrs } => {
            // Whoever leads has applied the admission; and nobody fills the book with names of his own.
            if core.policy.borrow().nodes.contains_key(&name) {
                core.link.rpc.suggest(&name, &addrs[..addrs.len().min(MAX_INTRODUCED)]);
            }
            Ok(Answer::Introduced)
        }
        Ask::Transfer { to } => {
            let refusal = transfer::hand_over(core, &to).await.err().map(|why| why.to_string());
            Ok(Answer::Transferred { refusal })
        }
        // Whoever is no leader asks in vain: an election out of turn would only disturb.
        Ask::Campaign if !is_led_by(core, word.id) => {
            Ok(Answer::Transferred { refusal: Some("you do not lead".to_owned()) })
        }
        Ask::Campaign => Ok(transfer::campaign(core).await),
        Ask::Position | Ask::Base { .. } | Ask::Recover { .. } | Ask::Lost => {
            Ok(Answer::Stopped { why: "this is asked across epochs".to_owned() })
        }
    }
}

/// Whether this replica follows `id` in the present term.
fn is_led_by(core: &Core, id: u64) -> bool {
    core.raft.metrics().borrow().current_leader == Some(id)
}

/// Looks at a chunk of a snapshot before openraft does, unless its sender does not lead any more.
async fn look_at(core: &Core, from: u64, chunk: &InstallSnapshotRequest<TypeConfig>) -> Result<(), Answer> {
    if chunk.vote < core.raft.metrics().borrow().vote {
        return Ok(());
    }
    let whole = {
        let mut receiving = core.receiving.lock().unwrap_or_else(PoisonError::into_inner);
        let (snapshot, offset, data) = (chunk.meta.snapshot_id.as_str(), chunk.offset, &chunk.data[..]);
        let taken = receiving.take(Chunk { from, snapshot, offset, data });
        taken.map(|()| chunk.done.then(|| receiving.finish()))
    };
    let why = match whole {
        Ok(None) => return Ok(()),
        Ok(Some(bytes)) => match chunks::check(bytes).await {
            Ok(()) => return Ok(()),
            Err(why) => why,
        },
        Err(BadChunk::Misplaced { expected, found }) => {
            // As after a restart of this node: the sender begins again.
            let at = |offset| SnapshotSegmentId { id: chunk.meta.snapshot_id.clone(), offset };
            let mismatch = SnapshotMismatch { expect: at(expected), got: at(found) };
            return Err(Answer::Snapshot(Err(InstallSnapshotError::SnapshotMismatch(mismatch))));
        }
        Err(BadChunk::TooLarge) => BadChunk::TooLarge.to_string(),
    };
    let subject = from.to_string();
    let message = format!("a snapshot from the node with id {from} was not taken: {why}");
    core.events.emit(Severity::Security, "snapshot-refused", &subject, message);
    Err(Answer::Stopped { why: format!("the snapshot was not taken: {why}") })
}

fn fatal(error: RaftError<u64>) -> Fatal<u64> {
    match error {
        RaftError::Fatal(fatal) => fatal,
        RaftError::APIError(never) => match never {},
    }
}

/// Notes a leader before its entries are on disk: a slow disk must not look like a dead leader.
fn note_leader(core: &Core, word: LeaderWord, vote: &Vote<u64>) {
    if *vote >= core.raft.metrics().borrow().vote {
        note(core, word);
    }
}

fn note(core: &Core, word: LeaderWord) {
    core.link.contacts.led_by(word);
    core.link.set_rtt(word.rtt);
}

fn would_vote(core: &Core, theirs: Option<crate::types::LogIndex>) -> bool {
    let Ok(mine) = core.store.last_log_id() else { return false };
    rules::would_vote(mine, theirs, core.leadership(), &core.link.timers())
}

async fn propose(core: &Arc<Core>, proposal: &[u8], within_ms: u64) -> Proposed {
    match serde_json::from_slice(proposal) {
        Ok(proposal) => batch::submit(core, proposal, Duration::from_millis(within_ms).min(MAX_WITHIN)).await,
        Err(error) => Proposed::Rejected(format!(
            "the leader {} cannot read the command ({error}): upgrade the older node",
            core.me
        )),
    }
}

#[cfg(test)]
mod tests;
