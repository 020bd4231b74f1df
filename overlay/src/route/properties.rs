//! What holds for every path, under a thousand failures of links.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use selvedge_fabric::{id::ZoneName, key::NodeId, plan::Routing};

use super::*;
use crate::testing::routing;

const CLOUDS: [&str; 5] = ["a", "b", "c/x", "c/y", "d"];

/// A fabric of `count` processors and as many workload nodes, with links drawn from `seed`.
fn fabric(count: u64, mut seed: u64) -> (Routing, Vec<(u64, u64)>) {
    let zone = |id: u64| CLOUDS[(id % CLOUDS.len() as u64) as usize];
    let ids: Vec<u64> = (0..count).chain(100..100 + count).collect();
    let nodes: Vec<_> = ids.iter().map(|id| (*id, zone(*id))).collect();
    let mut links = Vec::new();
    for (at, a) in ids.iter().enumerate() {
        for b in &ids[at + 1..] {
            seed = next(seed);
            if (*a < 100 || *b < 100) && seed.is_multiple_of(3) {
                links.push((*a, *b));
            }
        }
    }
    (routing(0, &nodes, &links), links)
}

/// SplitMix64.
const fn next(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Whether a path is what was asked for, judged by other means than it was found with.
fn check(routing: &Routing, path: &Path, to: NodeId, asked: &Constraint<'_>) {
    let zone = |id: &NodeId| &routing.nodes[id].zone;
    assert_eq!((path.nodes.first(), path.nodes.last()), (routing.me.as_ref(), Some(&to)));
    for step in path.nodes.windows(2) {
        assert!(routing.measured.contains_key(&(step[0], step[1])), "{step:?} is no link");
    }
    // Unless its own place was to be passed, in which case the way back may be the only one.
    assert!(path.passed_here > 0 || asked.not_back_to.is_none() || path.next() != asked.not_back_to);
    assert!(path.nodes.iter().all(|node| !covers(asked.avoid, zone(node))), "{path:?} enters what it avoids");
    for between in &path.nodes[1..path.nodes.len() - 1] {
        assert!(between.0 < 100, "{between} carries for others");
        assert!(!covers(asked.refusing, zone(between)) || zone(between) == zone(&to));
    }
    assert!(path.nodes.len() - 1 <= usize::from(asked.max_hops));
    let mut places = asked.via.iter().peekable();
    for node in &path.nodes {
        while places.next_if(|place| place.covers(zone(node))).is_some() {}
    }
    assert_eq!(places.next(), None, "{path:?} leaves out a place");
}

/// Whether there is any path without regard to cost and `via`, by breadth first search.
fn reachable(routing: &Routing, to: NodeId, avoid: &[ZoneName]) -> bool {
    let allowed = |id: &NodeId| !covers(avoid, &routing.nodes[id].zone);
    let me = routing.me.unwrap();
    if !allowed(&me) || !allowed(&to) {
        return false;
    }
    let (mut seen, mut queue) = (BTreeSet::from([me]), vec![me]);
    while let Some(at) = queue.pop() {
        if at != me && at.0 >= 100 {
            continue;
        }
        for ((_, next), _) in routing.measured.range((at, NodeId(0))..=(at, NodeId(u64::MAX))) {
            if allowed(next) && seen.insert(*next) {
                queue.push(*next);
            }
        }
    }
    seen.contains(&to)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20))]
    /// 20 fabrics, 50 failures each.
    #[test]
    fn no_path_over_an_avoided_place_whatever_fails(seed: u64) {
        let (mut routing, mut links) = fabric(10, seed);
        let zones = |bits: u64| -> Vec<ZoneName> {
            let chosen = CLOUDS.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1);
            chosen.map(|(_, name)| name.parse().unwrap()).collect()
        };
        let mut seed = seed;
        let mut draw = || { seed = next(seed); seed };
        for _ in 0..50 {
            if !links.is_empty() {
                let (a, b) = links.swap_remove((draw() % links.len() as u64) as usize);
                routing.measured.remove(&(NodeId(a), NodeId(b)));
                routing.measured.remove(&(NodeId(b), NodeId(a)));
            }
            let (avoid, refusing) = (zones(draw() & draw()), zones(draw() & draw()));
            let via = zones(draw() & draw() & draw());
            let not_back_to = (draw().is_multiple_of(2)).then(|| NodeId(draw() % 10));
            let max_hops = (draw() % 7) as u8 + 1;
            let asked = Constraint { via: &via, avoid: &avoid, refusing: &refusing, origin: None, max_hops, not_back_to };
            let me = NodeId(0);
            let own: BTreeMap<_, _> = routing.measured.iter().filter(|((from, _), _)| *from == me).map(|((_, to), q)| (*to, *q)).collect();
            let graph = Graph::new(&routing, &own);
            for to in (1..10).chain(100..110).map(NodeId) {
                let path = best_path(&graph, me, to, &asked);
                prop_assert_eq!(&path, &best_path(&graph, me, to, &asked));
                if let Some(path) = &path {
                    check(&routing, path, to, &asked);
                }
                let free = Constraint { avoid: &avoid, max_hops: DEFAULT_HOP_LIMIT + 10, ..Constraint::default() };
                prop_assert_eq!(best_path(&graph, me, to, &free).is_some(), reachable(&routing, to, &avoid));
            }
        }
    }
}
