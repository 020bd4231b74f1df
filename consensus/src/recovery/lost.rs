//! What a recovery leaves behind: entries that only the other side of the cut had.
//!
//! They are listed and saved for people, and never merged: the fabric went on without them.

use std::path::{Path, PathBuf};

use openraft::EntryPayload;
use selvedge_fabric::{
    Epoch, Revision, UnixMs,
    command::{Command, Envelope},
    policy::{HistoryEntry, PolicyState},
    statement::{Base, Recovery},
};
use serde::{Deserialize, Serialize};

use crate::{
    image,
    machine::AppliedState,
    store::{Store, StoreError},
    types::{Entry, LogIndex},
};

/// Most entries that one file lists; a log keeps far fewer batches. The rest is counted.
pub(crate) const MAX_LISTED: usize = 65_536;
/// Most entries that one replica tells another of; the newest. Its own file has all.
const MAX_TOLD: usize = 2_048;
/// Below the replica's directory.
const DIRECTORY: &str = "lost";

/// A change of intent that did not survive a recovery.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LostEntry {
    /// The term of its log entry; 0 when it is known from the history alone.
    pub term: u64,
    /// The index of its log entry; 0 when it is known from the history alone.
    pub index: u64,
    /// The revision it made on its side; none when it was refused or never applied.
    pub revision: Option<Revision>,
    /// When, by the clock of the leader of then, in milliseconds since 1970.
    pub at_ms: UnixMs,
    /// Who.
    pub actor: String,
    /// What, in a line.
    pub summary: String,
    /// Whether this replica knew it to be committed: then somebody may have been told that it was.
    pub committed: bool,
}

/// What one replica left behind at one recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    /// The epoch that ended.
    pub ended: Epoch,
    /// The epoch that began.
    pub began: Epoch,
    /// The revision from which the fabric went on.
    pub base_revision: Revision,
    /// What is missing from there on, oldest first.
    pub entries: Vec<LostEntry>,
    /// How many more there are than `entries` lists.
    pub unlisted: usize,
    /// The objects as they were here, as JSON of the policy without secrets.
    #[serde(default)]
    pub policy: Option<serde_json::Value>,
}

/// Whether an entry is behind the base, in the order of Raft logs. What a majority committed and the base
/// does not hold always is: a leader of a later term has everything that was committed before.
pub(crate) fn is_behind(base: &Base, entry: &LogIndex) -> bool {
    (entry.leader_id.term, entry.index) > (base.term, base.index)
}

/// Everything in a store, replayed.
pub(crate) struct Replayed {
    /// The state at the base, as far as this replica has the very log that led there.
    pub(crate) at_base: Option<AppliedState>,
    /// What it would have lost.
    pub(crate) lost: Lost,
    /// Its newest state.
    pub(crate) newest: AppliedState,
}

/// Replays the newest snapshot and the whole log after it, committed or not, beside `recovery`.
pub(crate) fn replay(store: &Store, recovery: &Recovery) -> Result<Replayed, StoreError> {
    let epoch = store.epoch()?;
    let committed = store.committed()?;
    let base = &recovery.base;
    let mut state = AppliedState::of_snapshot(store)?.unwrap_or_default();
    let mut lost =
        Lost { ended: epoch, began: recovery.epoch(), base_revision: base.revision, ..Lost::default() };
    // In log order, so what lies behind the base is the end of the log.
    let snapshot_is_behind = state.last.is_some_and(|last| is_behind(base, &last));
    let mut at_base = None;
    if snapshot_is_behind {
        let known = state.policy.history.iter().filter(|h| h.revision > base.revision);
        lost.entries.extend(known.map(|h| of_history(h, 0, 0, true)));
    }
    let from = state.last.map_or(0, |id| id.index + 1);
    for entry in store.entries(from, store.log_end()?, usize::MAX)? {
        let (log_id, revision) = (entry.log_id, state.policy.revision);
        let behind = is_behind(base, &log_id);
        if behind && !snapshot_is_behind && at_base.is_none() {
            at_base = Some(state.clone());
        }
        let envelopes = if behind { envelopes_of(&entry) } else { Vec::new() };
        state.step(entry, epoch).map_err(|e| store.corrupt(e.to_string()))?;
        if behind {
            let known = committed.is_some_and(|c| log_id.index <= c.index);
            list(&mut lost, &state.policy, revision, log_id, envelopes, known);
        }
    }
    if !snapshot_is_behind && at_base.is_none() {
        at_base = Some(state.clone());
    }
    if !lost.entries.is_empty() {
        lost.policy = serde_json::to_value(state.policy.without_secrets()).ok();
    }
    let reached = |s: &AppliedState| image::hash(&s.policy, &s.voters) == base.image;
    Ok(Replayed { at_base: at_base.filter(reached), lost, newest: state })
}

