//! The leader's side of a proposal: many commands, one log entry, one sync.
//!
//! While one entry is on its way, the proposals that arrive are collected into the next. A leader that
//! has no fresh quorum refuses *before* it appends, so that the answer is a plain no and not an
//! uncertain maybe.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use openraft::error::ClientWriteError;
use selvedge_fabric::{UnixMs, command::Envelope};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use crate::{
    core::Core,
    types::{Batch, Outcome, Proposal},
    wire::Proposed,
};

/// Most commands in a log entry.
const MAX_BATCH_COMMANDS: usize = 256;
/// Bytes of commands after which a batch is closed; a single larger command still goes alone.
const MAX_BATCH_BYTES: usize = 512 * 1024;
/// Largest command, encoded: with what an append RPC may hold before it, it fits one request of the
/// transport.
pub(crate) const MAX_COMMAND_BYTES: usize = 4 * 1024 * 1024;
/// Proposals that may wait for the entry in flight; beyond it they are rejected.
pub(crate) const MAX_WAITING: usize = 1_024;
/// How long a leader waits for its quorum to answer again before it refuses. A leader that was found at
/// the last moment ([`crate::NO_LEADER_PATIENCE`]) must still refuse within three seconds in all.
const QUORUM_PATIENCE: Duration = Duration::from_millis(700);
/// How often it looks.
const QUORUM_POLL: Duration = Duration::from_millis(20);

/// A proposal with its encoded size, and where the answer goes.
pub(crate) struct Submission {
    proposal: Proposal,
    bytes: usize,
    reply: oneshot::Sender<Proposed>,
}

impl Submission {
    /// Checks the size and makes a submission.
    pub(crate) fn new(proposal: Proposal) -> Result<(Self, oneshot::Receiver<Proposed>), String> {
        let bytes =
            serde_json::to_vec(&proposal).map_err(|e| format!("cannot encode the command: {e}"))?.len();
        if bytes > MAX_COMMAND_BYTES {
            return Err(format!(
                "the command has {bytes} bytes, the log takes {MAX_COMMAND_BYTES}: apply the objects in several steps"
            ));
        }
        let (reply, answer) = oneshot::channel();
        Ok((Self { proposal, bytes, reply }, answer))
    }

    fn answer(self, proposed: Proposed) {
        // Whoever asked may have stopped waiting.
        let _ = self.reply.send(proposed);
    }
}

/// Hands a proposal to the batcher of this replica and waits for what becomes of it.
pub(crate) async fn submit(core: &Core, proposal: Proposal, within: Duration) -> Proposed {
    let (submission, answer) = match Submission::new(proposal) {
        Ok(made) => made,
        Err(why) => return Proposed::Rejected(why),
    };
    match core.submissions.try_send(submission) {
        Ok(()) => {}
        Err(mpsc::error::TrySendError::Full(_)) => {
            let why = format!("{MAX_WAITING} proposals wait already on {}: try again in a moment", core.me);
            return Proposed::Rejected(why);
        }
        Err(mpsc::error::TrySendError::Closed(_)) => return Proposed::NotLeader(core.leader_hint()),
    }
    match tokio::time::timeout(within, answer).await {
        Ok(Ok(proposed)) => proposed,
        // Its batch may be in the log.
        Ok(Err(_)) | Err(_) => Proposed::Unknown,
    }
}

/// Runs until the replica ends.
pub(crate) async fn run(core: Arc<Core>, mut waiting: mpsc::Receiver<Submission>) {
    let mut queue = VecDeque::new();
    while let Some(first) = next(&core, &mut queue, &mut waiting).await {
        queue.push_front(first);
        collect(&mut queue, &mut waiting);
        if let Err(refusal) = may_append(&core).await {
            queue.drain(..).for_each(|submission| submission.answer(refusal.clone()));
            continue;
        }
        let batch = take_batch(&mut queue);
        tokio::select! {
            () = append(&core, batch, &mut waiting, &mut queue) => {}
            () = core.stop.cancelled() => return,
        }
    }
}

