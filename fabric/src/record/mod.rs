//! Signed facts. Each node owns its records; the newest wins, so merging is commutative, associative
//! and idempotent.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    Epoch, Revision, UnixMs,
    cga::CgaParams,
    id::{EndpointId, NodeName, ServiceRef},
    key::{Hash, NodeId, PublicKey, Signature, TokenId},
    object::Protocol,
};

mod proof;
mod signed;

#[cfg(test)]
mod tests;

pub use proof::{ProofClaim, proof_message};

/// Largest encoded record, in bytes; a larger one is dropped and counted.
pub const MAX_RECORD_BYTES: usize = 48 * 1024;
/// Most endpoints a node may announce.
pub const MAX_ENDPOINTS: usize = 256;
/// Most ports an endpoint may have.
pub const MAX_ENDPOINT_PORTS: usize = 32;
/// Most addresses of each kind that a node may announce.
pub const MAX_ADDRESSES: usize = 16;
/// Highest weight of an endpoint.
pub const MAX_WEIGHT: u16 = 1_000;
/// Most nodes of which a node may say what it saw: a cloud of a large fabric.
pub const MAX_OBSERVATIONS: usize = 2_048;
/// Most links a node may announce.
pub const MAX_LINKS: usize = 2_048;
/// Longest version text of the program, in bytes.
pub const MAX_SOFTWARE_BYTES: usize = 64;

/// What a record speaks of. A node has one record for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Topic {
    /// That it lives, and where.
    Presence,
    /// Its endpoints.
    Endpoints,
    /// What it saw of others.
    Observations,
    /// Its links and their measured round trips.
    Links,
    /// The policy it enforces.
    Enforced,
    /// How loaded it is.
    Load,
}

/// The order of records of one node and topic: a higher version replaces a lower one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Version {
    /// Fence epoch.
    pub epoch: Epoch,
    /// Grows with every start of the node.
    pub incarnation: u64,
    /// Grows with every record of this topic.
    pub sequence: u64,
}

/// A signed fact, as it is carried and stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Whose fact; also the key that must have signed it.
    pub node: PublicKey,
    /// Which.
    pub topic: Topic,
    /// Its place in the order.
    pub version: Version,
    /// Random per start: two of them at one incarnation are two holders of one key.
    pub boot_nonce: u64,
    /// The body, postcard-encoded; the signature covers these very bytes.
    pub body: Vec<u8>,
    /// Over domain separator, fabric id, and all of the above.
    pub signature: Signature,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// That it lives, and where.
    Presence(Presence),
    /// Its endpoints.
    Endpoints(Vec<EndpointFact>),
    /// What it saw of others.
    Observations(Vec<Observation>),
    /// Its links.
    Links(Vec<LinkFact>),
    /// The policy it enforces.
    Enforced(Enforced),
    /// How loaded it is.
    Load(Load),
}

/// That a node lives, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Where its fabric port (7401) is reached, best first.
    pub addresses: Vec<SocketAddr>,
    /// Where its gossip port (7400) is reached.
    pub gossip: Vec<SocketAddr>,
    /// Where its API is reached.
    pub api: Vec<SocketAddr>,
    /// It is leaving of its own will.
    pub leaving: bool,
    /// Version of the program.
    pub software: String,
}

/// An endpoint: one place where a service is served or used from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointFact {
    /// Its name.
    pub id: EndpointId,
    /// The service it proves to be of.
    pub service: ServiceRef,
    /// Where it serves.
    pub ports: Vec<EndpointPort>,
    /// Its IPv4 address, of its node's block.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address, a CGA over its node's key; only where there is a TUN.
    pub ipv6: Option<Ipv6Addr>,
    /// Parameters with which a receiver verifies `ipv6`.
    pub cga: CgaParams,
    /// Its health by its own checks.
    pub health: Health,
    /// Relative share of new connections among its equals, 0 to 1000; SRV weight.
    pub weight: u16,
    /// The proof that it may be of the service.
    pub proof: ServiceProof,
}

/// A port that an endpoint serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct EndpointPort {
    /// The protocol.
    pub protocol: Protocol,
    /// The port that the contract names.
    pub contract: u16,
    /// The port on which it really listens; differs only where nothing is enforced.
    pub local: u16,
}

/// Health of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// Its checks pass, or it has none.
    Passing,
    /// Not checked yet, or not heard of since this node started.
    Unknown,
    /// Its checks fail.
    Failing,
}

/// A service token's signature that an endpoint is of its service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceProof {
    /// The token.
    pub token: TokenId,
    /// The proof ends then.
    pub not_after_ms: UnixMs,
    /// By the token's key, over [`proof_message`].
    pub signature: Signature,
}

/// What one node saw of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// Of whom.
    pub node: NodeId,
    /// Of which start of it.
    pub incarnation: u64,
    /// What.
    pub seen: Seen,
}

/// What was seen of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Seen {
    /// A workload node that this processor vouches for.
    Vouched,
    /// It answered nothing for a while.
    Silent,
    /// Its host refused the connection, repeatedly: nothing listens there any more.
    Refused,
}

/// A link and what was measured on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkFact {
    /// The other end.
    pub peer: NodeId,
    /// Smoothed round trip, microseconds.
    pub rtt_us: u32,
    /// Lost probes, per thousand.
    pub loss_permille: u16,
}

/// The policy a node enforces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enforced {
    /// Fence epoch.
    pub epoch: Epoch,
    /// Revision.
    pub revision: Revision,
    /// [`crate::policy::PolicyState::intent_hash`] at that revision.
    pub hash: Hash,
}

/// How loaded a node is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// One-minute load average times 100, divided by the number of CPUs.
    pub cpu_percent: u16,
    /// Resident memory of the daemon, MiB.
    pub rss_mib: u32,
}

/// Why a record is dropped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The signature is not the node's.
    #[error("the signature is not of the node that the record names")]
    Signature,
    /// It cannot be decoded, or the body is of another topic.
    #[error("malformed record: {0}")]
    Malformed(String),
    /// A bound is exceeded.
    #[error("{what}: {count} exceeds {limit}")]
    Bound {
        /// Of what there are too many.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// An endpoint with the node that announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Located {
    /// The node.
    pub node: NodeName,
    /// The endpoint.
    pub endpoint: EndpointFact,
}
