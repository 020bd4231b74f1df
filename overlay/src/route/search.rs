//! The cheapest path that a contract permits: Dijkstra's algorithm over (node, places passed, links
//! crossed), where the last one counts only if the number of links is limited.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use selvedge_fabric::{id::ZoneName, key::NodeId};

use super::graph::{Graph, Node};

/// What a contract asks of a path.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Constraint<'a> {
    /// Places still to pass, in this order.
    pub(crate) via: &'a [ZoneName],
    /// Places that must not be entered, not even at the ends.
    pub(crate) avoid: &'a [ZoneName],
    /// Places whose processors do not carry it, unless one of its ends is there.
    pub(crate) refusing: &'a [ZoneName],
    /// Where the packet came from at first, whose own zone carries it.
    pub(crate) origin: Option<&'a ZoneName>,
    /// Most links.
    pub(crate) max_hops: u8,
    /// A node that must not be the first hop: the one it came from.
    pub(crate) not_back_to: Option<NodeId>,
}

/// A path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path {
    /// The nodes, both ends included.
    pub(crate) nodes: Vec<NodeId>,
    /// How many of the places to pass the first node itself is in.
    pub(crate) passed_here: usize,
}

impl Path {
    /// The first hop.
    pub(crate) fn next(&self) -> Option<NodeId> {
        self.nodes.get(1).copied()
    }
}

/// (node, places passed, links crossed or 0).
type State = (usize, usize, u8);

/// The best path; among equals the one with fewer links, then the one over lower ids, so that the same
/// facts give the same path everywhere.
pub(crate) fn best_path(graph: &Graph, from: NodeId, to: NodeId, asked: &Constraint<'_>) -> Option<Path> {
    let search = Search::new(graph, from, to, asked)?;
    search.run()
}

struct Search<'a> {
    graph: &'a Graph,
    asked: &'a Constraint<'a>,
    from: usize,
    to: usize,
    /// Links crossed matter only if not even the longest simple path stays within the limit.
    limited: bool,
}

impl<'a> Search<'a> {
    fn new(graph: &'a Graph, from: NodeId, to: NodeId, asked: &'a Constraint<'a>) -> Option<Self> {
        let (from, to) = (graph.position(from)?, graph.position(to)?);
        let reach = (asked.via.len() + 1) * graph.nodes.len();
        let search = Self { graph, asked, from, to, limited: usize::from(asked.max_hops) < reach };
        (search.permits(from) && search.permits(to)).then_some(search)
    }

    fn run(&self) -> Option<Path> {
        let start = (self.from, self.passed(&self.graph.nodes[self.from], 0), 0);
        let mut best: BTreeMap<State, (u64, u32)> = BTreeMap::from([(start, (0, 0))]);
        let mut parents: BTreeMap<State, State> = BTreeMap::new();
        let mut queue = BinaryHeap::from([Reverse((0, 0, start))]);
        while let Some(Reverse((cost, hops, state))) = queue.pop() {
            if best.get(&state) != Some(&(cost, hops)) {
                continue;
            }
            if state.0 == self.to && state.1 == self.asked.via.len() {
                return Some(self.path(start, state, &parents));
            }
            if hops >= u32::from(self.asked.max_hops) || !self.leaves(state.0) {
                continue;
            }
            for (next, link) in &self.graph.nodes[state.0].links {
                let Some(entered) = self.enter(state, *next, start) else { continue };
                let reached = (cost + link, hops + 1);
                if best.get(&entered).is_none_or(|known| reached < *known) {
                    best.insert(entered, reached);
                    parents.insert(entered, state);
                    queue.push(Reverse((reached.0, reached.1, entered)));
                }
            }
        }
        None
    }

    /// The state after crossing a link, if that is permitted.
    fn enter(&self, state: State, next: usize, start: State) -> Option<State> {
        let node = &self.graph.nodes[next];
        if state == start && self.asked.not_back_to == Some(node.id) && start.1 == 0 {
            return None;
        }
        if next == self.from || !self.permits(next) {
            return None;
        }
        let crossed = if self.limited { state.2 + 1 } else { 0 };
        Some((next, self.passed(node, state.1), crossed))
    }

    /// Whether packets may enter a node at all.
    fn permits(&self, at: usize) -> bool {
        !covers(self.asked.avoid, &self.graph.nodes[at].zone)
    }

    /// Whether a node sends on what it did not make.
    fn leaves(&self, at: usize) -> bool {
        let (node, target) = (&self.graph.nodes[at], &self.graph.nodes[self.to]);
        let for_own = node.zone == target.zone || self.asked.origin == Some(&node.zone);
        at == self.from || (node.carries && (for_own || !covers(self.asked.refusing, &node.zone)))
    }

    /// How many of the places are passed on entering a node.
    fn passed(&self, node: &Node, before: usize) -> usize {
        let rest = self.asked.via[before..].iter();
        before + rest.take_while(|place| place.covers(&node.zone)).count()
    }

    fn path(&self, start: State, end: State, parents: &BTreeMap<State, State>) -> Path {
        let mut nodes = vec![self.graph.nodes[end.0].id];
        let mut at = end;
        while let Some(parent) = parents.get(&at) {
            nodes.push(self.graph.nodes[parent.0].id);
            at = *parent;
        }
        nodes.reverse();
        Path { nodes, passed_here: start.1 }
    }
}

/// Whether one of these places is or holds a zone.
pub(crate) fn covers(places: &[ZoneName], zone: &ZoneName) -> bool {
    places.iter().any(|place| place.covers(zone))
}
