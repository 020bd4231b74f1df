//! No packet is admitted against the applied policy.
//!
//! Each moment, workloads send packets, allowed ones and forbidden ones, and go on with flows that were
//! allowed before. The gate of their node judges by its tables; here they are judged again by reading the
//! policy that the node has applied, with nothing in common with the compiler of those tables.

use std::net::Ipv4Addr;

use rand::{RngExt, seq::IteratorRandom};
use selvedge_dataplane::{Workload, abi::Direction};
use selvedge_fabric::{
    id::ServiceRef,
    object::{Action, PortRange, Spec},
    policy::PolicyState,
};

use super::Invariant;
use crate::{
    intent::{OTHER_PORT, PORT, service},
    node::Node,
    world::{Sighting, World},
};

/// Packets tried at each moment.
const TRIED: usize = 3;
/// Flows that go on; the oldest is forgotten first.
const KEPT_FLOWS: usize = 8;

/// A flow that was allowed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Flow {
    from: usize,
    life: u64,
    to: usize,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    source_port: u16,
    port: u16,
}

#[derive(Default)]
pub(super) struct Packets {
    flows: Vec<Flow>,
    next_port: u16,
}

impl Invariant for Packets {
    fn name(&self) -> &'static str {
        "packets"
    }

    fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), String> {
        match sighting {
            Sighting::Moment => {}
            Sighting::Delivered { at, revision, source, destination, port } => {
                return delivered(world, *at, *revision, (*source, *destination), *port);
            }
            Sighting::Planned(_) | Sighting::Frame { .. } | Sighting::Did { .. } => return Ok(()),
        }
        for flow in std::mem::take(&mut self.flows) {
            self.try_flow(world, flow)?;
        }
        for _ in 0..TRIED {
            if let Some(flow) = self.choose(world) {
                self.try_flow(world, flow)?;
            }
        }
        Ok(())
    }
}

impl Packets {
    fn choose(&mut self, world: &mut World) -> Option<Flow> {
        let running: Vec<usize> = world.living().map(|(n, _)| n).collect();
        let from = running.into_iter().choose(&mut world.rng)?;
        let (destination, to) = {
            let all = world.by_address.iter().map(|(address, n)| (*address, *n));
            all.choose(&mut world.rng)?
        };
        let port = if world.rng.random_bool(0.7) { PORT } else { OTHER_PORT };
        let source = world.slots[from].birth.address(world.policy())?;
        // A port of its own each time, so that no flow is the answer to another.
        self.next_port = self.next_port.wrapping_add(1) | 0x8000;
        let life = world.slots[from].started_ms();
        Some(Flow { from, life, to, source, destination, source_port: self.next_port, port })
    }

    fn try_flow(&mut self, world: &mut World, flow: Flow) -> Result<(), String> {
        let packet = udp(flow.source, flow.destination, flow.source_port, flow.port);
        // What the gate refuses is sent as well: the router is the second look.
        world.send_packet(flow.from, packet);
        let services = (world.slots[flow.from].birth.service, world.slots[flow.to].birth.service);
        let life = world.slots[flow.from].started_ms();
        let Some(node) = world.slots[flow.from].node.as_mut().filter(|_| life == flow.life) else {
            return Ok(());
        };
        if !passes(node, flow, services.0) {
            return Ok(());
        }
        let (from, to) = (service(services.0), service(services.1));
        let name = node.birth.name.clone();
        let revision = node.plan.as_ref().map_or(0, |plan| plan.revision);
        let policy = world.agreed_at(revision).ok_or("a revision that nobody agreed on")?;
        if !allows(policy, &from, &to, flow.port) {
            return Err(format!(
                "{name} lets {from} open udp/{} to {to}, which revision {revision} does not allow",
                flow.port
            ));
        }
        if self.flows.len() == KEPT_FLOWS {
            self.flows.remove(0);
        }
        self.flows.push(flow);
        Ok(())
    }
}

/// Whether a packet that came out at a node may come out there.
fn delivered(
    world: &World,
    at: usize,
    revision: u64,
    between: (Ipv4Addr, Ipv4Addr),
    port: u16,
) -> Result<(), String> {
    let (source, destination) = between;
    let name = &world.slots[at].birth.name;
    let whose =
        |address| world.by_address.get(&address).map(|n| (*n, service(world.slots[*n].birth.service)));
    let (Some((_, from)), Some((owner, to))) = (whose(source), whose(destination)) else {
        return Err(format!("a packet from {source} to {destination} came out at {name}"));
    };
    let policy = world.agreed_at(revision).ok_or("a revision that nobody agreed on")?;
    if owner != at || !allows(policy, &from, &to, port) {
        return Err(format!(
            "a packet of {from} to udp/{port} of {to} came out at {name}, which revision {revision} does not allow"
        ));
    }
    Ok(())
}

/// Whether the gate of a node lets a packet of its workload out.
fn passes(node: &mut Node, flow: Flow, number: usize) -> bool {
    let Some(plan) = &node.plan else { return false };
    let Some(identity) = plan.verdicts.identity(&service(number)) else { return false };
    let workload = Workload {
        identity,
        ipv4: Some(flow.source),
        ipv6: None,
        gateway_ipv4: None,
        gateway_ipv6: None,
        api_port: 0,
        probes: false,
    };
    let now_s = node.uptime_s();
    let packet = udp(flow.source, flow.destination, flow.source_port, flow.port);
    node.gate.judge_packet(&packet, Direction::Leaving, &workload.attachment(0), now_s).verdict.allow
}

/// An empty UDP packet.
pub(crate) fn udp(source: Ipv4Addr, destination: Ipv4Addr, from: u16, to: u16) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0];
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(&from.to_be_bytes());
    packet.extend_from_slice(&to.to_be_bytes());
    packet.extend_from_slice(&[0, 8, 0, 0]);
    packet
}

/// What the policy says, read as a person would: some contract has the one as its client, the other as its
/// server and the port among the server's, and no guardrail denies it.
pub(super) fn allows(policy: &PolicyState, from: &ServiceRef, to: &ServiceRef, port: u16) -> bool {
    let plays = |service: &ServiceRef, role: &str| -> Vec<String> {
        let of_service = policy.objects.iter().filter(|(key, _)| {
            key.name == service.name.as_str() && key.domain.as_ref() == Some(&service.domain)
        });
        let roles = of_service.filter_map(|(_, spec)| match spec {
            Spec::Service(spec) => Some(&spec.roles),
            _ => None,
        });
        roles.flatten().filter(|b| b.role.as_str() == role).map(|b| b.contract.to_string()).collect()
    };
    let holds = |range: &PortRange| range.low <= port && port <= range.high;
    let shared = plays(from, "client").into_iter().filter(|c| plays(to, "server").contains(c));
    let allowed = shared.into_iter().any(|contract| {
        policy.objects.iter().any(|(key, spec)| match (spec, &key.domain) {
            (Spec::Contract(spec), Some(domain)) if format!("{}@{domain}", key.name) == contract => {
                spec.roles.iter().any(|(role, of)| role.as_str() == "server" && of.ports.iter().any(holds))
            }
            _ => false,
        })
    });
    let denied = policy.objects.values().any(|spec| match spec {
        Spec::Guardrail(rule) => {
            let selected = rule.from.to_string() == from.to_string() && rule.to.to_string() == to.to_string();
            rule.action == Action::Deny && selected && (rule.ports.is_empty() || rule.ports.iter().any(holds))
        }
        _ => false,
    });
    allowed && !denied
}
