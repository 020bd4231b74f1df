//! The fabric and this node: members, status, quorum, events.

use selvedge_fabric::{Epoch, Revision};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{LostMajority, RecoveryNote};

/// A member as this node sees it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Where it is, `cloud` or `cloud/region`.
    pub zone: String,
    /// `processor` or `workload`.
    pub role: String,
    /// `alive`, `suspect`, `down`, `left`, or `unknown`: not heard of since this node started.
    pub state: String,
    /// Whether it votes.
    pub voter: bool,
    /// Grows with every start of it.
    pub incarnation: u64,
    /// Measured round trip from this node; none when not measured.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// The revision it says it enforces.
    #[serde(default)]
    pub enforced_revision: Option<Revision>,
    /// `active`, `draining` or `revoked`.
    #[serde(default)]
    pub admission: String,
    /// How long ago a fact of it was heard.
    #[serde(default)]
    pub heard_ms_ago: Option<u64>,
    /// Two live holders of its key were seen: none of its facts are used.
    #[serde(default)]
    pub quarantined: bool,
    /// How many endpoints it announces.
    #[serde(default)]
    pub endpoints: usize,
    /// Where it is reached on the fabric port.
    #[serde(default)]
    pub addresses: Vec<String>,
    /// Where its API is reached over TLS.
    #[serde(default)]
    pub api: Vec<String>,
    /// Load per CPU, per cent.
    #[serde(default)]
    pub cpu_percent: Option<u16>,
    /// Version of the program.
    #[serde(default)]
    pub software: Option<String>,
}

/// A link of the overlay.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Link {
    /// The node at the other end.
    pub peer: String,
    /// `up`, `probing` (connected, not answering) or `down`.
    pub state: String,
    /// Smoothed round trip; none before it was measured.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// Part of the newest probes that was lost, 0 to 1.
    pub loss: f64,
    /// Bytes sent in datagrams.
    pub tx_bytes: u64,
    /// Bytes received in datagrams.
    pub rx_bytes: u64,
    /// Largest datagram that the path carries now.
    #[serde(default)]
    pub max_datagram_bytes: Option<usize>,
}

/// The way to a node over the overlay, where no contract constrains it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Route {
    /// Where to.
    pub node: String,
    /// The neighbour that packets are handed to; none when there is no way.
    #[serde(default)]
    pub next_hop: Option<String>,
    /// Every node on the way, both ends included.
    pub path: Vec<String>,
    /// The node's own overlay addresses.
    #[serde(default)]
    pub addresses: Vec<String>,
}

/// Health of the fabric and of this node, as seen from here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// This node serves: it has a policy and a plan, and its servers listen.
    pub ready: bool,
    /// Newest revision known here.
    pub revision: Revision,
    /// Revision enforced here.
    pub enforced_revision: Revision,
    /// The zones.
    pub zones: Vec<ZoneHealth>,
    /// What people should know.
    pub alarms: Vec<Alarm>,
    /// The fabric's name.
    pub fabric: String,
    /// This node's name.
    pub node: String,
    /// This node's zone.
    pub zone: String,
    /// `processor` or `workload`.
    pub role: String,
    /// DNS suffix.
    pub suffix: String,
    /// Version of the program.
    pub version: String,
    /// How long the daemon runs.
    pub uptime_ms: u64,
    /// Whether writes are accepted, as known here.
    pub quorum: bool,
    /// The leader, when known.
    #[serde(default)]
    pub leader: Option<String>,
    /// This node sees nobody although others are admitted.
    #[serde(default)]
    pub isolated: bool,
    /// How many endpoints there are, and how many of them pass their checks.
    #[serde(default)]
    pub endpoints: Counts,
    /// Age of the oldest fact that is still served about a node not known to be down; none when all are
    /// fresh.
    #[serde(default)]
    pub oldest_fact_ms: Option<u64>,
    /// Nodes whose facts come from disk and were not confirmed since this node started.
    #[serde(default)]
    pub stale_nodes: Vec<String>,
    /// End of this node's certificate.
    #[serde(default)]
    pub certificate_expires: Option<String>,
    /// The tasks of this node's daemon.
    #[serde(default)]
    pub tasks: Vec<TaskHealth>,
    /// Addresses on which this node listens, by purpose: `gossip`, `fabric`, `api`, `dns`, `workload`.
    #[serde(default)]
    pub listening: std::collections::BTreeMap<String, Vec<String>>,
}

/// A task of the daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TaskHealth {
    /// What it does.
    pub name: String,
    /// `running`, `stalled` (its loop does not turn), `restarting`, `ended`, or `lost`: then the daemon ends.
    pub state: String,
    /// How often it was started again after it failed.
    pub restarts: u32,
    /// How long ago its loop turned, of those that tell.
    #[serde(default)]
    pub turned_ms_ago: Option<u64>,
}

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counts {
    /// In good state.
    pub up: usize,
    /// In all.
    pub total: usize,
}