fn envelopes_of(entry: &Entry) -> Vec<Envelope> {
    match &entry.payload {
        EntryPayload::Normal(batch) => batch.decode().unwrap_or_default(),
        EntryPayload::Blank | EntryPayload::Membership(_) => Vec::new(),
    }
}

/// Adds the commands of one entry. The history tells what each revision was; a command that made none was
/// refused or changed no intent.
fn list(
    lost: &mut Lost,
    after: &PolicyState,
    revision_before: Revision,
    log_id: LogIndex,
    envelopes: Vec<Envelope>,
    committed: bool,
) {
    let (term, index) = (log_id.leader_id.term, log_id.index);
    let made: Vec<&HistoryEntry> = after.history.iter().filter(|h| h.revision > revision_before).collect();
    let entries: Vec<LostEntry> = if made.len() == envelopes.len() || envelopes.is_empty() {
        made.into_iter().map(|h| of_history(h, term, index, committed)).collect()
    } else {
        let entry = |envelope: Envelope| {
            let same = |h: &&&HistoryEntry| h.at_ms == envelope.at_ms && h.actor == envelope.actor;
            LostEntry {
                term,
                index,
                revision: made.iter().find(same).map(|h| h.revision),
                at_ms: envelope.at_ms,
                actor: envelope.actor,
                summary: kind(&envelope.command).to_owned(),
                committed,
            }
        };
        envelopes.into_iter().map(entry).collect()
    };
    let room = MAX_LISTED.saturating_sub(lost.entries.len());
    lost.unlisted += entries.len().saturating_sub(room);
    lost.entries.extend(entries.into_iter().take(room));
}

fn of_history(entry: &HistoryEntry, term: u64, index: u64, committed: bool) -> LostEntry {
    LostEntry {
        term,
        index,
        revision: Some(entry.revision),
        at_ms: entry.at_ms,
        actor: entry.actor.clone(),
        summary: entry.summary.clone(),
        committed,
    }
}

const fn kind(command: &Command) -> &'static str {
    match command {
        Command::Init { .. } => "fabric made",
        Command::Apply(_) => "objects applied",
        Command::Rollback { .. } => "rollback",
        Command::CreateJoinToken(_) => "join token made",
        Command::CreateServiceToken(_) => "service token made",
        Command::CreateApiToken(_) => "API token made",
        Command::RevokeToken { .. } => "token revoked",
        Command::Admit(_) => "node admitted",
        Command::SealIssuer { .. } => "issuing key given to a node",
        Command::SetNodeState { .. } => "state of a node changed",
        Command::RemoveNode { .. } => "node removed",
        Command::ReleaseBlocks { .. } => "addresses released",
        Command::StepRollout { .. } => "rollout moved on",
    }
}

/// Writes what was left behind below `dir`, mode 0600, durably, before anything is removed from the store.
///
/// # Errors
/// When it cannot be written; nothing must be removed then.
pub(crate) fn save(dir: &Path, lost: &Lost) -> Result<PathBuf, StoreError> {
    let directory = dir.join(DIRECTORY);
    let path = directory.join(format!("{}-{}.json", lost.ended, lost.began));
    let text = serde_json::to_vec_pretty(lost).unwrap_or_default(); // Plain data.
    crate::store::files::private_dir(&directory)?;
    crate::store::files::write_private(&path, &text)?;
    Ok(path)
}

/// Everything that was ever left behind here, oldest first. A file that cannot be read is left out and told
/// of in the log.
pub(crate) fn load(dir: &Path) -> Vec<Lost> {
    let Ok(files) = std::fs::read_dir(dir.join(DIRECTORY)) else { return Vec::new() };
    let mut all: Vec<Lost> = files
        .flatten()
        .filter(|file| file.path().extension().is_some_and(|e| e == "json"))
        .filter_map(|file| {
            let path = file.path();
            let read = std::fs::read(&path).map_err(|e| e.to_string());
            match read.and_then(|text| serde_json::from_slice(&text).map_err(|e| e.to_string())) {
                Ok(lost) => Some(lost),
                Err(error) => {
                    tracing::warn!(path = %path.display(), error, "a list of lost entries cannot be read");
                    None
                }
            }
        })
        .collect();
    all.sort_by_key(|lost| lost.began);
    all
}

/// These lists as another replica is told of them: bounded, the newest entries first to stay.
pub(crate) fn for_wire(mut lists: Vec<Lost>) -> Vec<Lost> {
    let mut room = MAX_TOLD;
    for lost in lists.iter_mut().rev() {
        let cut = lost.entries.len().saturating_sub(room);
        lost.entries.drain(..cut);
        lost.unlisted += cut;
        lost.policy = None;
        room -= lost.entries.len();
    }
    lists.retain(|lost| !lost.entries.is_empty() || lost.unlisted > 0);
    lists
}
