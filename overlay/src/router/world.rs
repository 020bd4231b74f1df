//! Several routers joined by an underlay that delivers, delays, cuts and lets tests look at everything.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use selvedge_fabric::{
    key::NodeId,
    plan::{LinkQuality, Routing},
};
use zeroize::Zeroizing;

use super::{Output, Router, Settings};
use crate::{Micros, testing};

/// A datagram takes this long.
const DELAY_US: Micros = 1_000;
const STEP_US: Micros = 5_000;

pub(super) struct World {
    pub(super) now: Micros,
    pub(super) routers: BTreeMap<u64, Router>,
    /// What all of them plan by; `me` and facts are filled in.
    pub(super) intent: Routing,
    /// Pairs whose underlay connects, the lower id first.
    pub(super) connected: BTreeSet<(u64, u64)>,
    /// Packets that reached TUNs.
    pub(super) arrived: BTreeMap<u64, Vec<Bytes>>,
    /// Every datagram that was delivered.
    pub(super) wire: Vec<(u64, u64, Bytes)>,
    pub(super) max_datagram: usize,
    /// Nodes that do not get plans.
    pub(super) frozen: BTreeSet<u64>,
    under_way: VecDeque<(Micros, u64, u64, Bytes)>,
    told: BTreeMap<(NodeId, NodeId), LinkQuality>,
}

impl World {
    /// Nodes in zones, and which pairs can reach each other.
    pub(super) fn new(nodes: &[(u64, &str)], connected: &[(u64, u64)]) -> Self {
        let intent = testing::routing(nodes[0].0, nodes, &[]);
        let mut world = Self {
            now: 0,
            routers: BTreeMap::new(),
            intent,
            connected: connected.iter().map(|(a, b)| (*a.min(b), *a.max(b))).collect(),
            arrived: BTreeMap::new(),
            wire: Vec::new(),
            max_datagram: 1_414,
            frozen: BTreeSet::new(),
            under_way: VecDeque::new(),
            told: BTreeMap::new(),
        };
        for (id, _) in nodes {
            world.restart(*id);
        }
        world.plan();
        world.run(500);
        world
    }

    /// Starts a node anew, without what it had in memory.
    pub(super) fn restart(&mut self, id: u64) {
        let settings = Settings {
            me: NodeId(id),
            sealing_secret: Zeroizing::new(testing::secret(id)),
            first_session: (self.now as u32).wrapping_add(id as u32),
            direct: true,
        };
        self.routers.insert(id, Router::new(settings));
        self.plan();
    }

    /// Gives everybody the present intent and facts.
    pub(super) fn plan(&mut self) {
        for (id, router) in &mut self.routers {
            if !self.frozen.contains(id) {
                let me = Some(NodeId(*id));
                let routing = Routing { me, measured: self.told.clone(), ..self.intent.clone() };
                router.handle_plan(Arc::new(routing), self.now);
            }
        }
    }

    /// Lets so many milliseconds pass.
    pub(super) fn run(&mut self, ms: u64) {
        let end = self.now + ms * 1_000;
        while self.now < end {
            self.now += STEP_US;
            self.connect();
            for router in self.routers.values_mut() {
                router.handle_tick(self.now);
            }
            self.carry();
            self.gossip();
        }
    }

    pub(super) fn send(&mut self, from: u64, packet: &[u8]) {
        let router = self.routers.get_mut(&from).unwrap();
        router.handle_packet(Bytes::copy_from_slice(packet), self.now);
        self.carry();
    }

    /// Hands a node a datagram as from another.
    pub(super) fn inject(&mut self, from: u64, to: u64, bytes: &Bytes) {
        self.routers.get_mut(&to).unwrap().handle_datagram(NodeId(from), bytes, self.now);
        self.carry();
    }

    pub(super) fn refused(&self, at: u64, why: crate::Refusal) -> u64 {
        self.routers[&at].counters().refused(why)
    }

    pub(super) fn arrived_at(&mut self, node: u64) -> Vec<Bytes> {
        self.arrived.remove(&node).unwrap_or_default()
    }

    fn connect(&mut self) {
        let wanted: BTreeSet<(u64, u64)> = self
            .routers
            .iter()
            .flat_map(|(id, router)| router.wanted().iter().map(|to| ((*id).min(to.0), (*id).max(to.0))))
            .collect();
        let ids: Vec<u64> = self.routers.keys().copied().collect();
        for a in &ids {
            for b in ids.iter().filter(|b| *b > a) {
                let there = wanted.contains(&(*a, *b)) && self.connected.contains(&(*a, *b));
                let max = there.then_some(self.max_datagram);
                for (at, to) in [(a, b), (b, a)] {
                    self.routers.get_mut(at).unwrap().handle_connection(NodeId(*to), max, self.now);
                }
            }
        }
    }

    /// Moves datagrams and packets until nothing moves at this instant or shortly after.
    fn carry(&mut self) {
        loop {
            for (from, router) in &mut self.routers {
                while let Some(output) = router.poll() {
                    match output {
                        Output::Datagram { to, bytes } => {
                            self.under_way.push_back((self.now + DELAY_US, *from, to.0, bytes));
                        }
                        Output::Packet(packet) => self.arrived.entry(*from).or_default().push(packet),
                    }
                }
            }
            let Some((at, from, to, bytes)) = self.under_way.pop_front() else { return };
            assert!(bytes.len() <= self.max_datagram);
            self.now = self.now.max(at);
            if self.connected.contains(&(from.min(to), from.max(to))) {
                self.wire.push((from, to, bytes.clone()));
                self.routers.get_mut(&to).unwrap().handle_datagram(NodeId(from), &bytes, self.now);
            }
        }
    }

    fn gossip(&mut self) {
        let measured = self.routers.iter().flat_map(|(id, router)| {
            router
                .facts()
                .into_iter()
                .map(|fact| ((NodeId(*id), fact.peer), LinkQuality { rtt_us: 1_000, loss_permille: 0 }))
        });
        let measured: BTreeMap<_, _> = measured.collect();
        if measured != self.told {
            self.told = measured;
            self.plan();
        }
    }
}
