//! What openraft's generic types stand for here.

use std::{io::Cursor, net::SocketAddr};

use openraft::{LogId, Raft};
use selvedge_fabric::{
    command::{Applied, Command, Envelope, Refusal},
    id::NodeName,
    key::CommandId,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

openraft::declare_raft_types!(
    /// The policy log: entries are batches of commands, members are processors.
    pub(crate) TypeConfig:
        D = Batch,
        R = Vec<Outcome>,
        NodeId = u64,
        Node = Member,
        SnapshotData = Cursor<Vec<u8>>,
        AsyncRuntime = crate::runtime::Runtime,
);

pub(crate) type PolicyRaft = Raft<TypeConfig>;
pub(crate) type Entry = openraft::Entry<TypeConfig>;
pub(crate) type LogIndex = LogId<u64>;
pub(crate) type Membership = openraft::StoredMembership<u64, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<u64, Member>;
pub(crate) type StorageError = openraft::StorageError<u64>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<u64, Member>;

/// What became of one command of a batch.
pub(crate) type Outcome = Result<Applied, Refusal>;

/// Version of the encoding of [`Batch`], its first byte.
const ENCODING: u8 = 1;

/// A member of the Raft cluster, as the log records it. The addresses are those the leader last knew:
/// a replica that starts with nobody reachable through gossip finds its peers by them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Member {
    pub(crate) name: NodeName,
    pub(crate) addrs: Vec<SocketAddr>,
}

impl Default for Member {
    /// openraft asks for it in its own tests only.
    fn default() -> Self {
        Self { name: NodeName::new("unknown").expect("is a DNS label"), addrs: Vec::new() }
    }
}

/// A change of intent that somebody proposes. The leader adds the time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proposal {
    /// Random; a proposal that is sent again under the same id is applied once.
    pub id: CommandId,
    /// Who proposes it: the name of an API token, `local:<uid>`, or `node:<name>`.
    pub actor: String,
    /// What.
    pub command: Command,
}

/// The commands that share one log entry, encoded.
///
/// It stays encoded from the leader's memory to the moment it is applied: replicating and storing a
/// batch never looks inside. The commands are JSON because objects are self-describing there, so a
/// field that is added later does not make old logs unreadable.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Batch(Vec<u8>);

impl Batch {
    pub(crate) fn encode(envelopes: &[Envelope]) -> Result<Self, serde_json::Error> {
        let mut bytes = vec![ENCODING];
        serde_json::to_writer(&mut bytes, envelopes)?;
        Ok(Self(bytes))
    }

    pub(crate) fn decode(&self) -> Result<Vec<Envelope>, DecodeError> {
        match self.0.split_first() {
            Some((&ENCODING, json)) => Ok(serde_json::from_slice(json)?),
            Some((&other, _)) => Err(DecodeError::Version(other)),
            None => Err(DecodeError::Empty),
        }
    }
}

/// Why a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("encoding {0} is not known to this version; it knows {ENCODING}: install a newer selvedge")]
    Version(u8),
    #[error("nothing to decode")]
    Empty,
    #[error(transparent)]
    Json(#[from] serde_json::Error),
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} bytes)", self.0.len())
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_byte_buf(BytesVisitor).map(Self)
    }
}

/// Takes bytes at once instead of one element after the other.
struct BytesVisitor;

impl de::Visitor<'_> for BytesVisitor {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("bytes")
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
        Ok(bytes)
    }
}
