//! Signed facts. Each node owns its records; the newest wins, so merging is commutative, associative
//! and idempotent.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    Epoch, Revision, UnixMs,
    cga::CgaParams,
    id::{EndpointId, NodeName, ServiceRef},
    key::{FabricId, Hash, NodeId, PublicKey, Signature, Signer, TokenId},
    object::Protocol,
};

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

/// Upper bound of an encoded record less its body: key, topic, three numbers, nonce, signature, and
/// the lengths of what has one.
const MAX_ENVELOPE_BYTES: usize = 33 + 1 + 3 * 10 + 10 + 65 + 3;

/// Set apart what node keys and token keys sign from everything else they sign.
const RECORD_CONTEXT: &[u8] = b"selvedge-record-v1";
const PROOF_CONTEXT: &[u8] = b"selvedge-service-proof-v1";

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

/// What a service token vouches for: that this endpoint of this node is of this service.
///
/// The proof names the node's key and the parameters of the endpoint's address, so it is worthless on
/// any other node, for another endpoint, and, by way of the CGA, at another address of the node. The
/// token's scope is not in it: that is intent, and every receiver holds it against the node's zone.
#[derive(Debug, Clone, Copy)]
pub struct ProofClaim<'a> {
    /// The fabric.
    pub fabric: &'a FabricId,
    /// The service.
    pub service: &'a ServiceRef,
    /// The node's key.
    pub node: &'a PublicKey,
    /// The endpoint.
    pub endpoint: &'a EndpointId,
    /// Parameters of the endpoint's address.
    pub cga: &'a CgaParams,
    /// When the proof ends.
    pub not_after_ms: UnixMs,
}

impl ProofClaim<'_> {
    /// The bytes that are signed. Names are preceded by their lengths and everything else is of fixed
    /// size, so no two claims have the same bytes.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut message = PROOF_CONTEXT.to_vec();
        message.extend_from_slice(&self.fabric.0);
        message.extend_from_slice(&self.node.0);
        message.extend_from_slice(&self.not_after_ms.to_be_bytes());
        message.extend_from_slice(&self.cga.modifier);
        message.push(self.cga.collision_count);
        for name in [&self.service.name, &self.service.domain, self.endpoint] {
            message.push(name.as_str().len() as u8); // A name has at most 63 bytes.
            message.extend_from_slice(name.as_str().as_bytes());
        }
        message
    }

    /// Signs the claim with a service token's key.
    #[must_use]
    pub fn sign(&self, token: TokenId, signer: &dyn Signer) -> ServiceProof {
        ServiceProof { token, not_after_ms: self.not_after_ms, signature: signer.sign(&self.message()) }
    }
}

/// The message that a service token signs to prove that an endpoint of `node` is of `service`.
#[must_use]
pub fn proof_message(
    fabric: &FabricId,
    service: &ServiceRef,
    node: &PublicKey,
    endpoint: &EndpointId,
    cga: &CgaParams,
    not_after_ms: UnixMs,
) -> Vec<u8> {
    ProofClaim { fabric, service, node, endpoint, cga, not_after_ms }.message()
}

impl Topic {
    /// Its number in signed bytes; never changes.
    const fn code(self) -> u8 {
        match self {
            Self::Presence => 0,
            Self::Endpoints => 1,
            Self::Observations => 2,
            Self::Links => 3,
            Self::Enforced => 4,
            Self::Load => 5,
        }
    }
}

impl Body {
    /// The topic it belongs to.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Presence(_) => Topic::Presence,
            Self::Endpoints(_) => Topic::Endpoints,
            Self::Observations(_) => Topic::Observations,
            Self::Links(_) => Topic::Links,
            Self::Enforced(_) => Topic::Enforced,
            Self::Load(_) => Topic::Load,
        }
    }

    /// Checks every bound. Receivers do so too: a genuine signature makes a node no less buggy.
    fn check(&self) -> Result<(), RecordError> {
        match self {
            Self::Presence(presence) => {
                bound("fabric addresses", presence.addresses.len(), MAX_ADDRESSES)?;
                bound("gossip addresses", presence.gossip.len(), MAX_ADDRESSES)?;
                bound("API addresses", presence.api.len(), MAX_ADDRESSES)?;
                bound("bytes of software version", presence.software.len(), MAX_SOFTWARE_BYTES)
            }
            Self::Endpoints(endpoints) => check_endpoints(endpoints),
            Self::Observations(seen) => bound("observations", seen.len(), MAX_OBSERVATIONS),
            Self::Links(links) => bound("links", links.len(), MAX_LINKS),
            Self::Enforced(_) | Self::Load(_) => Ok(()),
        }
    }
}

