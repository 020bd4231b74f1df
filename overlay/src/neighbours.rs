//! Whom this node should have a link to.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{
    command::Role,
    key::NodeId,
    plan::{RouteNode, Routing},
};

use crate::{Micros, route::link_is_permitted};

/// Processors to which a workload node holds links: one may die, and the other is there already.
pub(crate) const HOMES: usize = 2;
/// Nodes with which there is traffic and to which a direct link is tried.
pub(crate) const MAX_DIRECT: usize = 256;
/// A direct link that carried nothing for this long is given up.
const DIRECT_IDLE_US: Micros = 60_000_000;

/// The nodes this node should have a link to because of what it is.
///
/// Processors have links to each other, all of them, or those that are declared. A workload node has
/// links to two processors, those of its own zone before others of its cloud before others; `failing`
/// ones last.
pub(crate) fn standing(routing: &Routing, failing: &BTreeSet<NodeId>) -> BTreeSet<NodeId> {
    let Some((me, mine)) = routing.me.and_then(|me| Some((me, routing.nodes.get(&me)?))) else {
        return BTreeSet::new();
    };
    let processors = routing.nodes.iter().filter(|(id, node)| {
        **id != me && node.role == Role::Processor && link_is_permitted(routing, me, **id)
    });
    match mine.role {
        Role::Processor => processors.map(|(id, _)| *id).collect(),
        Role::Workload => {
            let mut homes: Vec<_> =
                processors.map(|(id, node)| (rank(mine, node, *id, me, failing), *id)).collect();
            homes.sort_unstable();
            homes.into_iter().take(HOMES).map(|(_, id)| id).collect()
        }
    }
}

/// Lower is better. The last part spreads workload nodes evenly over equal processors, each node always
/// in the same way.
fn rank(
    mine: &RouteNode,
    node: &RouteNode,
    id: NodeId,
    me: NodeId,
    failing: &BTreeSet<NodeId>,
) -> (bool, u8, u64) {
    let distance = if node.zone == mine.zone {
        0
    } else if node.zone.cloud() == mine.zone.cloud() {
        1
    } else {
        2
    };
    let spread = (id.0 ^ me.0.rotate_left(32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (!node.up || failing.contains(&id), distance, spread)
}

/// Nodes with which there is traffic, so that a link to them would spare the detour.
#[derive(Debug, Default)]
pub(crate) struct Direct {
    used: BTreeMap<NodeId, Micros>,
}

impl Direct {
    /// Notes traffic with a node. When there are too many, the one that was idle longest goes.
    pub(crate) fn touch(&mut self, node: NodeId, now: Micros) {
        self.used.insert(node, now);
        if self.used.len() > MAX_DIRECT {
            let idlest = self.used.iter().min_by_key(|(_, at)| **at).map(|(node, _)| *node);
            if let Some(idlest) = idlest {
                self.used.remove(&idlest);
            }
        }
    }

    /// Forgets those without traffic.
    pub(crate) fn expire(&mut self, now: Micros) {
        self.used.retain(|_, at| now < at.saturating_add(DIRECT_IDLE_US));
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.used.keys().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::routing;

    const NODES: [(u64, &str); 7] =
        [(1, "a/x"), (2, "a/x"), (3, "a/x"), (4, "a/y"), (5, "b"), (101, "a/x"), (102, "c")];

    fn ids(set: &BTreeSet<NodeId>) -> Vec<u64> {
        set.iter().map(|id| id.0).collect()
    }

    #[test]
    fn processors_are_meshed_or_as_declared() {
        let mut routing = routing(1, &NODES, &[]);
        assert_eq!(ids(&standing(&routing, &BTreeSet::new())), [2, 3, 4, 5]);
        let link = |enabled| selvedge_fabric::plan::DeclaredLink { cost: 10, enabled };
        routing.declared =
            Some([((NodeId(1), NodeId(5)), link(true)), ((NodeId(1), NodeId(4)), link(false))].into());
        assert_eq!(ids(&standing(&routing, &BTreeSet::new())), [5]);
    }

    #[test]
    fn a_workload_node_has_two_homes_of_its_zone_and_fails_over() {
        let mut routing = routing(101, &NODES, &[]);
        let homes = standing(&routing, &BTreeSet::new());
        assert!(homes.len() == 2 && homes.iter().all(|home| (1..=3).contains(&home.0)), "{homes:?}");
        let after = standing(&routing, &homes.iter().copied().take(1).collect());
        assert!(after.len() == 2 && after.iter().all(|home| (1..=3).contains(&home.0)) && after != homes);
        for id in 1..=3 {
            routing.nodes.get_mut(&NodeId(id)).unwrap().up = false;
        }
        assert_eq!(ids(&standing(&routing, &BTreeSet::new())), [4, 5], "its cloud, then anywhere");
    }

    #[test]
    fn a_node_that_is_not_admitted_has_none() {
        let mut routing = routing(1, &NODES, &[]);
        routing.me = None;
        assert!(standing(&routing, &BTreeSet::new()).is_empty());
    }

    #[test]
    fn direct_links_are_bounded_and_given_up_when_idle() {
        let mut direct = Direct::default();
        for id in 0..=MAX_DIRECT as u64 {
            direct.touch(NodeId(id), id);
        }
        assert!(direct.nodes().count() == MAX_DIRECT && !direct.nodes().any(|node| node == NodeId(0)));
        direct.expire(DIRECT_IDLE_US + 10);
        assert_eq!(direct.nodes().count(), MAX_DIRECT - 10);
    }
}
