//! What people and other nodes are told.

use selvedge_fabric::{
    abi::Identity,
    id::{ContractRef, NodeName},
    key::NodeId,
    record::{LinkFact, MAX_LINKS},
};

use super::Router;
use crate::{
    Micros,
    reason::{Counters, Refusal},
    route::{Constraint, DEFAULT_HOP_LIMIT, best_path},
};

/// A round trip that moved by less than this is not told anew.
const TOLD_ROUND_TRIP_US: u32 = 2_000;
/// Loss that moved by less than this is not told anew.
const TOLD_LOSS_PERMILLE: u16 = 20;

/// Whether a link works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkState {
    /// Probes are answered.
    Up,
    /// There is a connection, but probes are not answered.
    Probing,
    /// There is no connection.
    Down,
}

impl LinkState {
    /// As people and scripts see it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Probing => "probing",
            Self::Down => "down",
        }
    }
}

/// A link of this node.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkStatus {
    /// The other end.
    pub peer: NodeName,
    /// Whether it works.
    pub state: LinkState,
    /// Smoothed round trip, milliseconds; `None` before the first answer.
    pub rtt_ms: Option<f64>,
    /// Part of the newest probes that was lost, 0 to 1.
    pub loss: f64,
    /// Bytes sent in datagrams.
    pub tx_bytes: u64,
    /// Bytes received in datagrams.
    pub rx_bytes: u64,
    /// Largest datagram, bytes.
    pub max_datagram: Option<usize>,
}

/// The way to a node when no contract constrains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteStatus {
    /// Where to.
    pub node: NodeName,
    /// Over which nodes, itself included; empty when there is no way.
    pub path: Vec<NodeName>,
}

impl Router {
    /// What was sent, delivered, carried and refused.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The links, by node.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        let named = self.links.iter().filter_map(|(id, link)| Some((self.name(*id)?, link)));
        named
            .map(|(peer, link)| {
                let quality = link.quality();
                LinkStatus {
                    peer,
                    state: match (link.is_up(), link.max_datagram) {
                        (true, _) => LinkState::Up,
                        (false, Some(_)) => LinkState::Probing,
                        (false, None) => LinkState::Down,
                    },
                    rtt_ms: (quality.rtt_us > 0).then(|| f64::from(quality.rtt_us) / 1_000.0),
                    loss: f64::from(quality.loss_permille) / 1_000.0,
                    tx_bytes: link.tx_bytes,
                    rx_bytes: link.rx_bytes,
                    max_datagram: link.max_datagram,
                }
            })
            .collect()
    }

    /// The ways to all other nodes, where no contract constrains them.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        let others = self.routing.nodes.iter().filter(|(id, _)| **id != self.me);
        others.map(|(id, node)| RouteStatus { node: node.name.clone(), path: self.free_path(*id) }).collect()
    }

    /// The links that work, as facts for other nodes.
    #[must_use]
    pub fn facts(&self) -> Vec<LinkFact> {
        let facts = self.qualities().into_iter().map(|(peer, quality)| LinkFact {
            peer,
            rtt_us: quality.rtt_us,
            loss_permille: quality.loss_permille,
        });
        facts.take(MAX_LINKS).collect()
    }

    /// The nodes over which a packet of a contract would go from here to `to`, both ends included, by
    /// what this node knows.
    ///
    /// # Errors
    /// Why there is no way.
    pub fn trace(&self, contract: Option<&ContractRef>, to: &NodeName) -> Result<Vec<NodeName>, Refusal> {
        let node = self.routing.nodes.iter().find(|(_, node)| node.name == *to).map(|(id, _)| *id);
        let node = node.ok_or(Refusal::UnknownNode)?;
        if node == self.me {
            return Ok(self.name(self.me).into_iter().collect());
        }
        let path = contract.and_then(|contract| self.routing.paths.get(contract));
        let refusing = contract.and_then(|contract| self.routing.refusals.get(contract));
        let asked = Constraint {
            via: path.map_or(&[], |path| &path.via),
            avoid: path.map_or(&[], |path| &path.avoid),
            refusing: refusing.map_or(&[], |zones| zones),
            origin: self.zone(self.me),
            max_hops: self.hop_limit(contract),
            not_back_to: None,
        };
        let found = best_path(&self.graph, self.me, node, &asked).ok_or(Refusal::NoRoute)?;
        Ok(self.names(&found.nodes))
    }

    /// The identity of the service behind an address, and its node, as the router knows them.
    #[must_use]
    pub fn owner(&self, address: std::net::IpAddr) -> Option<(NodeName, Identity)> {
        let owner = self.routing.owners.get(&address)?;
        Some((self.name(owner.node)?, owner.identity.unwrap_or_default()))
    }

    fn free_path(&self, to: NodeId) -> Vec<NodeName> {
        let asked = Constraint { max_hops: DEFAULT_HOP_LIMIT, ..Constraint::default() };
        best_path(&self.graph, self.me, to, &asked).map_or_else(Vec::new, |path| self.names(&path.nodes))
    }

    fn names(&self, nodes: &[NodeId]) -> Vec<NodeName> {
        nodes.iter().filter_map(|node| self.name(*node)).collect()
    }

    fn name(&self, node: NodeId) -> Option<NodeName> {
        self.routing.nodes.get(&node).map(|node| node.name.clone())
    }
}

/// Whether facts about links moved enough to be told at once (a link came or went), or at all.
#[must_use]
pub fn facts_differ(before: &[LinkFact], after: &[LinkFact]) -> Option<Difference> {
    let peers = |facts: &[LinkFact]| facts.iter().map(|fact| fact.peer).collect::<Vec<_>>();
    if peers(before) != peers(after) {
        return Some(Difference::Links);
    }
    let moved = before.iter().zip(after).any(|(before, after)| {
        let step = TOLD_ROUND_TRIP_US.max(before.rtt_us / 4);
        before.rtt_us.abs_diff(after.rtt_us) > step
            || before.loss_permille.abs_diff(after.loss_permille) > TOLD_LOSS_PERMILLE
    });
    moved.then_some(Difference::Quality)
}

/// How facts about links differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Difference {
    /// A link came or went.
    Links,
    /// One became faster, slower or lossier.
    Quality,
}

/// How often changed round trips are told.
pub const QUALITY_INTERVAL_US: Micros = 5_000_000;
