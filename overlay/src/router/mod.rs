//! The router of one node, as a machine without IO: what comes in are packets of the TUN, datagrams of
//! links, plans and time; what comes out are datagrams, packets, and wishes for links.
//!
//! * [`source`]: packets that leave here.
//! * [`transit`]: frames that come from other nodes, to be carried on or to arrive.
//! * [`links`]: which links there should be, and which live.
//! * [`status`]: what people and other nodes are told.

mod links;
mod source;
mod status;
mod transit;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use selvedge_fabric::{
    command::Role,
    id::{ContractRef, ZoneName},
    key::NodeId,
    object::PathSpec,
    plan::Routing,
};
use zeroize::Zeroizing;

use crate::{
    Micros,
    frame::Header,
    link::Link,
    neighbours::Direct,
    reason::{Counters, Refusal},
    route::{Constraint, DEFAULT_HOP_LIMIT, Graph, best_path, covers},
    seal::Sessions,
    wait::{
        Fragmented, MAX_POLICY_WAIT_US, MAX_SESSION_WAIT_US, MAX_WAITING_PER_NEIGHBOUR,
        MAX_WAITING_PER_SESSION, Waiting,
    },
    wire,
};

pub use status::{Difference, LinkState, LinkStatus, QUALITY_INTERVAL_US, RouteStatus, facts_differ};

/// Routes that are remembered between two changes of the topology.
const MAX_ROUTES: usize = 16_384;

/// What a router is told once.
pub struct Settings {
    /// This node.
    pub me: NodeId,
    /// The secret half of the sealing key with which it was admitted (X25519).
    pub sealing_secret: Zeroizing<[u8; 32]>,
    /// Number of the first session; should differ between starts.
    pub first_session: u32,
    /// Whether direct links to nodes with which there is traffic are tried.
    pub direct: bool,
}

/// What a router wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Send a datagram on the link to a node.
    Datagram {
        /// The neighbour.
        to: NodeId,
        /// What.
        bytes: Bytes,
    },
    /// Hand an IP packet to the TUN.
    Packet(Bytes),
}

/// The router of one node.
pub struct Router {
    me: NodeId,
    direct_links: bool,
    routing: Arc<Routing>,
    graph: Graph,
    routes: BTreeMap<RouteKey, Result<Hop, Refusal>>,
    links: BTreeMap<NodeId, Link>,
    /// Nodes to which links are wanted.
    wanted: BTreeSet<NodeId>,
    /// Nodes that were not reached, until when others are preferred.
    failing: BTreeMap<NodeId, Micros>,
    direct: Direct,
    sessions: Sessions,
    waiting_for_policy: Waiting,
    waiting_for_session: Waiting,
    fragmented: Fragmented,
    counters: Counters,
    housekeeping_at: Micros,
    out: VecDeque<Output>,
}

/// What a route depends on, besides the topology.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct RouteKey {
    source: NodeId,
    destination: NodeId,
    contract: Option<ContractRef>,
    passed: u8,
    hop_limit: u8,
    previous: Option<NodeId>,
}

/// The next node, and what the frame's header then says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hop {
    next: NodeId,
    hop_limit: u8,
    passed: u8,
}

