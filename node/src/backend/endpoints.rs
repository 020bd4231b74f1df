//! Endpoints, and what workloads ask about themselves.

use std::net::IpAddr;

use selvedge_fabric::{
    id::{ContractRef, EndpointId, NodeName, ServiceRef},
    object::{PortRange, Protocol, Selector},
    plan::Target,
    query,
    record::{EndpointFact, EndpointPort, Health},
    token::ServiceTokenText,
    view::{Liveness, NodeView, View},
};

use super::{Node, Result};
use crate::{
    api::{ApiError, Caller, Code, rights, types},
    clock,
    endpoints::{RegisterError, Registration, check::Check},
};

/// SRV weight of an endpoint that names none.
const DEFAULT_WEIGHT: u16 = 100;
/// Largest SRV weight.
const MAX_WEIGHT: u16 = 1_000;

impl Node {
    pub(super) fn list_endpoints(&self) -> Vec<types::Endpoint> {
        let (policy, view) = (self.policy(), self.view());
        let nodes = policy.nodes.iter().filter_map(|(name, a)| Some((name, a, view.nodes.get(name)?)));
        let all = nodes.flat_map(|(name, admission, seen)| {
            let zone = admission.zone.to_string();
            let place = self.place(name, zone, seen);
            seen.endpoints.values().map(move |e| endpoint(&place, e))
        });
        let mut all: Vec<_> = all.collect();
        all.sort_by(|a, b| (&a.service, &a.node, &a.id).cmp(&(&b.service, &b.node, &b.id)));
        all
    }

    fn place(&self, node: &NodeName, zone: String, seen: &NodeView) -> Place {
        let me = *node == self.identity.node;
        let age = seen.heard_ms.map(|at| clock::unix_ms().saturating_sub(at));
        let state = if me { Liveness::Alive } else { seen.state };
        Place { node: node.clone(), zone, state, heard_ms_ago: if me { Some(0) } else { age } }
    }

    pub(super) async fn register_endpoint(
        &self,
        caller: &Caller,
        request: types::RegisterRequest,
    ) -> Result<types::Registered> {
        let registration = parse_registration(caller, &request)?;
        let me = &self.identity.node;
        let now = clock::unix_ms();
        let mut outcome = self.endpoints.register(&registration, &self.policy(), me, now);
        if matches!(outcome, Err(RegisterError::Refused(_))) {
            // The token may have been made a moment ago on another node. Without a quorum the policy
            // here is the newest there is, and the refusal stands.
            let fresh = self.source.barrier(std::time::Duration::from_secs(2)).await;
            if fresh.is_ok() {
                outcome = self.endpoints.register(&registration, &self.policy(), me, now);
            }
        }
        let registered = outcome.map_err(|e| register_error(&e))?;
        let place = Place {
            node: me.clone(),
            zone: self.identity.zone.to_string(),
            state: Liveness::Alive,
            heard_ms_ago: Some(0),
        };
        let endpoint = endpoint(&place, &registered.fact);
        Ok(types::Registered { endpoint, warnings: self.warnings(&registration) })
    }

    /// What is allowed and still probably a mistake: a port on which nobody may reach the service.
    pub(super) fn warnings(&self, registration: &Registration) -> Vec<String> {
        let policy = self.policy();
        let service = &registration.service;
        let to = Selector::Service(service.clone());
        let reachable = query::reach(&policy, clock::unix_ms(), None, Some(&to)).unwrap_or_default();
        let ranges: Vec<PortRange> = reachable.iter().filter_map(|row| row.port.parse().ok()).collect();
        let unreachable = registration.ports.iter().filter(|port| {
            let wanted = PortRange { protocol: port.protocol, low: port.contract, high: port.contract };
            !ranges.iter().any(|range| range.covers(&wanted))
        });
        let warning = |port: &EndpointPort| {
            let (protocol, number, revision) = (port.protocol, port.contract, policy.revision);
            format!("no contract lets anybody reach {service} on {protocol}/{number} at revision {revision}")
        };
        unreachable.map(warning).collect()
    }

    pub(super) async fn deregister_endpoint(&self, caller: &Caller, id: &str) -> Result<()> {
        let id = id.parse::<EndpointId>().map_err(|e| ApiError::bad_request(e.to_string()))?;
        let unknown = || {
            ApiError::not_found(format!("endpoint {id} is not registered on this node"))
                .remedy("`selvedge endpoint list` names the node of each endpoint")
        };
        let facts = self.endpoints.facts().borrow().clone();
        let fact = facts.iter().find(|fact| fact.id == id).ok_or_else(unknown)?;
        rights::require_domain(caller, &self.policy(), &fact.service.domain)?;
        if self.attachments.is_attached(&id).await {
            return self.detach_workload(caller, id.as_str()).await;
        }
        match self.endpoints.deregister(&id) {
            Ok(true) => Ok(()),
            Ok(false) => Err(unknown()),
            Err(error) => Err(ApiError::internal(error.to_string())),
        }
    }

