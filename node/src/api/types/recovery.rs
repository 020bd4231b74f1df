//! A lost majority, and how the fabric goes on without it.

use selvedge_fabric::{Epoch, Revision};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A majority of the voters that is not heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LostMajority {
    /// The node that does not hear of them: the one that answers.
    pub seen_by: String,
    /// Since when there is no quorum.
    pub since: String,
    /// The same, in milliseconds before now.
    pub since_ms_ago: u64,
    /// How many voters there are.
    pub voters: usize,
    /// Those that are not heard of.
    pub missing: Vec<SilentVoter>,
    /// What goes on meanwhile.
    pub works: String,
    /// What to do.
    pub remedy: String,
}

/// A voter that is not heard of.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SilentVoter {
    /// Its name.
    pub name: String,
    /// When it was last heard; none when it was not since the node started.
    #[serde(default)]
    pub heard: Option<String>,
}

/// The recovery that began a fence epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryNote {
    /// When it was signed, by the clock of who signed it.
    pub at: String,
    /// The revision from which the fabric went on.
    pub base_revision: Revision,
    /// The log index from which it went on.
    pub base_index: u64,
}

/// Asks what there is to sign.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryRequest {
    /// The processors that are to vote; chosen among those that are reached when there are none.
    #[serde(default)]
    pub survivors: Vec<String>,
}

/// How far a processor is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryCandidate {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Whether it voted.
    pub voter: bool,
    /// Whether it was reached; only then the rest is known.
    pub reached: bool,
    /// Its fence epoch.
    pub fence_epoch: Epoch,
    /// Term of its newest log entry.
    pub term: u64,
    /// Index of its newest log entry.
    pub index: u64,
    /// Up to which index it knows entries to be committed.
    pub committed: u64,
    /// Its revision, uncommitted entries included.
    pub revision: Revision,
    /// When the newest change that it has was made.
    #[serde(default)]
    pub newest: Option<String>,
    /// Hash of its whole state.
    pub hash: String,
}

/// What there is to sign for a recovery, and what must be known to decide it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryDraft {
    /// The fabric's random id, base64url.
    pub fabric_id: String,
    /// Public half of the recovery key that has to sign, base64url.
    pub recovery_key: String,
    /// All processors.
    pub candidates: Vec<RecoveryCandidate>,
    /// The one whose state is taken over.
    pub source: String,
    /// Term of the newest entry of that state.
    pub base_term: u64,
    /// Its index.
    pub base_index: u64,
    /// Its revision.
    pub base_revision: Revision,
    /// Hash of the state, base64url.
    pub base_hash: String,
    /// The fence epoch that begins.
    pub fence_epoch: Epoch,
    /// Number of the new set of voters.
    pub sequence: u64,
    /// The new voters.
    pub voters: Vec<String>,
    /// Their public keys, base64url.
    pub voter_keys: Vec<String>,
    /// What may be lost, in words.
    pub may_be_lost: String,
}

/// A recovery, signed by the recovery key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoveryStatement {
    /// The fabric's random id, base64url.
    pub fabric_id: String,
    /// The fence epoch that begins.
    pub fence_epoch: Epoch,
    /// Number of the new set of voters.
    pub sequence: u64,
    /// Public keys of the new voters, base64url.
    pub voter_keys: Vec<String>,
    /// Term of the newest entry that is taken over.
    pub base_term: u64,
    /// Its index.
    pub base_index: u64,
    /// Its revision.
    pub base_revision: Revision,
    /// Hash of the state after it, base64url.
    pub base_hash: String,
    /// When it was signed, milliseconds since 1970.
    pub at_ms: u64,
    /// The recovery key's signature over `selvedge-recovery-v1`, fabric id, epoch, sequence, term, index,
    /// revision and time (64 bits each, big endian), the hash, and the hash of the voters; base64url.
    pub signature: String,
}

/// A recovery that was carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveryReply {
    /// The fence epoch that began.
    pub fence_epoch: Epoch,
    /// The leader.
    pub leader: String,
    /// New voters that have taken it over.
    pub took_over: Vec<String>,
    /// New voters that have not yet; they do as soon as they are reached.
    pub missing: Vec<String>,
    /// How long it took the node.
    pub took_ms: u64,
}

/// Asks for another leader.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// The voter that is to lead.
    pub node: String,
}

/// A change that a recovery left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LostChange {
    /// The fence epoch that ended.
    pub ended_epoch: Epoch,
    /// The fence epoch that began.
    pub began_epoch: Epoch,
    /// The revision that it made on its side; none when it made none.
    #[serde(default)]
    pub revision: Option<Revision>,
    /// When.
    pub time: String,
    /// Who.
    pub actor: String,
    /// What.
    pub summary: String,
    /// Whether it was committed on its side: then whoever made it was told so.
    pub committed: bool,
    /// The nodes that had it; each keeps a file with all of it below `raft/lost` in its data directory.
    pub nodes: Vec<String>,
}