impl Router {
    /// A router that forwards nothing until it has a plan.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let Settings { me, sealing_secret, first_session, direct } = settings;
        Self {
            me,
            direct_links: direct,
            routing: Arc::default(),
            graph: Graph::default(),
            routes: BTreeMap::new(),
            links: BTreeMap::new(),
            wanted: BTreeSet::new(),
            failing: BTreeMap::new(),
            direct: Direct::default(),
            sessions: Sessions::new(me, sealing_secret, first_session),
            waiting_for_policy: Waiting::new(MAX_WAITING_PER_NEIGHBOUR, MAX_POLICY_WAIT_US),
            waiting_for_session: Waiting::new(MAX_WAITING_PER_SESSION, MAX_SESSION_WAIT_US),
            fragmented: Fragmented::default(),
            counters: Counters::default(),
            housekeeping_at: 0,
            out: VecDeque::new(),
        }
    }

    /// Takes a plan. What waited for a newer policy is judged again.
    pub fn handle_plan(&mut self, routing: Arc<Routing>, now: Micros) {
        self.routing = routing;
        let routing = Arc::clone(&self.routing);
        self.sessions.retain(|node| routing.nodes.get(&node).map(|node| node.sealing_key), now);
        self.update_wanted(now);
        self.topology_changed();
        for neighbour in self.waiting_for_policy.nodes() {
            for (since, frame) in self.waiting_for_policy.take(neighbour) {
                self.handle_frame(neighbour, &frame, since, now);
            }
        }
    }

    /// Does what time brings: probes, the end of waits. Call it every few tens of milliseconds.
    pub fn handle_tick(&mut self, now: Micros) {
        self.tick_links(now);
        let expired = self.waiting_for_policy.expire(now);
        self.refuse_many(Refusal::PolicyWaitExpired, expired);
        let expired = self.waiting_for_session.expire(now);
        self.refuse_many(Refusal::SessionWait, expired);
        for node in self.waiting_for_session.nodes() {
            self.retry_session(node, now);
        }
    }

    /// What it wants done next.
    pub fn poll(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// Counts a packet that was dropped outside: by a full queue, or by the TUN.
    pub const fn refuse(&mut self, why: Refusal) {
        self.counters.refuse(why);
    }

    fn refuse_many(&mut self, why: Refusal, count: usize) {
        for _ in 0..count {
            self.counters.refuse(why);
        }
    }

    /// Everything that was derived from links and nodes is derived again.
    fn topology_changed(&mut self) {
        self.graph = Graph::new(&self.routing, &self.qualities());
        self.routes.clear();
    }

    /// The way to the destination of a frame: for a frame that `previous` handed over, or for one of our
    /// own, whose hop limit is still the contract's.
    fn route(
        &mut self,
        header: &Header,
        contract: Option<&ContractRef>,
        previous: Option<NodeId>,
    ) -> Result<Hop, Refusal> {
        let limit = self.hop_limit(contract);
        if previous.is_some() && (header.hop_limit == 0 || header.hop_limit >= limit) {
            return Err(Refusal::HopLimit);
        }
        let key = RouteKey {
            source: header.source_node,
            destination: header.destination_node,
            contract: contract.cloned(),
            passed: header.passed,
            hop_limit: header.hop_limit,
            previous,
        };
        if let Some(known) = self.routes.get(&key) {
            return *known;
        }
        let found = self.find_route(&key);
        if self.routes.len() >= MAX_ROUTES {
            self.routes.clear();
        }
        self.routes.insert(key, found);
        found
    }

    fn find_route(&self, key: &RouteKey) -> Result<Hop, Refusal> {
        let free = PathSpec::default();
        let path = key.contract.as_ref().and_then(|c| self.routing.paths.get(c)).unwrap_or(&free);
        let refusing = key.contract.as_ref().and_then(|c| self.routing.refusals.get(c));
        let refusing = refusing.map_or(&[][..], Vec::as_slice);
        let origin = self.zone(key.source);
        let asked = Constraint {
            via: path.via.get(usize::from(key.passed)..).unwrap_or_default(),
            avoid: &path.avoid,
            refusing,
            origin,
            max_hops: key.hop_limit,
            not_back_to: key.previous,
        };
        if key.previous.is_some() && !self.carries(key, refusing) {
            return Err(Refusal::TransitRefused);
        }
        let best = best_path(&self.graph, self.me, key.destination, &asked);
        let Some((next, path)) = best.and_then(|path| Some((path.next()?, path))) else {
            let otherwise = Constraint { refusing: &[], ..asked };
            let refused = !refusing.is_empty()
                && best_path(&self.graph, self.me, key.destination, &otherwise).is_some();
            return Err(if refused { Refusal::TransitRefused } else { Refusal::NoRoute });
        };
        let passed = key.passed.saturating_add(u8::try_from(path.passed_here).unwrap_or(u8::MAX));
        Ok(Hop { next, hop_limit: key.hop_limit.saturating_sub(1), passed })
    }

    /// Whether this node carries a frame of others.
    fn carries(&self, key: &RouteKey, refusing: &[ZoneName]) -> bool {
        let Some(mine) = self.routing.nodes.get(&self.me) else { return false };
        let own = [key.source, key.destination].iter().any(|end| self.zone(*end) == Some(&mine.zone));
        mine.role == Role::Processor && (own || !covers(refusing, &mine.zone))
    }

    /// Links that a frame of this contract may cross.
    fn hop_limit(&self, contract: Option<&ContractRef>) -> u8 {
        let path = contract.and_then(|contract| self.routing.paths.get(contract));
        path.and_then(|path| path.max_hops).unwrap_or(DEFAULT_HOP_LIMIT)
    }

    fn zone(&self, node: NodeId) -> Option<&ZoneName> {
        self.routing.nodes.get(&node).map(|node| &node.zone)
    }

    /// Sends a frame to a neighbour, as one or two datagrams.
    fn send_frame(&mut self, to: NodeId, frame: &[u8]) -> Result<(), Refusal> {
        let link = self.links.get_mut(&to).ok_or(Refusal::NoRoute)?;
        let max = link.max_datagram.ok_or(Refusal::NoRoute)?;
        let (first, second) = wire::split(frame, max, link.next_half())?;
        for bytes in std::iter::once(first).chain(second) {
            link.tx_bytes += bytes.len() as u64;
            self.out.push_back(Output::Datagram { to, bytes });
        }
        Ok(())
    }
}
