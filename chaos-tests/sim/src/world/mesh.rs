//! Connections of the gossip carrier: who has one with whom, and when it ends.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, seq::IteratorRandom};

use super::{Event, World};

/// Up to this many nodes everybody is connected with everybody, as the carrier's dialer has it.
const FULL_MESH: usize = 17;
/// Neighbours that each node of a larger fabric chooses; it also has those that chose it.
const CHOSEN: usize = 4;
/// How often connections are looked at.
const MESH_MS: u64 = 250;
/// Silence after which QUIC gives a connection up.
const IDLE_TIMEOUT_MS: u64 = 8_000;

/// A connection: the lives of its two ends, and when it was last seen to work.
#[derive(Debug, Clone, Copy)]
struct Link {
    lives: (u32, u32),
    worked_ms: u64,
}

/// All connections, by their ends, the lower first.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: BTreeMap<(usize, usize), Link>,
    peers: BTreeMap<usize, BTreeSet<usize>>,
}

impl Links {
    pub(super) fn of(&self, n: usize) -> impl Iterator<Item = usize> + '_ {
        self.peers.get(&n).into_iter().flatten().copied()
    }

    fn insert(&mut self, a: usize, b: usize, link: Link) {
        self.links.insert((a, b), link);
        self.peers.entry(a).or_default().insert(b);
        self.peers.entry(b).or_default().insert(a);
    }

    fn remove(&mut self, a: usize, b: usize) {
        self.links.remove(&(a, b));
        for (at, other) in [(a, b), (b, a)] {
            if let Some(peers) = self.peers.get_mut(&at) {
                peers.remove(&other);
            }
        }
    }
}

impl World {
    pub(super) fn choose_neighbours(&mut self) {
        for n in 0..self.slots.len() {
            self.choose_neighbours_of(n);
        }
    }

    pub(super) fn choose_neighbours_of(&mut self, n: usize) {
        let count = self.slots.len();
        let chosen: Vec<usize> = if count <= FULL_MESH {
            (0..count).collect()
        } else {
            let elsewhere = (0..count).filter(|m| self.slots[*m].birth.cloud != self.slots[n].birth.cloud);
            let far = elsewhere.choose(&mut self.rng);
            (0..CHOSEN).map(|_| self.rng.random_range(0..count)).chain(far).collect()
        };
        for other in chosen.into_iter().filter(|other| *other != n) {
            self.slots[n].neighbours.insert(other);
            self.slots[other].neighbours.insert(n);
        }
    }

    /// Brings up the connections that can be, and takes down those that cannot.
    pub(super) fn mend_mesh(&mut self) {
        for a in 0..self.slots.len() {
            let above: Vec<usize> = self.slots[a].neighbours.range(a + 1..).copied().collect();
            for b in above {
                self.mend_link(a, b);
            }
        }
        (0..self.slots.len()).for_each(|n| self.connect(n));
        self.schedule(MESH_MS, Event::Mesh);
    }

    fn mend_link(&mut self, a: usize, b: usize) {
        let lives = (self.slots[a].life, self.slots[b].life);
        let can_be = self.network.connects(a, b) && self.lets_in(a, b) && self.lets_in(b, a);
        match self.links.links.get_mut(&(a, b)) {
            Some(link) if can_be && link.lives == lives => link.worked_ms = self.now_ms,
            Some(link) if !can_be && self.now_ms - link.worked_ms < IDLE_TIMEOUT_MS => {}
            Some(_) => {
                self.links.remove(a, b);
                self.tell_link(a, b, false);
            }
            None if can_be => {
                self.links.insert(a, b, Link { lives, worked_ms: self.now_ms });
                self.tell_link(a, b, true);
            }
            None => {}
        }
    }

    /// The connections that a node's router wants, as far as the network allows them.
    fn connect(&mut self, n: usize) {
        let Some(node) = &self.slots[n].node else { return };
        let wanted = node.wanted();
        let wanted: BTreeSet<usize> = wanted.iter().filter_map(|id| self.by_id.get(id).copied()).collect();
        let before = self.slots[n].connections.clone();
        for other in wanted.iter().chain(before.keys()).copied().collect::<BTreeSet<_>>() {
            let can_be = self.network.connects(n, other) && self.lets_in(n, other) && self.lets_in(other, n);
            let life = self.slots[other].life;
            let (had, has) =
                (before.get(&other).copied(), (can_be && wanted.contains(&other)).then_some(life));
            if had == has {
                continue;
            }
            let peer = self.births[other].id();
            let now_ms = self.now_ms;
            let Some(node) = &mut self.slots[n].node else { return };
            if had.is_some() {
                node.handle_connection(peer, false, now_ms);
                self.slots[n].connections.remove(&other);
            }
            if let (Some(life), Some(node)) = (has, &mut self.slots[n].node) {
                node.handle_connection(peer, true, now_ms);
                self.slots[n].connections.insert(other, life);
            }
            self.drain(n);
        }
    }

    fn lets_in(&self, n: usize, other: usize) -> bool {
        let running = self.slots[n].node.as_ref().filter(|_| !self.is_paused(n));
        running.is_some_and(|node| node.admits(self.births[other].id()))
    }

    fn tell_link(&mut self, a: usize, b: usize, up: bool) {
        for (at, other) in [(a, b), (b, a)] {
            let peer = self.births[other].id();
            if let Some(node) = &mut self.slots[at].node {
                match up {
                    true => node.handle_connected(peer, self.now_ms),
                    false => node.handle_disconnected(peer),
                }
            }
            self.drain(at);
        }
    }
}
