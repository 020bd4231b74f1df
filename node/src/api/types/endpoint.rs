//! Endpoints: where services are served and used from.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// An endpoint as this node knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Endpoint {
    /// Its name.
    pub id: String,
    /// The service, `name@domain`.
    pub service: String,
    /// The node it is on.
    pub node: String,
    /// Its overlay addresses.
    pub addresses: Vec<String>,
    /// Where it serves.
    pub ports: Vec<EndpointPort>,
    /// `passing`, `unknown` or `failing`.
    pub health: String,
    /// Its node's zone.
    #[serde(default)]
    pub zone: String,
    /// Relative share of new connections among its equals.
    #[serde(default)]
    pub weight: u16,
    /// Its node's state, for instance `alive`; `unknown` ones are served all the same.
    #[serde(default)]
    pub node_state: String,
    /// End of the proof that it may be of its service.
    #[serde(default)]
    pub expires: Option<String>,
    /// How long ago its node was heard.
    #[serde(default)]
    pub heard_ms_ago: Option<u64>,
}

/// A port that an endpoint serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EndpointPort {
    /// `tcp` or `udp`.
    pub protocol: String,
    /// The port that the contract names.
    pub contract: u16,
    /// The port on which it really listens; differs only where nothing is enforced.
    pub local: u16,
}

/// Registers an endpoint on the node that is asked.
#[derive(Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RegisterRequest {
    /// The service, `name@domain`.
    pub service: String,
    /// The service token: it proves the service. The node uses it in memory and never stores it.
    pub token: String,
    /// Where it serves; empty for a service that only opens flows.
    #[serde(default)]
    pub ports: Vec<EndpointPort>,
    /// The endpoint's name; made by the node when absent. Registering a name again replaces it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The IPv4 address, of the node's block; chosen by the node when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<String>,
    /// Relative share of new connections, 0 to 1000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// How its health is found out; without checks it is passing.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// It ends unless it is registered again within this time; lasts until deregistered when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
}

impl std::fmt::Debug for RegisterRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegisterRequest")
            .field("service", &self.service)
            .field("token", &"<secret>")
            .field("ports", &self.ports)
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

/// A health check that the node runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// What is done.
    #[serde(flatten)]
    pub kind: CheckKind,
    /// How often; 2 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval_ms: Option<u64>,
    /// How long an answer may take; 1 s when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

/// What a check does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum CheckKind {
    /// Connects to a local port; the first registered one when absent.
    Tcp {
        /// The port.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// Asks for a path and expects a status of 200 to 399.
    Http {
        /// The port; the first registered one when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
        /// The path, for instance `/healthz`.
        path: String,
    },
    /// Runs a program and expects exit code 0. Accepted on the local socket only.
    Command {
        /// Program and arguments.
        command: Vec<String>,
    },
}

/// What was registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    /// The endpoint.
    #[serde(flatten)]
    pub endpoint: Endpoint,
    /// What people should know, for instance that a port is in no contract of the service.
    #[serde(default)]
    pub warnings: Vec<String>,
}

/// Attaches a workload to the node that is asked. Local socket only.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AttachRequest {
    /// The endpoint that it becomes.
    pub endpoint: RegisterRequest,
    /// What to attach.
    pub place: AttachPlace,
    /// Leaves its resolv.conf alone.
    #[serde(default)]
    pub keep_resolver: bool,
}

/// What is attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum AttachPlace {
    /// A network namespace, by its file.
    Netns(String),
    /// The network namespace of a process, by its id.
    Pid(u32),
    /// An interface of the host that leads to a workload, a tap or the near end of a veth.
    Interface(String),
    /// A new control group of this host, for processes to enter. Its name is in the reply.
    Group,
}

/// What was attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttachReply {
    /// The attachment.
    #[serde(flatten)]
    pub attachment: Attachment,
    /// Where the workload finds DNS and workload API.
    pub gateways: Vec<String>,
    /// What people should know.
    pub warnings: Vec<String>,
}

/// A workload that is attached to this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Attachment {
    /// Its endpoint.
    pub endpoint: String,
    /// The service, `name@domain`.
    pub service: String,
    /// What was attached.
    pub place: AttachPlace,
    /// The interface on the host by which it is reached.
    pub interface: String,
    /// Its overlay addresses.
    pub addresses: Vec<String>,
    /// Of a process tree, the directory of its control group: whoever writes a process into its
    /// `cgroup.procs` gives it the identity, with all its sockets and children to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
}