fn check_endpoints(endpoints: &[EndpointFact]) -> Result<(), RecordError> {
    bound("endpoints", endpoints.len(), MAX_ENDPOINTS)?;
    let mut ids = BTreeSet::new();
    for endpoint in endpoints {
        bound("ports of an endpoint", endpoint.ports.len(), MAX_ENDPOINT_PORTS)?;
        bound("weight of an endpoint", usize::from(endpoint.weight), usize::from(MAX_WEIGHT))?;
        if !ids.insert(&endpoint.id) {
            return Err(RecordError::Malformed(format!("endpoint {} is there twice", endpoint.id)));
        }
    }
    Ok(())
}

const fn bound(what: &'static str, count: usize, limit: usize) -> Result<(), RecordError> {
    if count > limit { Err(RecordError::Bound { what, count, limit }) } else { Ok(()) }
}

impl Record {
    /// Encodes and signs a body.
    ///
    /// # Errors
    /// When the body exceeds its bounds.
    pub fn sign(
        fabric: &FabricId,
        signer: &dyn Signer,
        version: Version,
        boot_nonce: u64,
        body: &Body,
    ) -> Result<Self, RecordError> {
        body.check()?;
        let mut record = Self {
            node: signer.public_key(),
            topic: body.topic(),
            version,
            boot_nonce,
            body: postcard::to_stdvec(body).map_err(malformed)?,
            signature: Signature([0; 64]),
        };
        record.check_size()?;
        record.signature = signer.sign(&record.signed_bytes(fabric));
        Ok(record)
    }

    /// Checks signature and bounds and decodes the body. Says nothing on whether the node is admitted;
    /// [`crate::view`] decides on that.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn open(&self, fabric: &FabricId) -> Result<Body, RecordError> {
        self.check_size()?;
        if !self.node.verifies(&self.signed_bytes(fabric), &self.signature) {
            return Err(RecordError::Signature);
        }
        let body: Body = decode_all(&self.body)?;
        if body.topic() != self.topic {
            return Err(RecordError::Malformed(format!(
                "a body on {:?} under the topic {:?}",
                body.topic(),
                self.topic
            )));
        }
        body.check()?;
        Ok(body)
    }

    /// The form in which a record is carried and stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default() // Cannot fail: it is bytes and integers only.
    }

    /// Reads what [`Record::encode`] wrote. Signature and body are not looked at yet.
    ///
    /// # Errors
    /// When the bytes are too many or no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        bound("bytes of a record", bytes.len(), MAX_RECORD_BYTES)?;
        decode_all(bytes)
    }

    fn check_size(&self) -> Result<(), RecordError> {
        bound("bytes of a record", self.body.len().saturating_add(MAX_ENVELOPE_BYTES), MAX_RECORD_BYTES)
    }

    /// Everything but the body has a fixed size, and the body comes last, so no two records have the
    /// same bytes.
    fn signed_bytes(&self, fabric: &FabricId) -> Vec<u8> {
        let mut message = RECORD_CONTEXT.to_vec();
        message.extend_from_slice(&fabric.0);
        message.extend_from_slice(&self.node.0);
        message.push(self.topic.code());
        let Version { epoch, incarnation, sequence } = self.version;
        for number in [epoch, incarnation, sequence, self.boot_nonce] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&self.body);
        message
    }
}

/// Bytes after the value would be a second meaning of the same record: refused.
fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match postcard::take_from_bytes(bytes).map_err(malformed)? {
        (value, []) => Ok(value),
        (_, rest) => Err(RecordError::Malformed(format!("{} bytes too many", rest.len()))),
    }
}

fn malformed(error: postcard::Error) -> RecordError {
    RecordError::Malformed(error.to_string())
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
