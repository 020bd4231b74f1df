//! The DNS stops naming the endpoints of a dead node within its bound.
//!
//! The bound holds in fair weather: with a network that loses messages without limit nobody can tell a
//! dead node from an unlucky one. So it counts from the death or from the last fault, whichever is later.
//! A node that was started after the death and never heard the dead one itself does not know that it ever
//! lived; it serves what its disk says, by design, and is not looked at.

use std::net::IpAddr;

use selvedge_dns::{
    Asker, ZoneIndex, answer,
    proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name, RData, RecordType},
    },
};

use super::Invariant;
use crate::{
    intent::{SUFFIX, contract},
    node::Node,
    world::{Sighting, World},
};

/// From the death of a node until nobody names its endpoints: until its silence is one (4.5 s), SWIM has
/// given it time to refute (4.2 s and a round of probes), and the verdict has travelled. The TTL of answers
/// that are already out comes on top.
pub(super) const BOUND_MS: u64 = 8_000;

pub(super) struct Names;

impl Invariant for Names {
    fn name(&self) -> &'static str {
        "names"
    }

    fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), String> {
        if *sighting != Sighting::Moment || world.now_ms < world.troubled_ms + BOUND_MS {
            return Ok(());
        }
        let services = world.scenario.services;
        let awake =
            world.living().filter(|(n, node)| !world.is_paused(*n) && !node.outlook.judgement.isolated);
        for n in awake.map(|(n, _)| n).collect::<Vec<_>>() {
            let addresses = world.slots[n].node.as_mut().map(|node| named(services, node));
            let Some(node) = &world.slots[n].node else { continue };
            for address in addresses.into_iter().flatten() {
                look(world, n, node, address)?;
            }
        }
        Ok(())
    }
}

fn look(world: &World, n: usize, node: &Node, address: IpAddr) -> Result<(), String> {
    let IpAddr::V4(address) = address else { return Ok(()) };
    let Some(owner) = world.by_address.get(&address) else {
        return Err(format!("{} names {address}, which nobody has", node.birth.name));
    };
    let slot = &world.slots[*owner];
    let Some(dead_since_ms) = slot.dead_since_ms else { return Ok(()) };
    let knew = world.slots[n].started_ms() < dead_since_ms && node.has_heard(slot.birth.id());
    let since_ms = world.now_ms - dead_since_ms.max(world.troubled_ms);
    if knew && since_ms >= BOUND_MS {
        return Err(format!(
            "{} still names {address} of {}, which has been dead for {} ms, at revision {}, and takes it for {:?}: {}",
            node.birth.name,
            slot.birth.name,
            world.now_ms - dead_since_ms,
            node.policy.revision,
            node.view.nodes.get(&slot.birth.name).map(|seen| seen.state),
            node.sight_of(slot.birth.id()),
        ));
    }
    Ok(())
}

/// Every address that a node's DNS gives out for a contract.
fn named(services: usize, node: &mut Node) -> Vec<IpAddr> {
    let Some(index) = node.names() else { return Vec::new() };
    (0..services).flat_map(|number| ask(index, number)).collect()
}

fn ask(index: &ZoneIndex, number: usize) -> Vec<IpAddr> {
    let contract = contract(number);
    let text = format!("{}.{}.{SUFFIX}.", contract.name, contract.domain);
    let mut query = Message::new(1, MessageType::Query, OpCode::Query);
    let name = Name::from_ascii(text).expect("a name");
    query.add_query(Query::query(name, RecordType::A));
    let reply = answer(index, &query, &Asker::All);
    let address = |data: &RData| match data {
        RData::A(a) => Some(IpAddr::V4(a.0)),
        _ => None,
    };
    reply.answers.iter().filter_map(|record| address(&record.data)).collect()
}
