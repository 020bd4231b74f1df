//! The workload API.

use selvedge_fabric::Revision;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::EndpointPort;

/// Who serves a contract that the caller may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DiscoverReply {
    /// The contract, `name@domain`.
    pub contract: String,
    /// Its DNS name.
    pub name: String,
    /// Revision of the plan that answered.
    pub revision: Revision,
    /// Best first.
    pub endpoints: Vec<Discovered>,
}

/// An endpoint that serves a contract.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Discovered {
    /// Its name.
    pub id: String,
    /// Its service, `name@domain`.
    pub service: String,
    /// Its node.
    pub node: String,
    /// Its addresses.
    pub addresses: Vec<String>,
    /// The ports of this contract that it serves.
    pub ports: Vec<EndpointPort>,
    /// `passing`, `unknown` or `failing`.
    pub health: String,
    /// Lower is nearer.
    pub priority: u16,
    /// Share among its equals.
    pub weight: u16,
}

/// Counters of the caller's service on this node since the daemon started.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[expect(missing_docs, reason = "the names say it")]
pub struct ServiceStat {
    /// The service, `name@domain`.
    pub name: String,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub pkts_in: u64,
    pub pkts_out: u64,
    pub drops_in: u64,
    pub drops_out: u64,
}

/// The caller as the fabric knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SelfReply {
    /// Its endpoint.
    pub endpoint: super::Endpoint,
    /// Its node.
    pub node: String,
    /// DNS suffix.
    pub suffix: String,
    /// Contracts it may reach, as `name@domain`.
    pub reaches: Vec<String>,
    /// Contracts it serves, as `name@domain`.
    pub serves: Vec<String>,
    /// Revision enforced on its node.
    pub revision: Revision,
}