/// Health of a zone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ZoneHealth {
    /// Its name.
    pub name: String,
    /// How it is.
    pub state: ZoneState,
    /// Its processors.
    pub processors: Counts,
    /// Its workload nodes.
    pub workloads: Counts,
    /// Its endpoints.
    pub endpoints: Counts,
    /// Smallest measured round trip to it from this node.
    #[serde(default)]
    pub rtt_ms: Option<f64>,
    /// How long ago the newest fact from it was heard.
    #[serde(default)]
    pub heard_ms_ago: Option<u64>,
}

/// How a zone is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum ZoneState {
    /// Every node lives.
    Up,
    /// Some node does not.
    Degraded,
    /// Nearly all its processors are gone.
    Down,
    /// Nothing heard of it since this node started.
    Unknown,
}

/// Something people should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// A stable word for scripts.
    pub code: String,
    /// What is the matter, and what to do.
    pub message: String,
}

/// Leader, voters, and what the placement survives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct QuorumReport {
    /// The leader, when known.
    pub leader: Option<String>,
    /// The term.
    pub term: u64,
    /// Who votes.
    pub voters: Vec<Replica>,
    /// Who follows.
    pub learners: Vec<Replica>,
    /// What the placement survives, for instance `any one of aws, azr, gcp`.
    pub survives: Vec<String>,
    /// Fence epoch.
    pub fence_epoch: Epoch,
    /// Whether a majority of the voters is known to live.
    pub quorum: bool,
    /// What is wrong with the placement, and what to do.
    #[serde(default)]
    pub warning: Option<String>,
    /// Index of the newest log entry here.
    #[serde(default)]
    pub last_index: u64,
    /// A majority of the voters is not heard of from here.
    #[serde(default)]
    pub lost_majority: Option<LostMajority>,
    /// The recovery that began the present fence epoch.
    #[serde(default)]
    pub recovery: Option<RecoveryNote>,
    /// Changes that recoveries left behind on this node; `selvedge quorum lost` lists those of all nodes.
    #[serde(default)]
    pub lost_entries: usize,
}

/// A replica of the log.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Replica {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// Whether it lives, as seen from here.
    pub live: bool,
}

/// What an administrator can make of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// In service.
    Active,
    /// Keeps running; its endpoints are answered last, it is no voter.
    Draining,
    /// Refused everywhere, at once.
    Revoked,
}

/// Asks for another state of a node.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeStateRequest {
    /// The state.
    pub state: NodeState,
}

/// What there is to sign for the emergency revocation of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevocationDraft {
    /// The fabric's random id, base64url.
    pub fabric_id: String,
    /// Fence epoch.
    pub fence_epoch: Epoch,
    /// The node.
    pub node: String,
    /// Its public key, base64url.
    pub key: String,
    /// Public half of the recovery key that has to sign, base64url.
    pub recovery_key: String,
}

/// An emergency revocation, signed by the recovery key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RevocationStatement {
    /// The fabric's random id, base64url.
    pub fabric_id: String,
    /// Fence epoch.
    pub fence_epoch: Epoch,
    /// The node.
    pub node: String,
    /// The public key that is refused from now on, base64url.
    pub key: String,
    /// When it was signed, milliseconds since 1970.
    pub at_ms: u64,
    /// The recovery key's signature over `selvedge-revocation-v1`, fabric id, fence epoch and time (both
    /// 64 bits, big endian), key, and name; base64url.
    pub signature: String,
}

/// What came of an emergency revocation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RevocationReply {
    /// The node.
    pub node: String,
    /// The policy says so already.
    pub agreed: bool,
    /// Whether there is a quorum, which makes policy of it.
    pub quorum: bool,
}

/// Something that happened on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventItem {
    /// Its number; grows by one, starts anew with the daemon.
    pub sequence: u64,
    /// When.
    pub time: String,
    /// `info`, `warning` or `security`.
    pub severity: String,
    /// A stable word for scripts.
    pub code: String,
    /// Who or what it is about.
    pub subject: String,
    /// What happened, and what to do.
    pub message: String,
}

/// Whether the node serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Readiness {
    /// It does.
    pub ready: bool,
    /// What is not there yet.
    pub waiting_for: Vec<String>,
}

/// This node, in a few words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Me {
    /// The fabric's name.
    pub fabric: String,
    /// Its name.
    pub node: String,
    /// Its zone.
    pub zone: String,
    /// `processor` or `workload`.
    pub role: String,
    /// DNS suffix.
    pub suffix: String,
    /// Version of the program.
    pub version: String,
    /// Who asks, as the node sees it: `local:<uid>` or the token's name.
    pub caller: String,
}