    pub(super) fn find_attached(&self, source: IpAddr) -> Option<Caller> {
        let plan = self.plan();
        let bound = plan.identities.get(&source).filter(|b| b.node == self.identity.node)?;
        Some(Caller::Endpoint { endpoint: bound.endpoint.clone(), service: bound.service.clone() })
    }

    pub(super) fn discover_contract(
        &self,
        caller: &Caller,
        contract: &ContractRef,
    ) -> Result<types::DiscoverReply> {
        let plan = self.plan();
        let hidden = || ApiError::not_found(format!("there is no contract {contract} that you may reach"));
        if let Caller::Endpoint { service, .. } = caller
            && !plan.zone.reach.get(service).is_some_and(|r| r.contains(contract))
        {
            return Err(hidden());
        }
        let targets = plan.zone.contracts.get(contract).ok_or_else(hidden)?;
        let view = self.view();
        let endpoints = targets.iter().map(|t| types::Discovered {
            id: t.endpoint.to_string(),
            service: t.service.to_string(),
            node: t.node.to_string(),
            addresses: [t.addresses.ipv4.map(IpAddr::from), t.addresses.ipv6.map(IpAddr::from)]
                .into_iter()
                .flatten()
                .map(|a| a.to_string())
                .collect(),
            ports: t
                .ports
                .iter()
                .map(|(protocol, local)| types::EndpointPort {
                    protocol: protocol.to_string(),
                    contract: contract_port(&view, t, *protocol, *local),
                    local: *local,
                })
                .collect(),
            health: health_word(t.health).to_owned(),
            priority: t.priority,
            weight: t.weight,
        });
        Ok(types::DiscoverReply {
            contract: contract.to_string(),
            name: format!("{}.{}.{}", contract.name, contract.domain, plan.zone.suffix),
            revision: plan.revision,
            endpoints: endpoints.collect(),
        })
    }

    pub(super) async fn caller_counters(&self, caller: &Caller) -> Result<types::ServiceStat> {
        let (_, service) = own_endpoint(caller)?;
        // Packets are not counted without a data plane on this node: zeros would be a lie.
        let uncounted = |e| {
            let detail = format!("the packets of {service} are not counted: {e}");
            ApiError::new(Code::Unavailable, detail)
        };
        let counters = self.packets.counters().await.map_err(uncounted)?;
        let identity = self.plan().verdicts.identity(service);
        let mut stat = types::ServiceStat { name: service.to_string(), ..types::ServiceStat::default() };
        for traffic in counters.endpoints.iter().filter(|t| Some(t.attached.workload.identity) == identity) {
            let counted = traffic.counters;
            stat.bytes_in += counted.arriving_bytes;
            stat.bytes_out += counted.leaving_bytes;
            stat.pkts_in += counted.arriving_packets;
            stat.pkts_out += counted.leaving_packets;
            stat.drops_in += counted.arriving_refused;
            stat.drops_out += counted.leaving_refused;
        }
        Ok(stat)
    }

    pub(super) fn describe_caller(&self, caller: &Caller) -> Result<types::SelfReply> {
        let (id, service) = own_endpoint(caller)?;
        let plan = self.plan();
        let all = self.list_endpoints();
        let endpoint = all.into_iter().find(|e| e.id == id.as_str());
        let reaches = plan.zone.reach.get(service).into_iter().flatten().map(ToString::to_string);
        let serves = plan.zone.contracts.iter().filter(|(_, t)| t.iter().any(|t| t.endpoint == *id));
        Ok(types::SelfReply {
            endpoint: endpoint.ok_or_else(|| ApiError::not_found(format!("endpoint {id} is gone")))?,
            node: self.identity.node.to_string(),
            suffix: plan.zone.suffix.clone(),
            reaches: reaches.collect(),
            serves: serves.map(|(contract, _)| contract.to_string()).collect(),
            revision: plan.revision,
        })
    }
}

