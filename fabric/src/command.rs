//! What the log carries, and what comes of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Revision, UnixMs,
    id::{ContractRef, NodeName, ServiceRef, ZoneName},
    key::{CommandId, Hash, PublicKey, TokenId},
    object::{Object, ObjectKey},
    policy::FabricParams,
    rollout::Step,
};

/// A command with who sent it and when. `at_ms` is stamped by the leader, so that every replica
/// applies the same time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// A command that was sent twice (a client that retried) is applied once.
    pub id: CommandId,
    /// Who: the name of an API token, `local:<uid>`, or `node:<name>`.
    pub actor: String,
    /// When, by the leader's clock.
    pub at_ms: UnixMs,
    /// What.
    pub command: Command,
}

/// A change of intent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// The first command of a fabric.
    Init {
        /// What never changes.
        params: FabricParams,
        /// The first processor.
        first: Admit,
    },
    /// Sets and deletes objects, all or nothing.
    Apply(Apply),
    /// Makes the objects what they were at a revision.
    Rollback {
        /// The revision to return to.
        to: Revision,
        /// Refuse unless this is the present revision.
        base: Option<Revision>,
    },
    /// Makes a join token known.
    CreateJoinToken(JoinToken),
    /// Makes a service token known.
    CreateServiceToken(ServiceToken),
    /// Makes an API token known.
    CreateApiToken(ApiToken),
    /// Ends a token of any kind; what it admitted stays.
    RevokeToken {
        /// Which.
        id: TokenId,
    },
    /// Admits a node.
    Admit(Admit),
    /// Gives a processor the issuing key, sealed to it.
    SealIssuer {
        /// To whom.
        node: NodeName,
        /// HPKE (RFC 9180) ciphertext; only that node can open it.
        sealed: SealedSecret,
    },
    /// Drains a node, ends a drain, or revokes it.
    SetNodeState {
        /// Which.
        node: NodeName,
        /// Its new state.
        state: AdmissionState,
    },
    /// Takes a node out for good: its key is never admitted again. The name may be used again at once,
    /// with a new key; the addresses after [`Command::ReleaseBlocks`].
    RemoveNode {
        /// Which.
        node: NodeName,
    },
    /// Marks the addresses of removed nodes as free again, once every node has enforced the removal.
    ReleaseBlocks {
        /// The IPv4 blocks.
        blocks: Vec<u32>,
    },
    /// Moves a rollout on or stops it, if it still is in the stage that is named.
    StepRollout {
        /// Of which contract.
        contract: ContractRef,
        /// The revision that began the rollout.
        revision: Revision,
        /// When its stage began.
        since_ms: UnixMs,
        /// What to do.
        step: Step,
    },
}

/// Sets and deletes objects, all or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Apply {
    /// Refuse unless this is the present revision.
    pub base: Option<Revision>,
    /// Objects to create or replace.
    pub set: Vec<Object>,
    /// Objects to delete; one that is not there is a refusal.
    pub delete: Vec<ObjectKey>,
    /// A word on why, for the history.
    pub message: String,
}

/// Admits a node under a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admit {
    /// Its name.
    pub node: NodeName,
    /// Its key; certificates are only honoured for it.
    pub key: PublicKey,
    /// X25519 public key to which secrets for this node are sealed.
    pub sealing_key: PublicKey,
    /// What it does.
    pub role: Role,
    /// Where it is.
    pub zone: ZoneName,
    /// The join token that was used; none for the first node.
    pub token: Option<TokenId>,
    /// The issuing key, sealed to this node, for processors.
    pub sealed_issuer: Option<SealedSecret>,
}

/// HPKE output (RFC 9180, base mode).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedSecret {
    /// The encapsulated key.
    pub encapsulated: Vec<u8>,
    /// The ciphertext.
    pub ciphertext: Vec<u8>,
}

impl std::fmt::Debug for SealedSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedSecret({} bytes)", self.ciphertext.len())
    }
}

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Raft replica, gossip, links, transit, API, DNS.
    Processor,
    /// Agent for workloads: enforcement, DNS, local API.
    Workload,
}

impl std::fmt::Display for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Processor => "processor",
            Self::Workload => "workload",
        })
    }
}

/// The administrative state of an admitted node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AdmissionState {
    /// In service.
    Active,
    /// Keeps running; its endpoints are answered last, it is no voter.
    Draining,
    /// Refused everywhere, at once.
    Revoked,
}

/// A join token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of the secret.
    pub secret_hash: Hash,
    /// The role it admits to.
    pub role: Role,
    /// The zone it admits to.
    pub zone: ZoneName,
    /// When it ends.
    pub not_after_ms: UnixMs,
    /// How many nodes it may still admit.
    pub uses_left: u32,
}

/// A service token: the key that proves an endpoint's service. Its secret half never reaches a node's
/// disk or the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceToken {
    /// Its id.
    pub id: TokenId,
    /// The service it proves.
    pub service: ServiceRef,
    /// The public half.
    pub key: PublicKey,
    /// Where endpoints may prove it; anywhere, when empty.
    pub scope: TokenScope,
    /// When it ends.
    pub not_after_ms: UnixMs,
}

