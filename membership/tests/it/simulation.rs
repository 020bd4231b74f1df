//! The dissemination core under one seed: virtual time, hundreds of nodes, loss, delay and a partition.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use selvedge_fabric::{
    key::{NodeId, Signer},
    record::{Body, Load, Record, Topic},
};
use selvedge_membership::core::{
    Now,
    gossip::{Gossip, Transmit, Verdict},
    own::{Identity, Own},
    store::RecordStore,
    wire::{Request, Response},
};

use crate::fabric::{FABRIC, key, policy};

const STEP_MS: u64 = 10;
/// Neighbours that each node chooses; it also has those that chose it.
const NEIGHBOURS: usize = 8;

enum Packet {
    Push(Box<Record>),
    Request(Request),
    Response(Response),
}

struct Node {
    key: SigningKey,
    gossip: Gossip,
    neighbours: BTreeSet<usize>,
}

/// The nodes and the network between them.
struct Sim {
    now_ms: u64,
    rng: SmallRng,
    nodes: Vec<Node>,
    ids: BTreeMap<NodeId, usize>,
    /// Packets by arrival time and number: to, from, what.
    wire: BTreeMap<(u64, u64), (usize, usize, Packet)>,
    sent: u64,
    loss_percent: u32,
    cut: bool,
}

impl Sim {
    fn new(count: usize, seed: u64, loss_percent: u32) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let policy = policy(&vec!["a"; count]);
        let mut nodes: Vec<Node> = (0..count)
            .map(|n| {
                let mut store = RecordStore::new(FABRIC, 0);
                store.set_policy(&policy);
                let own = Own::new(key(n).public_key(), 0, rng.random());
                let gossip = Gossip::new(store, own, 1_000, rng.random());
                Node { key: key(n), gossip, neighbours: BTreeSet::new() }
            })
            .collect();
        for n in 0..count {
            for _ in 0..NEIGHBOURS {
                let other = rng.random_range(0..count);
                if other != n {
                    nodes[n].neighbours.insert(other);
                    nodes[other].neighbours.insert(n);
                }
            }
        }
        let ids = (0..count).map(|n| (key(n).public_key().node_id(), n)).collect();
        let wire = BTreeMap::new();
        let mut sim = Self { now_ms: 0, rng, nodes, ids, wire, sent: 0, loss_percent, cut: false };
        sim.connect();
        sim
    }

    fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix_ms: self.now_ms }
    }

    /// Brings up the connections that the network allows.
    fn connect(&mut self) {
        let now = self.now();
        for n in 0..self.nodes.len() {
            for other in self.nodes[n].neighbours.clone() {
                let id = self.nodes[other].key.public_key().node_id();
                if self.reaches(n, other) {
                    self.nodes[n].gossip.handle_connected(id, now);
                } else {
                    self.nodes[n].gossip.handle_disconnected(id);
                }
            }
        }
    }

    /// While the network is cut, odd and even nodes do not reach each other.
    const fn reaches(&self, from: usize, to: usize) -> bool {
        !self.cut || from % 2 == to % 2
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        if !self.reaches(from, to) || self.rng.random_range(0..100) < self.loss_percent {
            return;
        }
        let delay_ms = self.rng.random_range(1..150);
        self.sent += 1;
        self.wire.insert((self.now_ms + delay_ms, self.sent), (to, from, packet));
    }

    /// What the mesh does: to every neighbour but the one it came from.
    fn spread(&mut self, from: usize, record: &Record, except: Option<usize>) {
        for to in self.nodes[from].neighbours.clone() {
            if Some(to) != except {
                self.send(from, to, Packet::Push(Box::new(record.clone())));
            }
        }
    }

    fn deliver(&mut self, to: usize, from: usize, packet: Packet) {
        let now = self.now();
        let sender = self.nodes[from].key.public_key().node_id();
        let gossip = &mut self.nodes[to].gossip;
        match packet {
            Packet::Push(record) => {
                if gossip.handle_push(sender, (*record).clone(), now) == Verdict::Accept {
                    self.spread(to, &record, Some(from));
                }
            }
            Packet::Request(request) => {
                let response = gossip.handle_request(sender, request, now);
                self.send(to, from, Packet::Response(response));
            }
            Packet::Response(response) => gossip.handle_response(sender, response, now),
        }
    }

    fn run(&mut self, for_ms: u64) {
        let end_ms = self.now_ms + for_ms;
        while self.now_ms < end_ms {
            self.now_ms += STEP_MS;
            while let Some(entry) = self.wire.first_entry().filter(|e| e.key().0 <= self.now_ms) {
                let (to, from, packet) = entry.remove();
                self.deliver(to, from, packet);
            }
            for n in 0..self.nodes.len() {
                self.step(n);
            }
        }
    }

    fn step(&mut self, n: usize) {
        let now = self.now();
        let node = &mut self.nodes[n];
        let identity = Identity { fabric: FABRIC, epoch: 0, signer: &node.key };
        node.gossip.handle_timeout(&identity, now);
        while node.gossip.poll_event().is_some() {}
        let transmits: Vec<Transmit> = std::iter::from_fn(|| node.gossip.poll_transmit(now)).collect();
        for transmit in transmits {
            match transmit {
                Transmit::Publish(record) => self.spread(n, &record, None),
                Transmit::Ask { to, request } => self.send(n, self.ids[&to], Packet::Request(request)),
            }
        }
    }

    fn say(&mut self, n: usize, cpu_percent: u16) {
        let body = Body::Load(Load { cpu_percent, rss_mib: 0 });
        self.nodes[n].gossip.own().say(body, false);
    }

    /// How many nodes have heard that node `n` says so.
    fn informed(&self, n: usize, cpu_percent: u16) -> usize {
        let id = self.nodes[n].key.public_key().node_id();
        let body = Body::Load(Load { cpu_percent, rss_mib: 0 });
        self.nodes.iter().filter(|node| node.gossip.store().body(id, Topic::Load) == Some(&body)).count()
    }

    fn agree(&self) -> bool {
        let sums = self.nodes[0].gossip.store().sums();
        self.nodes.iter().all(|node| node.gossip.store().sums() == sums)
    }
}

