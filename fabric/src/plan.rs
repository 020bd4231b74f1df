//! What a node does, computed from policy and view. Overlay, data plane and DNS apply it; packets and
//! queries only read it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    Revision, UnixMs,
    compile::VerdictTables,
    id::{ContractRef, EndpointId, NodeName, ServiceRef, ZoneName},
    key::Hash,
    object::Protocol,
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
    /// What the DNS answers.
    pub zone: Zone,
    /// What people should know.
    pub alarms: Vec<Alarm>,
    /// When the plan must be computed again although nothing happened: a contract ends, a proof ends.
    pub next_deadline_ms: Option<UnixMs>,
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
