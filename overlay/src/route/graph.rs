//! Nodes and links, with what it costs to cross them.

use std::collections::BTreeMap;

use selvedge_fabric::{
    command::Role,
    id::ZoneName,
    key::NodeId,
    plan::{LinkQuality, Routing},
};

/// Cost of a link that is not declared; the default of declared ones.
const DEFAULT_LINK_COST: u64 = 10;
/// One unit of declared cost weighs as much as so many microseconds of round trip. So a path with a link
/// less is preferred unless the longer one saves 10 ms.
const COST_US: u64 = 1_000;
/// Round trips count in steps of this many microseconds, so that jitter does not move routes.
const ROUND_TRIP_STEP_US: u64 = 1_000;
/// Each lost permille weighs as much as this many microseconds: at 10 % loss a link costs 50 ms more.
const LOSS_US: u64 = 500;
/// What is added for a node that enforces an older policy than ours: a frame would wait there.
const OLD_POLICY_US: u64 = 20_000;

/// Nodes and links as one node knows them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Graph {
    pub(super) nodes: Vec<Node>,
    index: BTreeMap<NodeId, usize>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) id: NodeId,
    pub(super) zone: ZoneName,
    /// Whether it carries packets for others.
    pub(super) carries: bool,
    /// The other ends of its links, by position, with their costs; in order of position.
    pub(super) links: Vec<(usize, u64)>,
}

impl Graph {
    /// The graph by what intent and facts say; `own` are the links that this node itself sees alive.
    ///
    /// A link between two others counts when both ends measure it: the one that still does when the other
    /// has given it up is wrong.
    pub(crate) fn new(routing: &Routing, own: &BTreeMap<NodeId, LinkQuality>) -> Self {
        let up = routing.nodes.iter().filter(|(id, node)| node.up || Some(**id) == routing.me);
        let nodes: Vec<Node> = up
            .map(|(id, node)| Node {
                id: *id,
                zone: node.zone.clone(),
                carries: node.role == Role::Processor,
                links: Vec::new(),
            })
            .collect();
        let index = nodes.iter().enumerate().map(|(at, node)| (node.id, at)).collect();
        let mut graph = Self { nodes, index };
        for ((from, to), quality) in &routing.measured {
            let mine = Some(*from) == routing.me || Some(*to) == routing.me;
            if !mine
                && from < to
                && let Some(back) = routing.measured.get(&(*to, *from))
            {
                graph.connect(routing, *from, *to, worse(*quality, *back));
            }
        }
        if let Some(me) = routing.me {
            for (peer, quality) in own {
                graph.connect(routing, me, *peer, *quality);
            }
        }
        for node in &mut graph.nodes {
            node.links.sort_unstable();
        }
        graph
    }

    /// Where a node is in the graph.
    pub(super) fn position(&self, node: NodeId) -> Option<usize> {
        self.index.get(&node).copied()
    }

    fn connect(&mut self, routing: &Routing, a: NodeId, b: NodeId, quality: LinkQuality) {
        let (Some(at_a), Some(at_b)) = (self.position(a), self.position(b)) else { return };
        if a == b || !link_is_permitted(routing, a, b) {
            return;
        }
        let cost = cost(routing, a, b, quality);
        self.nodes[at_a].links.push((at_b, cost + age_cost(routing, b)));
        self.nodes[at_b].links.push((at_a, cost + age_cost(routing, a)));
    }
}

/// Whether two nodes may have a link: of processors, where links are declared, only those.
pub(crate) fn link_is_permitted(routing: &Routing, a: NodeId, b: NodeId) -> bool {
    let role = |id| routing.nodes.get(&id).map(|node| node.role);
    match (role(a), role(b), &routing.declared) {
        (None, _, _) | (_, None, _) => false,
        (Some(Role::Processor), Some(Role::Processor), Some(declared)) => {
            declared.get(&(a.min(b), a.max(b))).is_some_and(|link| link.enabled)
        }
        (Some(_), Some(_), _) => true,
    }
}

const fn worse(a: LinkQuality, b: LinkQuality) -> LinkQuality {
    LinkQuality {
        rtt_us: if a.rtt_us > b.rtt_us { a.rtt_us } else { b.rtt_us },
        loss_permille: if a.loss_permille > b.loss_permille { a.loss_permille } else { b.loss_permille },
    }
}

fn cost(routing: &Routing, a: NodeId, b: NodeId, quality: LinkQuality) -> u64 {
    let declared = routing.declared.as_ref().and_then(|links| links.get(&(a.min(b), a.max(b))));
    let declared = declared.map_or(DEFAULT_LINK_COST, |link| u64::from(link.cost));
    let round_trip = u64::from(quality.rtt_us) / ROUND_TRIP_STEP_US * ROUND_TRIP_STEP_US;
    declared * COST_US + round_trip + u64::from(quality.loss_permille) * LOSS_US
}

/// What it costs to enter a node that does not enforce our revision yet.
fn age_cost(routing: &Routing, node: NodeId) -> u64 {
    let enforced = routing.nodes.get(&node).and_then(|node| node.revision);
    if enforced.is_some_and(|revision| revision < routing.revision) { OLD_POLICY_US } else { 0 }
}