async fn next(
    core: &Core,
    queue: &mut VecDeque<Submission>,
    waiting: &mut mpsc::Receiver<Submission>,
) -> Option<Submission> {
    if let Some(first) = queue.pop_front() {
        return Some(first);
    }
    tokio::select! {
        first = waiting.recv() => first,
        () = core.stop.cancelled() => None,
    }
}

/// Takes what has arrived without waiting for more.
fn collect(queue: &mut VecDeque<Submission>, waiting: &mut mpsc::Receiver<Submission>) {
    while queue.len() < MAX_BATCH_COMMANDS
        && let Ok(more) = waiting.try_recv()
    {
        queue.push_back(more);
    }
}

/// The first of the queue that fit into one entry; one at least.
fn take_batch(queue: &mut VecDeque<Submission>) -> Vec<Submission> {
    let mut batch: Vec<Submission> = Vec::new();
    let mut bytes = 0;
    while batch.len() < MAX_BATCH_COMMANDS
        && let Some(next) = queue.pop_front_if(|s| batch.is_empty() || bytes + s.bytes <= MAX_BATCH_BYTES)
    {
        bytes += next.bytes;
        batch.push(next);
    }
    batch
}

/// Whether this replica leads and a quorum answered it lately; waits a little for the latter.
async fn may_append(core: &Core) -> Result<(), Proposed> {
    let mut deadline = Instant::now() + QUORUM_PATIENCE;
    loop {
        if !core.leads() {
            return Err(Proposed::NotLeader(core.leader_hint()));
        }
        if core.link.is_paused() {
            deadline = Instant::now() + QUORUM_PATIENCE;
            tokio::time::sleep(QUORUM_POLL).await;
            continue;
        }
        if core.quorum_is_fresh() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(Proposed::NoQuorum(core.missing_voters()));
        }
        tokio::time::sleep(QUORUM_POLL).await;
    }
}

/// Appends one batch and answers its submissions. While it is in flight, newcomers are refused as soon
/// as the quorum is gone.
async fn append(
    core: &Core,
    batch: Vec<Submission>,
    waiting: &mut mpsc::Receiver<Submission>,
    queue: &mut VecDeque<Submission>,
) {
    let proposals = batch.iter().map(|submission| submission.proposal.clone()).collect();
    let write = write(core, proposals);
    tokio::pin!(write);
    let outcomes = loop {
        tokio::select! {
            outcomes = &mut write => break outcomes,
            () = tokio::time::sleep(QUORUM_PATIENCE) => {}
        }
        if !core.quorum_is_fresh() {
            collect(queue, waiting);
            let refusal = Proposed::NoQuorum(core.missing_voters());
            queue.drain(..).for_each(|submission| submission.answer(refusal.clone()));
        }
    };
    match outcomes {
        Ok(outcomes) => {
            for (submission, outcome) in batch.into_iter().zip(outcomes) {
                submission.answer(Proposed::decided(&outcome));
            }
        }
        Err(answer) => batch.into_iter().for_each(|submission| submission.answer(answer.clone())),
    }
}

async fn write(core: &Core, proposals: Vec<Proposal>) -> Result<Vec<Outcome>, Proposed> {
    let at_ms = now_ms().max(core.policy.borrow().clock_ms);
    let envelope = |Proposal { id, actor, command }| Envelope { id, actor, at_ms, command };
    let envelopes: Vec<_> = proposals.into_iter().map(envelope).collect();
    let encoded = Batch::encode(&envelopes).map_err(|e| Proposed::Rejected(e.to_string()))?;
    let written = core.raft.client_write_ff(encoded).await;
    let Ok(decided) = written else { return Err(Proposed::NotLeader(core.leader_hint())) };
    match decided.await {
        Ok(Ok(response)) => Ok(response.data),
        // Never appended, or appended and then overwritten here by another leader's entries. In the second case
        // somebody else may still have it, and lead one day: that is not a no.
        Ok(Err(
            ClientWriteError::<u64, _>::ForwardToLeader(_) | ClientWriteError::ChangeMembershipError(_),
        ))
        | Err(_) => Err(Proposed::Unknown),
    }
}

/// The leader's clock.
pub(crate) fn now_ms() -> UnixMs {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    crate::wire::millis(since)
}
