//! What a contract avoids is avoided: no node sends a packet of a contract into a place that the policy it
//! applies says to avoid, whatever links die, and none is sent that this policy does not allow.

use std::net::IpAddr;

use selvedge_fabric::{
    id::{ServiceRef, ZoneName},
    object::Spec,
    policy::PolicyState,
};
use selvedge_overlay::Peeked;

use super::{Invariant, packets::allows};
use crate::{
    intent::{cloud, service},
    world::{Sighting, World},
};

pub(super) struct Paths;

impl Invariant for Paths {
    fn name(&self) -> &'static str {
        "paths"
    }

    fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), String> {
        let Sighting::Frame { from, to, revision, frame } = sighting else { return Ok(()) };
        let Some((source, destination)) = ends(world, frame) else { return Ok(()) };
        let name = &world.slots[*from].birth.name;
        let policy = world.agreed_at(*revision).ok_or("a revision that nobody agreed on")?;
        if !allows(policy, &source, &destination, frame.port) {
            return Err(format!(
                "{name} carries a packet of {source} to udp/{} of {destination}, which revision {} does not allow",
                frame.port, *revision
            ));
        }
        let place = ZoneName::of_cloud(cloud(world.slots[*to].birth.cloud));
        if avoided(policy, &source, &destination).iter().any(|avoided| avoided.covers(&place)) {
            return Err(format!(
                "{name} sends a packet of {source} for {destination} into {place}, which its contract avoids at \
                 revision {}",
                *revision
            ));
        }
        Ok(())
    }
}

/// The services at the ends of the flow.
fn ends(world: &World, frame: &Peeked) -> Option<(ServiceRef, ServiceRef)> {
    let of = |address: IpAddr| match address {
        IpAddr::V4(address) => world.by_address.get(&address).map(|n| service(world.slots[*n].birth.service)),
        IpAddr::V6(_) => None,
    };
    let (source, destination) = (of(frame.source)?, of(frame.destination)?);
    Some(if frame.answer { (destination, source) } else { (source, destination) })
}

/// The places that every contract between the two avoids: services share one contract at most here.
fn avoided(policy: &PolicyState, client: &ServiceRef, server: &ServiceRef) -> Vec<ZoneName> {
    let roles = |service: &ServiceRef, role: &str| -> Vec<String> {
        let specs = policy.objects.iter().filter(|(key, _)| key.name == service.name.as_str());
        let bindings = specs.filter_map(|(_, spec)| match spec {
            Spec::Service(spec) => Some(&spec.roles),
            _ => None,
        });
        bindings.flatten().filter(|b| b.role.as_str() == role).map(|b| b.contract.name.to_string()).collect()
    };
    let (clients, servers) = (roles(client, "client"), roles(server, "server"));
    let shared = |name: &str| clients.iter().any(|c| c == name) && servers.iter().any(|s| s == name);
    let specs = policy.objects.iter().filter(|(key, _)| shared(&key.name));
    let paths = specs.filter_map(|(_, spec)| match spec {
        Spec::Contract(spec) => Some(&spec.path.avoid),
        _ => None,
    });
    paths.flatten().cloned().collect()
}