#[test]
fn a_new_fact_reaches_all_despite_loss() {
    for seed in 0..3 {
        let mut sim = Sim::new(120, seed, 20);
        sim.say(0, 1);
        sim.run(10_000);
        assert_eq!(sim.informed(0, 1), 120, "seed {seed}");
    }
}

#[test]
fn a_push_alone_is_fast() {
    let mut sim = Sim::new(120, 1, 0);
    sim.run(3_000);
    sim.say(7, 9);
    // Five hops or so of at most 150 ms, before anti-entropy has had a round everywhere.
    sim.run(1_000);
    assert_eq!(sim.informed(7, 9), 120);
}

#[test]
fn halves_that_were_cut_apart_agree_after_they_heal() {
    for seed in 0..2 {
        let mut sim = Sim::new(60, seed, 10);
        (0..60).for_each(|n| sim.say(n, 1));
        sim.run(8_000);
        assert!(sim.agree(), "seed {seed}: before the cut");
        sim.cut = true;
        sim.connect();
        (0..60).for_each(|n| sim.say(n, 2));
        sim.run(8_000);
        assert_eq!((sim.agree(), sim.informed(0, 2)), (false, 30), "seed {seed}: while cut");
        sim.cut = false;
        sim.connect();
        sim.run(12_000);
        assert!(sim.agree() && sim.informed(0, 2) == 60, "seed {seed}: healed");
    }
}

#[test]
fn three_hundred_nodes_agree_and_the_same_seed_does_the_same() {
    let run = || {
        let mut sim = Sim::new(300, 5, 5);
        (0..30).for_each(|n| sim.say(n * 10, 3));
        sim.run(5_000);
        (sim.sent, sim.agree(), sim.nodes[17].gossip.store().sums().to_vec())
    };
    let (sent, agree, sums) = run();
    assert!(agree);
    assert_eq!(run(), (sent, agree, sums));
}
