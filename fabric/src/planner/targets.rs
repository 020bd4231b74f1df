//! Which endpoints serve a contract, and in which order they are named.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Local,
    candidates::{Candidate, Candidates},
};
use crate::{
    UnixMs,
    command::AdmissionState,
    compile::graph,
    id::{ContractRef, EndpointId, Name, NodeName, ServiceRef, ZoneName},
    object::{ContractSpec, PortRange, Protocol},
    plan::Target,
    policy::PolicyState,
    record::Health,
    view::Liveness,
};

/// Round trips are compared by their power of two in milliseconds: a jitter of a few per cent must not
/// reorder the answers. 2^30 ms is twelve days.
const ROUND_TRIP_STEPS: u16 = 32;
/// After every round trip that was measured.
const UNMEASURED: u16 = ROUND_TRIP_STEPS - 1;
/// What an unknown health, a draining node and a failing check add to a priority: each more than
/// all nearness together, so that clients that sort SRV records by priority keep our order.
const UNKNOWN_PENALTY: u16 = 1_000;
const DRAINING_PENALTY: u16 = 2_000;
const FAILING_PENALTY: u16 = 4_000;

/// The endpoints of every contract that holds, best first.
pub(super) fn contracts(
    policy: &PolicyState,
    candidates: &Candidates<'_>,
    local: &Local,
    now_ms: UnixMs,
) -> BTreeMap<ContractRef, Vec<Target>> {
    let here = Here::new(policy, local);
    let mut by_service: BTreeMap<&ServiceRef, Vec<&Candidate<'_>>> = BTreeMap::new();
    for candidate in &candidates.all {
        by_service.entry(&candidate.fact.service).or_default().push(candidate);
    }
    let members = graph::members(policy);
    graph::contracts(policy)
        .filter(|(_, contract)| graph::holds(contract, now_ms))
        .map(|(name, contract)| {
            let mut targets = Vec::new();
            for (service, ports) in accepting(policy, &name, contract, members.get(&name)) {
                let serving = by_service.get(&service).into_iter().flatten();
                targets.extend(serving.filter_map(|candidate| here.target(candidate, &ports)));
            }
            // Names are unique, so the order is total and the same everywhere.
            targets.sort_by(|a, b| sort_key(a).cmp(&sort_key(b)));
            (name, targets)
        })
        .collect()
}

fn sort_key(target: &Target) -> (u16, &EndpointId) {
    (target.priority, &target.endpoint)
}

/// The services that accept flows in a contract, with the ports on which they do.
pub(super) fn accepting(
    policy: &PolicyState,
    name: &ContractRef,
    contract: &ContractSpec,
    members: Option<&graph::Members<'_>>,
) -> BTreeMap<ServiceRef, Vec<PortRange>> {
    let mut services: BTreeMap<ServiceRef, Vec<PortRange>> = BTreeMap::new();
    let (Some(members), Some(template)) = (members, policy.template_of(name)) else { return services };
    let roles: BTreeSet<&Name> = template.flows.iter().map(|flow| &flow.to).collect();
    for role in roles {
        for (service, _) in members.get(role).into_iter().flatten() {
            services.entry(service.clone()).or_default().extend(graph::ports_of(contract, role));
        }
    }
    services
}

/// Where this node is.
struct Here<'a> {
    node: Option<&'a NodeName>,
    zone: Option<&'a ZoneName>,
}

impl<'a> Here<'a> {
    fn new(policy: &'a PolicyState, local: &'a Local) -> Self {
        let node = local.me.as_ref();
        Self { node, zone: node.and_then(|me| policy.nodes.get(me)).map(|admission| &admission.zone) }
    }

    /// The endpoint as a target on these ports; `None` when it listens on none of them.
    fn target(&self, candidate: &Candidate<'_>, ports: &[PortRange]) -> Option<Target> {
        let fact = candidate.fact;
        let stated = |protocol, port| {
            let one = PortRange { protocol, low: port, high: port };
            ports.iter().any(|range| range.covers(&one))
        };
        let served: BTreeSet<(Protocol, u16)> = fact
            .ports
            .iter()
            .filter(|port| stated(port.protocol, port.contract))
            .map(|port| (port.protocol, port.local))
            .collect();
        if served.is_empty() {
            return None;
        }
        let remote = Some(candidate.node) != self.node;
        let heard_before_start = matches!(candidate.view.state, Liveness::Unknown | Liveness::Down);
        Some(Target {
            endpoint: fact.id.clone(),
            service: fact.service.clone(),
            node: candidate.node.clone(),
            zone: Some(candidate.admission.zone.clone()),
            stale_since_ms: candidate.view.heard_ms.filter(|_| remote && heard_before_start),
            health: candidate.health,
            priority: self.priority(candidate),
            weight: fact.weight,
            ports: served.into_iter().collect(),
            addresses: candidate.addresses.clone(),
        })
    }

    fn priority(&self, candidate: &Candidate<'_>) -> u16 {
        let health = match candidate.health {
            Health::Passing => 0,
            Health::Unknown => UNKNOWN_PENALTY,
            Health::Failing => FAILING_PENALTY,
        };
        let draining = match candidate.admission.state {
            AdmissionState::Draining => DRAINING_PENALTY,
            AdmissionState::Active | AdmissionState::Revoked => 0,
        };
        health + draining + self.nearness(candidate)
    }

    /// Same node, same zone, same cloud, elsewhere; within each by round trip.
    fn nearness(&self, candidate: &Candidate<'_>) -> u16 {
        let zone = &candidate.admission.zone;
        let step = if Some(candidate.node) == self.node {
            return 0;
        } else if Some(zone) == self.zone {
            1
        } else if self.zone.is_some_and(|here| here.cloud() == zone.cloud()) {
            2
        } else {
            3
        };
        step * ROUND_TRIP_STEPS + round_trip_step(candidate.view.rtt_us)
    }
}

/// 0 below 1 ms, 1 below 2 ms, 2 below 4 ms, …
fn round_trip_step(rtt_us: Option<u32>) -> u16 {
    let Some(rtt_us) = rtt_us else { return UNMEASURED };
    let ms = rtt_us / 1000;
    (u32::BITS - ms.leading_zeros()) as u16
}