/// The port that the contract names for one on which an endpoint really listens. The plan knows only the
/// latter; the two differ where nothing is enforced.
fn contract_port(view: &View, target: &Target, protocol: Protocol, local: u16) -> u16 {
    let fact = view.nodes.get(&target.node).and_then(|n| n.endpoints.get(&target.endpoint));
    let ports = fact.map(|f| f.ports.as_slice()).unwrap_or_default();
    let port = ports.iter().find(|p| p.protocol == protocol && p.local == local);
    port.map_or(local, |p| p.contract)
}

/// Where endpoints are, and how that place is.
struct Place {
    node: NodeName,
    zone: String,
    state: Liveness,
    heard_ms_ago: Option<u64>,
}

fn endpoint(place: &Place, fact: &EndpointFact) -> types::Endpoint {
    types::Endpoint {
        id: fact.id.to_string(),
        service: fact.service.to_string(),
        node: place.node.to_string(),
        addresses: addresses(fact),
        ports: fact.ports.iter().map(port).collect(),
        health: health_word(fact.health).to_owned(),
        zone: place.zone.clone(),
        weight: fact.weight,
        node_state: place.state.to_string(),
        expires: Some(types::rfc3339(fact.proof.not_after_ms)),
        heard_ms_ago: place.heard_ms_ago,
    }
}

fn own_endpoint(caller: &Caller) -> Result<(&EndpointId, &ServiceRef)> {
    match caller {
        Caller::Endpoint { endpoint, service } => Ok((endpoint, service)),
        Caller::Local { .. } | Caller::Token { .. } => {
            Err(ApiError::forbidden("only an endpoint of this node may ask about itself"))
        }
    }
}

pub(super) fn parse_registration(caller: &Caller, request: &types::RegisterRequest) -> Result<Registration> {
    let bad = |field: &str, why: String| ApiError::bad_request(format!("{field}: {why}"));
    let ports: Vec<_> = request.ports.iter().map(parse_port).collect::<Result<_>>()?;
    let runs_commands = request.checks.iter().any(|c| matches!(c.kind, types::CheckKind::Command { .. }));
    if runs_commands && !matches!(caller, Caller::Local { .. }) {
        return Err(ApiError::forbidden("command checks may be registered on the local socket only"));
    }
    let default_port = ports.first().map(|p| p.local);
    let checks = request.checks.iter().map(|c| Check::from_api(c, default_port));
    let weight = request.weight.unwrap_or(DEFAULT_WEIGHT);
    if weight > MAX_WEIGHT {
        return Err(bad("weight", format!("must be 0 to {MAX_WEIGHT}")));
    }
    Ok(Registration {
        service: request.service.parse().map_err(|e| bad("service", format!("{e}")))?,
        token: ServiceTokenText::parse(&request.token).map_err(|e| bad("token", e.to_string()))?,
        id: request.id.as_deref().map(str::parse).transpose().map_err(|e| bad("id", format!("{e}")))?,
        address: request
            .address
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|_| bad("address", "must be an IPv4 address".to_owned()))?,
        checks: checks.collect::<std::result::Result<_, _>>().map_err(|e| bad("checks", e))?,
        weight,
        lease_ms: request.lease_ms,
        ports,
    })
}

fn parse_port(port: &types::EndpointPort) -> Result<EndpointPort> {
    let protocol = match port.protocol.as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        other => return Err(ApiError::bad_request(format!("ports: {other:?} is neither tcp nor udp"))),
    };
    if port.contract == 0 || port.local == 0 {
        return Err(ApiError::bad_request("ports: a port number must be 1 to 65535"));
    }
    Ok(EndpointPort { protocol, contract: port.contract, local: port.local })
}

pub(super) fn register_error(error: &RegisterError) -> ApiError {
    let code = match error {
        RegisterError::NotReady => Code::Unavailable,
        RegisterError::Token(_) | RegisterError::Refused(_) => Code::Refused,
        RegisterError::Limit { .. } => Code::Limit,
        RegisterError::Address(_) | RegisterError::Taken(_) | RegisterError::Busy(_) => Code::Conflict,
        RegisterError::Store(_) => Code::Internal,
    };
    ApiError::new(code, error.to_string())
}

fn addresses(fact: &EndpointFact) -> Vec<String> {
    let both = [fact.ipv4.map(IpAddr::from), fact.ipv6.map(IpAddr::from)];
    both.into_iter().flatten().map(|a| a.to_string()).collect()
}

fn port(port: &EndpointPort) -> types::EndpointPort {
    types::EndpointPort { protocol: port.protocol.to_string(), contract: port.contract, local: port.local }
}

const fn health_word(health: Health) -> &'static str {
    match health {
        Health::Passing => "passing",
        Health::Unknown => "unknown",
        Health::Failing => "failing",
    }
}
