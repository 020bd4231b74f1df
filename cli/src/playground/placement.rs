//! Which endpoint runs on which node. Pure.
//!
//! A service that serves gets an endpoint in each of up to [`SERVING_COPIES`] clouds, so that its name
//! answers after the loss of any cloud; with three clouds even after the loss of two. A pure client
//! gets one. Workload nodes are preferred, where a cloud has them: hosting is what they are for.

use std::collections::BTreeMap;

use selvedge_fabric::id::{Name, ServiceRef};

use super::{
    catalog::ServiceNeed,
    layout::{NodeSlot, Role},
};

/// Endpoints of a service that serves. Never fewer than two, even in a single cloud.
const SERVING_COPIES: usize = 3;

/// An endpoint to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub(crate) service: ServiceRef,
    /// Index of its node.
    pub(crate) node: usize,
    /// Contract ports that it serves.
    pub(crate) ports: Vec<u16>,
}

/// Places every service on `nodes`.
pub(crate) fn place(services: &[ServiceNeed], nodes: &[NodeSlot]) -> Vec<Placed> {
    let mut clouds = Clouds::of(nodes);
    let mut placed = Vec::new();
    for (index, need) in services.iter().enumerate() {
        let copies = match need.ports.is_empty() {
            true => 1,
            false => clouds.count().clamp(2, SERVING_COPIES),
        };
        for copy in 0..copies {
            // Starting from another cloud each time spreads the single ones too.
            let node = clouds.next_host(index + copy);
            placed.push(Placed {
                service: need.service.clone(),
                node,
                ports: need.ports.iter().copied().collect(),
            });
        }
    }
    placed
}

/// The hosts of each cloud, taken in turn.
struct Clouds {
    hosts: Vec<Vec<usize>>,
    taken: Vec<usize>,
}

impl Clouds {
    fn of(nodes: &[NodeSlot]) -> Self {
        let mut by_cloud: BTreeMap<&Name, Vec<usize>> = BTreeMap::new();
        for (index, node) in nodes.iter().enumerate() {
            by_cloud.entry(node.zone.cloud()).or_default().push(index);
        }
        let preferred = |all: Vec<usize>| {
            let workloads: Vec<_> =
                all.iter().copied().filter(|&n| nodes[n].role == Role::Workload).collect();
            if workloads.is_empty() { all } else { workloads }
        };
        let hosts: Vec<_> = by_cloud.into_values().map(preferred).collect();
        Self { taken: vec![0; hosts.len()], hosts }
    }

    fn count(&self) -> usize {
        self.hosts.len()
    }

    fn next_host(&mut self, cloud: usize) -> usize {
        let cloud = cloud % self.hosts.len();
        let hosts = &self.hosts[cloud];
        let host = hosts[self.taken[cloud] % hosts.len()];
        self.taken[cloud] += 1;
        host
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::playground::layout::Shape;

    fn nodes(clouds: &[&str], processors: usize, workloads: usize) -> Vec<NodeSlot> {
        let clouds = clouds.iter().map(|c| c.parse().expect("a zone")).collect();
        Shape { clouds, processors, workloads }.slots().expect("slots")
    }

    fn need(service: &str, ports: &[u16]) -> ServiceNeed {
        let service = format!("{service}@app").parse().expect("a service");
        ServiceNeed { service, ports: ports.iter().copied().collect() }
    }

    fn clouds_of(placed: &[Placed], service: &str, nodes: &[NodeSlot]) -> Vec<String> {
        let of = placed.iter().filter(|p| p.service.name.as_str() == service);
        of.map(|p| nodes[p.node].zone.cloud().to_string()).collect()
    }

    #[test]
    fn a_serving_service_is_in_every_one_of_three_clouds() {
        let nodes = nodes(&["aws", "azr", "gcp"], 2, 0);
        let services = [need("a", &[80]), need("b", &[5432, 6379]), need("c", &[])];
        let placed = place(&services, &nodes);
        for service in ["a", "b"] {
            let clouds: BTreeSet<_> = clouds_of(&placed, service, &nodes).into_iter().collect();
            assert_eq!(clouds.len(), 3, "{service}");
        }
        assert_eq!(clouds_of(&placed, "c", &nodes).len(), 1);
        assert_eq!(placed.iter().find(|p| p.service.name.as_str() == "b").expect("b").ports, [5432, 6379]);
    }

    #[test]
    fn in_one_cloud_the_copies_are_on_two_nodes() {
        let nodes = nodes(&["aws"], 2, 0);
        let placed = place(&[need("a", &[80])], &nodes);
        let on: BTreeSet<_> = placed.iter().map(|p| p.node).collect();
        assert_eq!((placed.len(), on.len()), (2, 2));
    }

    #[test]
    fn workload_nodes_are_preferred_and_share_the_load() {
        let nodes = nodes(&["aws", "azr", "gcp"], 1, 2);
        let services: Vec<_> = (0..8).map(|n| need(&format!("s{n}"), &[80])).collect();
        let placed = place(&services, &nodes);
        assert_eq!(placed.len(), 24);
        for (index, node) in nodes.iter().enumerate() {
            let count = placed.iter().filter(|p| p.node == index).count();
            let wanted = if node.role == Role::Workload { 4 } else { 0 };
            assert_eq!(count, wanted, "{}", node.name);
        }
    }
}
