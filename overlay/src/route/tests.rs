use std::collections::BTreeMap;

use selvedge_fabric::{
    id::ZoneName,
    key::NodeId,
    plan::{DeclaredLink, LinkQuality, Routing},
};

use super::*;
use crate::testing::{GOOD, routing};

const NODES: [(u64, &str); 6] = [(1, "a"), (2, "a"), (3, "b"), (4, "c/x"), (5, "c/y"), (101, "c/y")];

fn zones(names: &[&str]) -> Vec<ZoneName> {
    names.iter().map(|name| name.parse().unwrap()).collect()
}

fn own(routing: &Routing) -> BTreeMap<NodeId, LinkQuality> {
    let me = routing.me.unwrap();
    routing.measured.iter().filter(|((from, _), _)| *from == me).map(|((_, to), q)| (*to, *q)).collect()
}

fn path(routing: &Routing, to: u64, asked: &Constraint<'_>) -> Option<Vec<u64>> {
    let graph = Graph::new(routing, &own(routing));
    let path = best_path(&graph, routing.me.unwrap(), NodeId(to), asked)?;
    Some(path.nodes.into_iter().map(|node| node.0).collect())
}

const FREE: Constraint<'static> = Constraint {
    via: &[],
    avoid: &[],
    refusing: &[],
    origin: None,
    max_hops: DEFAULT_HOP_LIMIT,
    not_back_to: None,
};

#[test]
fn the_fewest_links_unless_longer_is_much_faster() {
    let mut routing = routing(1, &NODES, &[(1, 2), (2, 3), (1, 3), (3, 5)]);
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 3, 5]));
    routing.measured.insert((NodeId(1), NodeId(3)), LinkQuality { rtt_us: 80_000, ..GOOD });
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 2, 3, 5]));
    assert_eq!(path(&routing, 4, &FREE), None);
}

#[test]
fn workload_nodes_carry_nothing() {
    let routing = routing(1, &NODES, &[(1, 101), (101, 4)]);
    assert_eq!(path(&routing, 101, &FREE), Some(vec![1, 101]));
    assert_eq!(path(&routing, 4, &FREE), None);
}

#[test]
fn a_place_to_avoid_is_entered_by_none_not_even_at_the_end() {
    let routing = routing(1, &NODES, &[(1, 3), (3, 5), (1, 2), (2, 4), (4, 5)]);
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 3, 5]));
    let avoid = zones(&["b"]);
    assert_eq!(path(&routing, 5, &Constraint { avoid: &avoid, ..FREE }), Some(vec![1, 2, 4, 5]));
    let avoid = zones(&["b", "c/x"]);
    assert_eq!(path(&routing, 5, &Constraint { avoid: &avoid, ..FREE }), None);
    let avoid = zones(&["c"]);
    assert_eq!(path(&routing, 5, &Constraint { avoid: &avoid, ..FREE }), None);
}

#[test]
fn places_are_passed_in_their_order_and_a_node_may_be_passed_twice() {
    let routing = routing(1, &NODES, &[(1, 5), (1, 3), (1, 4), (3, 2), (2, 4), (4, 5)]);
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 5]));
    let via = zones(&["b", "c/x"]);
    assert_eq!(path(&routing, 5, &Constraint { via: &via, ..FREE }), Some(vec![1, 3, 2, 4, 5]));
    let via = zones(&["c/x", "b"]);
    assert_eq!(path(&routing, 5, &Constraint { via: &via, ..FREE }), Some(vec![1, 4, 2, 3, 2, 4, 5]));
    // The ends count as passed.
    let via = zones(&["a", "c"]);
    assert_eq!(path(&routing, 5, &Constraint { via: &via, ..FREE }), Some(vec![1, 5]));
}

#[test]
fn no_more_links_than_are_allowed() {
    let mut routing = routing(1, &NODES, &[(1, 2), (2, 3), (1, 3), (3, 5)]);
    routing.measured.insert((NodeId(1), NodeId(3)), LinkQuality { rtt_us: 80_000, ..GOOD });
    assert_eq!(path(&routing, 5, &Constraint { max_hops: 3, ..FREE }), Some(vec![1, 2, 3, 5]));
    assert_eq!(path(&routing, 5, &Constraint { max_hops: 2, ..FREE }), Some(vec![1, 3, 5]));
    assert_eq!(path(&routing, 5, &Constraint { max_hops: 1, ..FREE }), None);
}

#[test]
fn a_zone_that_refuses_carries_only_for_its_own() {
    let routing = routing(1, &NODES, &[(1, 3), (3, 5), (1, 2), (2, 4), (4, 5), (5, 101)]);
    let refusing = zones(&["b", "c"]);
    let asked = Constraint { refusing: &refusing, ..FREE };
    assert_eq!(path(&routing, 5, &asked), None);
    let refusing = zones(&["b", "c/y"]);
    let asked = Constraint { refusing: &refusing, ..FREE };
    assert_eq!(path(&routing, 101, &asked), Some(vec![1, 2, 4, 5, 101]));
}

#[test]
fn a_frame_is_not_sent_back_where_it_came_from() {
    let routing = routing(1, &NODES, &[(1, 3), (3, 5), (1, 2), (2, 4), (4, 5)]);
    let asked = Constraint { not_back_to: Some(NodeId(3)), ..FREE };
    assert_eq!(path(&routing, 5, &asked), Some(vec![1, 2, 4, 5]));
}

#[test]
fn declared_links_are_the_only_ones_between_processors_and_their_cost_counts() {
    let mut routing = routing(1, &NODES, &[(1, 3), (3, 5), (1, 2), (2, 5), (1, 5), (5, 101)]);
    let declare = |a, b, cost, enabled| ((NodeId(a), NodeId(b)), DeclaredLink { cost, enabled });
    let links = [declare(1, 3, 10, true), declare(3, 5, 10, true), declare(1, 2, 5, true)];
    routing.declared = Some(links.into());
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 3, 5]));
    assert_eq!(path(&routing, 101, &FREE), Some(vec![1, 3, 5, 101]));
    routing.declared.as_mut().unwrap().extend([declare(2, 5, 5, true), declare(1, 5, 1, false)]);
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 2, 5]));
}

#[test]
fn a_link_that_one_end_gave_up_is_no_link() {
    let mut routing = routing(1, &NODES, &[(1, 3), (3, 5)]);
    routing.measured.remove(&(NodeId(5), NodeId(3)));
    assert_eq!(path(&routing, 5, &FREE), None);
}

#[test]
fn nodes_at_the_newest_policy_are_preferred() {
    let mut routing = routing(1, &NODES, &[(1, 2), (2, 5), (1, 3), (3, 5)]);
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 2, 5]));
    routing.revision = 2;
    routing.nodes.get_mut(&NodeId(3)).unwrap().revision = Some(2);
    assert_eq!(path(&routing, 5, &FREE), Some(vec![1, 3, 5]));
}
