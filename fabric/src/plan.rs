//! What a node does, computed from policy and view. Overlay, data plane and DNS apply it; packets and
//! queries only read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    Revision, UnixMs,
    command::Role,
    compile::VerdictTables,
    id::{ContractRef, EndpointId, NodeName, ServiceRef, ZoneName},
    key::{Hash, NodeId, PublicKey},
    object::{PathSpec, Protocol},
    record::Health,
};

/// Everything this node does, at one revision of intent and one generation of facts.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The revision of intent.
    pub revision: Revision,
    /// [`crate::policy::PolicyState::intent_hash`] of it.
    pub hash: Hash,
    /// The generation of the view.
    pub generation: u64,
    /// When it was computed.
    pub at_ms: UnixMs,
    /// Who may talk to whom.
    pub verdicts: Arc<VerdictTables>,
    /// Addresses of endpoints and the services behind them.
    pub identities: BTreeMap<IpAddr, Bound>,
    /// Networks outside the fabric, with their prefix lengths, and the externals behind them. The longest
    /// prefix counts; addresses of the fabric's own ranges are never theirs.
    pub networks: BTreeMap<(IpAddr, u8), selvedge_abi::Identity>,
    /// How packets reach other nodes.
    pub routing: Arc<Routing>,
    /// What the DNS answers.
    pub zone: Zone,
    /// What people should know.
    pub alarms: Vec<Alarm>,
    /// Whether all of the revision is in it. A node that cannot carry some object out leaves it out.
    pub whole: bool,
    /// When the plan must be computed again although nothing happened: a contract ends, a proof ends.
    pub next_deadline_ms: Option<UnixMs>,
}

/// How packets reach other nodes, and what the router judges them by: the half of the plan that the
/// overlay applies.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Routing {
    /// The revision of intent.
    pub revision: Revision,
    /// This node; `None` while it is not admitted, which forwards nothing.
    pub me: Option<NodeId>,
    /// Every admitted node that is not revoked.
    pub nodes: BTreeMap<NodeId, RouteNode>,
    /// Whose an overlay address is.
    pub owners: BTreeMap<IpAddr, Owner>,
    /// Links between other nodes, as they measure them: by (who measures, the other end).
    pub measured: BTreeMap<(NodeId, NodeId), LinkQuality>,
    /// Declared links, the lower id first. `None`: there is none, links between processors are automatic.
    pub declared: Option<BTreeMap<(NodeId, NodeId), DeclaredLink>>,
    /// Constraints on the paths of contracts that have some.
    pub paths: BTreeMap<ContractRef, PathSpec>,
    /// Zones whose processors do not carry a contract's packets for others.
    pub refusals: BTreeMap<ContractRef, Vec<ZoneName>>,
    /// Who may talk to whom.
    pub verdicts: Arc<VerdictTables>,
}

/// A node as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteNode {
    /// Its name.
    pub name: NodeName,
    /// Whether it may carry packets for others.
    pub role: Role,
    /// Where it is.
    pub zone: ZoneName,
    /// X25519 key under which packets for it are sealed.
    pub sealing_key: PublicKey,
    /// Whether nothing speaks against it; a node that is down carries nothing.
    pub up: bool,
    /// The revision it says it enforces.
    pub revision: Option<Revision>,
    /// Its own addresses.
    pub addresses: Addresses,
}

/// Whose an overlay address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The node.
    pub node: NodeId,
    /// The service behind it; `None` for the node's own address.
    pub identity: Option<selvedge_abi::Identity>,
}

/// What was measured on a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkQuality {
    /// Smoothed round trip, microseconds.
    pub rtt_us: u32,
    /// Lost probes, per thousand.
    pub loss_permille: u16,
}

/// What intent says of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeclaredLink {
    /// Routing cost; lower is preferred.
    pub cost: u16,
    /// Administrative state.
    pub enabled: bool,
}

/// Who is behind an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// The service.
    pub service: ServiceRef,
    /// Its number in the verdict tables.
    pub identity: selvedge_abi::Identity,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The node it is on.
    pub node: NodeName,
}

/// What the DNS answers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Zone {
    /// The suffix, lower case, without a trailing dot.
    pub suffix: String,
    /// SOA serial.
    pub serial: u32,
    /// The name of this node, for the SOA and NS records.
    pub me: Option<NodeName>,
    /// `<contract>.<domain>.<suffix>`. A contract without endpoints is here with none: its name exists.
    pub contracts: BTreeMap<ContractRef, Vec<Target>>,
    /// `<endpoint>.ep.<suffix>`.
    pub endpoints: BTreeMap<EndpointId, Addresses>,
    /// `<node>.node.<suffix>`.
    pub nodes: BTreeMap<NodeName, Addresses>,
    /// The fabric's address ranges with their prefix lengths: the ULA prefix and `ipv4Pool`. Reverse names
    /// within them are answered from here alone and never forwarded.
    pub ranges: Vec<(IpAddr, u8)>,
    /// Which contracts each service may reach, and so may resolve.
    pub reach: BTreeMap<ServiceRef, BTreeSet<ContractRef>>,
    /// Which service asks from which address: endpoints attached to this node.
    pub askers: BTreeMap<IpAddr, ServiceRef>,
}

/// One endpoint that serves a contract, best first within its contract: healthy, then near.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// The service.
    pub service: ServiceRef,
    /// Its node.
    pub node: NodeName,
    /// The zone of its node.
    pub zone: Option<ZoneName>,
    /// When its node was last heard of, if not since this node started; `None` while the fact is fresh, so
    /// that a heartbeat does not change the plan.
    pub stale_since_ms: Option<UnixMs>,
    /// Its health. Failing ones are answered only when no other is left.
    pub health: Health,
    /// SRV priority: equal for equally near endpoints, lower is nearer.
    pub priority: u16,
    /// SRV weight.
    pub weight: u16,
    /// Ports of this contract it serves: protocol and the port on which it really listens.
    pub ports: Vec<(Protocol, u16)>,
    /// Its addresses.
    pub addresses: Addresses,
}

/// The overlay addresses of a node or endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub ipv4: Option<Ipv4Addr>,
    /// IPv6; only where there is a TUN.
    pub ipv6: Option<Ipv6Addr>,
}

/// Something people should know, shown by `status`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Alarm {
    /// A stable word for scripts: `isolated`, `cloud-down`, `stale-facts`, `quarantine`, …
    pub code: &'static str,
    /// What is the matter, and what to do.
    pub message: String,
}
