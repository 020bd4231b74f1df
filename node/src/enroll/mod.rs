//! How a node enters the fabric, and how its certificate is renewed.
//!
//! A joining node has a token and nothing else. It reaches a seed by the join protocol, checks that
//! the seed's certificate ends in the root that the token pins, and sends a signing request for a key
//! it has just made. The seed checks the token, has the admission agreed by Raft, so that a use count
//! is exact, and answers with a certificate and what is needed to find everybody else.

pub mod answer;
pub mod client;
#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile;
pub mod server;

use std::net::SocketAddr;

use selvedge_fabric::{
    Epoch,
    command::Role,
    id::{NodeName, ZoneName},
    key::{FabricId, PublicKey, TokenId},
    policy::FabricParams,
    statement::VoterSet,
};
use serde::{Deserialize, Serialize};

use crate::{files::base64_bytes, identity::Contact};

/// Version of the join protocol.
pub const JOIN_VERSION: u32 = 1;

/// A refusal that starts with this concerns the seed, not the joining node: another seed may admit it.
pub const TRY_ANOTHER: &str = "try another:";

/// What a joining node sends.
#[derive(Serialize, Deserialize)]
pub struct JoinRequest {
    /// [`JOIN_VERSION`].
    pub version: u32,
    /// The fabric the token is of.
    pub fabric: FabricId,
    /// The token's id.
    pub token: TokenId,
    /// The token's secret. The connection is encrypted and the server is the pinned fabric's.
    #[serde(with = "base64_bytes")]
    pub secret: Vec<u8>,
    /// The name it wants.
    pub name: NodeName,
    /// The role it wants.
    pub role: Role,
    /// The zone it is in.
    pub zone: ZoneName,
    /// PKCS #10 request, DER: proves that it holds the private key.
    #[serde(with = "base64_bytes")]
    pub csr: Vec<u8>,
    /// Where secrets for it are sealed to.
    pub sealing_key: PublicKey,
    /// Where its fabric port is reached.
    pub addresses: Vec<SocketAddr>,
}

/// What the seed answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct JoinReply {
    /// The fabric.
    pub params: FabricParams,
    /// Fence epoch.
    pub epoch: Epoch,
    /// The voters of this moment: from them the new node verifies policy.
    pub voters: VoterSet,
    /// The node's certificate, DER.
    #[serde(with = "base64_bytes")]
    pub certificate: Vec<u8>,
    /// Processors to talk to.
    pub contacts: Vec<Contact>,
}

/// What a node sends to have its certificate renewed.
#[derive(Debug, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PKCS #10 request, DER, for the key it is admitted under.
    #[serde(with = "base64_bytes")]
    pub csr: Vec<u8>,
}

/// The renewed certificate.
#[derive(Debug, Serialize, Deserialize)]
pub struct RenewReply {
    /// DER.
    #[serde(with = "base64_bytes")]
    pub certificate: Vec<u8>,
}