/// Where a service token may be used: on any of these nodes, or in any of these zones or clouds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenScope {
    /// Nodes.
    pub nodes: Vec<NodeName>,
    /// Zones; one without a region stands for its whole cloud.
    pub zones: Vec<ZoneName>,
}

/// An API token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiToken {
    /// Its id.
    pub id: TokenId,
    /// Who it stands for; domains list such names as admins.
    pub name: String,
    /// SHA-256 of the secret.
    pub secret_hash: Hash,
    /// What it may do.
    pub rights: Rights,
    /// When it ends.
    pub not_after_ms: UnixMs,
}

/// What an API token may do. Domain administrators are named in their Domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rights {
    /// Everything.
    Admin,
    /// Change the domains that name it, read everything.
    Domain,
    /// Read everything.
    Read,
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The revision after it; the present one, when nothing changed.
    pub revision: Revision,
    /// What changed; empty when everything was so already. Without the objects' contents (before and
    /// after) when a repeated command is answered from memory.
    pub changes: Vec<Change>,
}

/// One object that changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// What happened to it.
    pub action: ChangeAction,
    /// The object, or a description such as `Node p1` for what is no object.
    pub what: String,
    /// The key, when it is an object.
    pub key: Option<ObjectKey>,
    /// The object before.
    pub before: Option<Object>,
    /// The object after.
    pub after: Option<Object>,
}

/// What happened to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the words say it")]
pub enum ChangeAction {
    Created,
    Updated,
    Deleted,
}

/// Why a command was refused. The state is as before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The fabric has no [`FabricParams`] yet, or has them already.
    #[error("{0}")]
    Lifecycle(String),
    /// The state moved since the client read it.
    #[error(
        "the fabric is at revision {present}, not {base}: look at the changes since (selvedge history), then apply again"
    )]
    Conflict {
        /// What the client expected.
        base: Revision,
        /// What it is.
        present: Revision,
    },
    /// The objects would not fit together; every problem is listed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Invalid(Vec<Problem>),
    /// A token that is unknown, revoked, expired, used up or meant for something else.
    #[error("{0}")]
    Token(String),
    /// A node of that name or key is there already, or is not there.
    #[error("{0}")]
    Node(String),
    /// No such object, token or revision.
    #[error("{0}")]
    NotFound(String),
    /// A limit of the fabric.
    #[error("{0}")]
    Limit(String),
}

/// Something wrong with a document or an object in it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// Where, when it came from a text.
    pub place: Option<Place>,
    /// The object, such as `Contract voting-backend@voting-app`, when known.
    pub object: Option<String>,
    /// The field, such as `spec.roles[0]`, when known.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

/// A position in a text, counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The file, when known.
    pub file: Option<String>,
    /// The line.
    pub line: u32,
    /// The column, in characters.
    pub column: u32,
}

impl Problem {
    /// A problem of one object, without a place.
    #[must_use]
    pub fn of(object: &ObjectKey, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            place: None,
            object: Some(object.to_string()),
            field: Some(field.into()).filter(|f: &String| !f.is_empty()),
            message: message.into(),
            remedy: None,
        }
    }

    /// The problem with what to do about it, when that is known.
    #[must_use]
    pub fn with_remedy(self, remedy: impl Into<Option<String>>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(Place { file, line, column }) = &self.place {
            write!(f, "{}:{line}:{column}: ", file.as_deref().unwrap_or("-"))?;
        }
        if let Some(object) = &self.object {
            write!(f, "{object}: ")?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

/// Counts of tokens, nodes and objects that a fabric may hold; every one is refused beyond.
#[derive(Debug, Clone, Copy)]
pub struct Limits;

impl Limits {
    /// Objects of all kinds.
    pub const OBJECTS: usize = 100_000;
    /// Admitted nodes.
    pub const NODES: usize = 5_000;
    /// Tokens of each kind.
    pub const TOKENS: usize = 50_000;
    /// Revisions kept for `history` and `rollback`.
    pub const HISTORY: usize = 1_024;
    /// Command ids remembered, so that a retried command is applied once.
    pub const REMEMBERED_COMMANDS: usize = 4_096;
    /// Objects in one [`Apply`].
    pub const OBJECTS_PER_APPLY: usize = 10_000;
    /// Changes kept in the history altogether: a few huge commands must not make every snapshot huge.
    /// The newest entry is kept whatever its size.
    pub const HISTORY_CHANGES: usize = 200_000;
    /// Changes kept in remembered outcomes altogether.
    pub const REMEMBERED_CHANGES: usize = 50_000;
    /// Problems in one refusal; further ones are counted only.
    pub const PROBLEMS: usize = 1_000;
    /// Removed nodes whose keys are remembered. Beyond, the oldest whose block is free are forgotten;
    /// such a key is still not admitted, it could only join again with a new token.
    pub const REMOVED: usize = 100_000;
    /// Nodes and zones in the scope of one service token.
    pub const SCOPE: usize = 256;
    /// Bytes of [`Apply::message`].
    pub const MESSAGE_BYTES: usize = 1_024;
    /// Bytes of an actor's name in the history; a longer one is cut.
    pub const ACTOR_BYTES: usize = 256;
}

/// A map by token id.
pub type TokenMap<T> = BTreeMap<TokenId, T>;
