//! The policy state: everything the log has built.
//!
//! Every replica runs [`PolicyState::apply`] on the same envelopes in the same order, so it must be a
//! function of state and envelope alone: time comes with the envelope, maps are ordered, nothing is
//! random. A command either passes every check and is carried out whole, or leaves intent as it was;
//! the checks come first and nothing after the first change can fail.
//!
//! * `apply` takes an envelope: outcomes of repeated commands, clock, revision, history.
//! * `stage` works out what an [`Apply`](crate::command::Apply) or a rollback would change; `preview`
//!   and [`diff`] stop there.
//! * `graph` and `validate` judge the objects as they would be.
//! * `nodes` and `tokens` carry out what concerns those.
//! * `rollouts` brings what is newly allowed into force by stages.
//! * `held` leaves out what a node cannot carry out.
//! * `history`, `hash` and `snapshot` remember, compare and store.
mod apply;
mod graph;
mod hash;
mod held;
mod history;
mod nodes;
mod pool;
mod rollouts;
mod snapshot;
mod stage;
mod tokens;
mod validate;

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use crate::{
    Revision, UnixMs,
    command::{
        AdmissionState, ApiToken, Applied, Change, JoinToken, Refusal, Role, SealedSecret, ServiceToken,
        TokenMap,
    },
    id::{ContractRef, Name, NodeName, ServiceRef, ZoneName},
    key::{CommandId, FabricId, NodeId, PublicKey, TokenId},
    object::{Object, ObjectKey, Spec},
    rollout::Rollout,
};

pub use graph::builtin_templates;
pub use snapshot::{DecodeError, SNAPSHOT_FORMAT};
pub use stage::diff;

/// What a fabric is from its first command on, and never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FabricParams {
    /// Its name, the trust domain of its SPIFFE ids.
    pub name: Name,
    /// Its random id.
    pub id: FabricId,
    /// DNS suffix, without a trailing dot, for instance `fabric.internal`.
    pub suffix: String,
    /// The ULA prefix (RFC 4193), 48 bits.
    pub ula_prefix: [u8; 6],
    /// IPv4 pool as `address/length`, for instance `100.64.0.0/10`.
    pub ipv4_pool: String,
    /// Length of the IPv4 block of each node, for instance 24.
    pub ipv4_block_len: u8,
    /// The root certificate, DER. Its key is offline.
    pub root_cert: Vec<u8>,
    /// The certificate of the issuing CA, DER.
    pub issuing_cert: Vec<u8>,
    /// Public half of the recovery key.
    pub recovery_key: PublicKey,
    /// When the fabric was made.
    pub created_ms: UnixMs,
}

/// An admitted node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Admission {
    /// Its key.
    pub key: PublicKey,
    /// X25519 key to which secrets for it are sealed.
    pub sealing_key: PublicKey,
    /// What it does.
    pub role: Role,
    /// Where it is.
    pub zone: ZoneName,
    /// Whether it is in service.
    pub state: AdmissionState,
    /// Number of its IPv4 block within the pool.
    pub block: u32,
    /// The join token that admitted it.
    pub token: Option<TokenId>,
    /// When it was admitted.
    pub admitted_ms: UnixMs,
}

/// A node that was removed: its key is refused for ever, its block until it is released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// The name it had.
    pub name: NodeName,
    /// The revision that removed it.
    pub revision: Revision,
    /// Its IPv4 block, until that is released.
    pub block: Option<u32>,
}

/// One entry of the history. The bound is [`crate::command::Limits::HISTORY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// The revision it made.
    pub revision: Revision,
    /// When.
    pub at_ms: UnixMs,
    /// Who.
    pub actor: String,
    /// A line on what.
    pub summary: String,
    /// What changed.
    pub changes: Vec<Change>,
}

/// The whole intent of a fabric at one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PolicyState {
    /// What never changes; `None` before the first command.
    pub params: Option<FabricParams>,
    /// The revision.
    pub revision: Revision,
    /// Time of the newest command, so that time never runs backwards in the state.
    pub clock_ms: UnixMs,
    /// The objects.
    #[serde(with = "crate::policy::pairs")]
    pub objects: BTreeMap<ObjectKey, Spec>,
    /// Admitted nodes.
    pub nodes: BTreeMap<NodeName, Admission>,
    /// Removed nodes by id.
    #[serde(with = "crate::policy::pairs")]
    pub removed: BTreeMap<NodeId, Removed>,
    /// Join tokens.
    pub join_tokens: TokenMap<JoinToken>,
    /// Service tokens.
    pub service_tokens: TokenMap<ServiceToken>,
    /// API tokens.
    pub api_tokens: TokenMap<ApiToken>,
    /// The issuing key sealed to each processor. Secret: outside every hash and export.
    pub sealed_issuer: BTreeMap<NodeName, SealedSecret>,
    /// Numbers that stand for services in verdict tables; never used again. 0 is nobody.
    pub identities: BTreeMap<ServiceRef, u32>,
    /// The number that the next new service gets, less one.
    pub last_identity: u32,
    /// What contracts newly allow and is not in force everywhere yet.
    pub rollouts: BTreeMap<ContractRef, Rollout>,
    /// What changed, oldest first.
    pub history: VecDeque<HistoryEntry>,
    /// Outcomes of the newest commands, oldest first.
    pub remembered: VecDeque<(CommandId, Result<Applied, Refusal>)>,
}

impl PolicyState {
    /// The objects, in order.
    pub fn objects(&self) -> impl Iterator<Item = Object> + '_ {
        self.objects.iter().map(|(key, spec)| Object { key: key.clone(), spec: spec.clone() })
    }
}

/// Maps whose keys are no strings, as lists of pairs: JSON has only string keys.
pub(crate) mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S, K, V>(map: &BTreeMap<K, V>, s: S) -> Result<S::Ok, S::Error>
    where
        S: Serializer,
        K: Serialize,
        V: Serialize,
    {
        s.collect_seq(map)
    }

    pub(crate) fn deserialize<'de, D, K, V>(d: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        D: Deserializer<'de>,
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
    {
        Vec::<(K, V)>::deserialize(d).map(|pairs| pairs.into_iter().collect())
    }
}
