//! How fast a new fact reaches a thousand nodes, and what that costs each, beside the model that Serf
//! publishes for its own gossip.
//!
//! The model (Serf's convergence simulator): of n nodes of which each tells `fanout` others once in an
//! `interval`, the share that knows after x rounds is `1 / (1 + (n + 1) e^(-fanout x))`. Here the product's
//! own dissemination runs on a mesh in which each node hands a record on to `fanout` others, and, as in the
//! model, only once in an interval, at a phase of its own. (The product's carrier hands on at once; that is
//! the second figure.) What the mesh misses, anti-entropy brings.

use std::collections::{BTreeMap, BTreeSet};

use ed25519_dalek::SigningKey;
use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::SliceRandom};
use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::ZoneName,
    key::{NodeId, PublicKey, Signer},
    policy::{Admission, PolicyState},
    record::{Body, Load, Presence, Record, Topic, Version},
};
use selvedge_membership::{
    Timers,
    core::{
        Now,
        gossip::{Gossip, Transmit, Verdict},
        own::{Identity, Own},
        store::RecordStore,
        wire::{self, Request, Response},
    },
};

use crate::intent::{FABRIC, cloud, key_of, name};

/// Connections come up and the first exchanges end before anything is measured.
const WARM_UP_MS: u64 = 4_000;
/// A fact that has not arrived by then is lost.
const GIVE_UP_MS: u64 = 30_000;
/// How often nodes look at their timers.
const STEP_MS: u64 = 50;
/// The share of nodes that must know, in parts of ten thousand.
const ENOUGH: usize = 9_999;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// Decides everything that is random.
    pub seed: u64,
    /// How many nodes; at least three.
    pub nodes: usize,
    /// To how many others each hands a record on; odd, so that the mesh can be even.
    pub fanout: usize,
    /// How often it does that, milliseconds; 0 is at once.
    pub interval_ms: u64,
    /// Longest way of a message, milliseconds.
    pub delay_ms: u64,
    /// Messages lost, per thousand.
    pub loss_permille: u32,
    /// Nodes of which everybody has a record already: what anti-entropy compares grows with them.
    pub known: usize,
}

/// What was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Figure {
    /// Until 99.99 % of the nodes knew, milliseconds; none when they never did.
    pub known_ms: Option<u64>,
    /// Bytes that a node sent per second, on average over nodes and time.
    pub mean_bytes_per_s: u64,
    /// The same of the busiest node.
    pub most_bytes_per_s: u64,
}

/// Until 99.99 % of the nodes know by Serf's model, milliseconds.
#[must_use]
pub fn model_ms(nodes: usize, fanout: usize, interval_ms: u64, loss_permille: u32) -> f64 {
    let (n, share) = (nodes as f64, ENOUGH as f64 / 10_000.0);
    let contact = fanout as f64 * (1.0 - f64::from(loss_permille) / 1_000.0);
    let rounds = ((n + 1.0) * share / (1.0 - share)).ln() / contact;
    rounds * interval_ms as f64
}

/// Measures.
#[must_use]
pub fn measure(question: Question) -> Figure {
    let mut mesh = Mesh::new(question);
    mesh.run_until(WARM_UP_MS, |_| false);
    mesh.sent_bytes.iter_mut().for_each(|bytes| *bytes = 0);
    let teller = mesh.rng.random_range(0..question.nodes);
    let body = Body::Load(Load { cpu_percent: 77, rss_mib: 1 });
    mesh.nodes[teller].gossip.own().say(body, false);
    mesh.step(teller);
    let enough = (question.nodes * ENOUGH).div_ceil(10_000);
    let known = mesh.run_until(WARM_UP_MS + GIVE_UP_MS, |mesh| mesh.knowing.len() >= enough);
    let known_ms = known.then_some(mesh.now_ms - WARM_UP_MS);
    // Bandwidth over some rounds of anti-entropy, the spread of the fact among them.
    let until_ms = WARM_UP_MS + GIVE_UP_MS / 3;
    mesh.run_until(until_ms.max(mesh.now_ms), |_| false);
    let seconds = ((mesh.now_ms - WARM_UP_MS) / 1_000).max(1);
    let total: u64 = mesh.sent_bytes.iter().sum();
    Figure {
        known_ms,
        mean_bytes_per_s: total / question.nodes as u64 / seconds,
        most_bytes_per_s: mesh.sent_bytes.iter().max().copied().unwrap_or(0) / seconds,
    }
}

enum Packet {
    Push(Record),
    Request(Request),
    Response(Response),
}

enum Event {
    Arrival {
        to: usize,
        from: usize,
        packet: Packet,
    },
    /// A node hands a record on.
    HandOn {
        from: usize,
        except: Option<usize>,
        record: Record,
    },
    Timers(usize),
}

struct Node {
    key: SigningKey,
    gossip: Gossip,
    /// When in an interval it hands on.
    phase_ms: u64,
}

struct Mesh {
    question: Question,
    now_ms: u64,
    rng: SmallRng,
    nodes: Vec<Node>,
    ids: BTreeMap<NodeId, usize>,
    neighbours: Vec<BTreeSet<usize>>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    sent_bytes: Vec<u64>,
    /// Who knows the fact.
    knowing: BTreeSet<usize>,
}

impl Mesh {
    fn new(question: Question) -> Self {
        let mut rng = SmallRng::seed_from_u64(question.seed);
        let keys: Vec<SigningKey> = (0..question.nodes).map(|n| key_of(&format!("d{n}"))).collect();
        let policy = policy(&keys);
        let known: Vec<Record> = keys.iter().take(question.known).map(presence).collect();
        let nodes = keys.iter().map(|key| node(key, &policy, &known, question, &mut rng)).collect();
        let ids = keys.iter().enumerate().map(|(n, key)| (key.public_key().node_id(), n)).collect();
        let mut mesh = Self {
            question,
            now_ms: 0,
            neighbours: neighbours(question, &mut rng),
            rng,
            nodes,
            ids,
            queue: BTreeMap::new(),
            queued: 0,
            sent_bytes: vec![0; question.nodes],
            knowing: BTreeSet::new(),
        };
        for n in 0..question.nodes {
            for peer in mesh.neighbours[n].clone() {
                let id = mesh.nodes[peer].key.public_key().node_id();
                let now = mesh.now();
                mesh.nodes[n].gossip.handle_connected(id, now);
            }
            let after_ms = mesh.rng.random_range(0..STEP_MS);
            mesh.schedule(after_ms, Event::Timers(n));
        }
        mesh
    }

    const fn now(&self) -> Now {
        Now { mono_ms: self.now_ms, unix_ms: self.now_ms }
    }

    fn schedule(&mut self, after_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now_ms + after_ms, self.queued), event);
    }

    /// Runs until `done` or the time; true when `done`.
    fn run_until(&mut self, until_ms: u64, done: impl Fn(&Self) -> bool) -> bool {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= until_ms) {
            self.now_ms = entry.key().0;
            match entry.remove() {
                Event::Arrival { to, from, packet } => self.arrive(to, from, packet),
                Event::HandOn { from, except, record } => self.hand_on(from, except, &record),
                Event::Timers(n) => {
                    self.step(n);
                    self.schedule(STEP_MS, Event::Timers(n));
                }
            }
            if done(self) {
                return true;
            }
        }
        self.now_ms = until_ms;
        false
    }

    fn arrive(&mut self, to: usize, from: usize, packet: Packet) {
        let (now, sender) = (self.now(), self.nodes[from].key.public_key().node_id());
        match packet {
            Packet::Push(record) => {
                if self.nodes[to].gossip.handle_push(sender, record.clone(), now) == Verdict::Accept {
                    self.wait_to_hand_on(to, Some(from), record);
                }
            }
            Packet::Request(request) => {
                let response = self.nodes[to].gossip.handle_request(sender, request, now);
                self.send(to, from, Packet::Response(response));
            }
            Packet::Response(response) => self.nodes[to].gossip.handle_response(sender, response, now),
        }
        self.drain(to);
    }

    fn step(&mut self, n: usize) {
        let now = self.now();
        let node = &mut self.nodes[n];
        node.gossip.handle_timeout(&Identity { fabric: FABRIC, epoch: 0, signer: &node.key }, now);
        self.drain(n);
    }

    fn drain(&mut self, n: usize) {
        let now = self.now();
        let mut known = false;
        while let Some(event) = self.nodes[n].gossip.poll_event() {
            known |= matches!(event, selvedge_membership::core::gossip::Event::Taken(key) if key.topic == Topic::Load);
        }
        if known {
            self.knowing.insert(n);
        }
        while let Some(transmit) = self.nodes[n].gossip.poll_transmit(now) {
            match transmit {
                Transmit::Publish(record) => self.wait_to_hand_on(n, None, (*record).clone()),
                Transmit::Ask { to, request } => {
                    if let Some(to) = self.ids.get(&to).copied() {
                        self.send(n, to, Packet::Request(request));
                    }
                }
            }
        }
    }

    /// Until the node's next round, if it has rounds.
    fn wait_to_hand_on(&mut self, from: usize, except: Option<usize>, record: Record) {
        let (every_ms, phase_ms) = (self.question.interval_ms, self.nodes[from].phase_ms);
        let after_ms = match every_ms {
            0 => 0,
            every_ms => (phase_ms + every_ms - self.now_ms % every_ms) % every_ms,
        };
        self.schedule(after_ms, Event::HandOn { from, except, record });
    }

    fn hand_on(&mut self, from: usize, except: Option<usize>, record: &Record) {
        let others = self.neighbours[from].iter().copied().filter(|to| Some(*to) != except);
        for to in others.take(self.question.fanout).collect::<Vec<_>>() {
            self.send(from, to, Packet::Push(record.clone()));
        }
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        let bytes = match &packet {
            Packet::Push(record) => wire::encode(record),
            Packet::Request(request) => wire::encode(request),
            Packet::Response(response) => wire::encode(response),
        };
        self.sent_bytes[from] += bytes.map_or(0, |bytes| bytes.len() as u64);
        if self.rng.random_range(0..1_000) < self.question.loss_permille {
            return;
        }
        let after_ms = self.rng.random_range(1..=self.question.delay_ms.max(1));
        self.schedule(after_ms, Event::Arrival { to, from, packet });
    }
}

fn node(
    key: &SigningKey,
    policy: &PolicyState,
    known: &[Record],
    question: Question,
    rng: &mut SmallRng,
) -> Node {
    let mut store = RecordStore::new(FABRIC, 0);
    store.set_policy(policy);
    for record in known {
        store.merge(record.clone(), 0, false).expect("a genuine record of an admitted node");
    }
    let own = Own::new(key.public_key(), 0, rng.random());
    let gossip = Gossip::new(store, own, Timers::default().exchange_ms, rng.random());
    let phase_ms = rng.random_range(0..question.interval_ms.max(1));
    Node { key: key.clone(), gossip, phase_ms }
}

/// What a node says of itself when it starts.
fn presence(key: &SigningKey) -> Record {
    let version = Version { epoch: 0, incarnation: 1, sequence: 1 };
    Record::sign(&FABRIC, key, version, 1, &Body::Presence(Presence::default())).expect("within bounds")
}

fn policy(keys: &[SigningKey]) -> PolicyState {
    let mut policy = PolicyState::default();
    for (n, key) in (0_u32..).zip(keys) {
        let admission = Admission {
            key: key.public_key(),
            sealing_key: PublicKey([0; 32]),
            role: Role::Processor,
            zone: ZoneName::of_cloud(cloud(0)),
            state: AdmissionState::Active,
            block: n,
            token: None,
            admitted_ms: 0,
        };
        policy.nodes.insert(name(&format!("d{n}")), admission);
    }
    policy
}

/// A mesh in which each node has one neighbour more than it hands on to: the one it has a record from needs
/// it no more. Made of random rings, so that it is connected.
fn neighbours(question: Question, rng: &mut SmallRng) -> Vec<BTreeSet<usize>> {
    let mut neighbours = vec![BTreeSet::new(); question.nodes];
    for _ in 0..question.fanout.div_ceil(2) {
        let mut ring: Vec<usize> = (0..question.nodes).collect();
        ring.shuffle(rng);
        for (at, one) in ring.iter().enumerate() {
            let next = ring[(at + 1) % ring.len()];
            neighbours[*one].insert(next);
            neighbours[next].insert(*one);
        }
    }
    neighbours
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_says_what_serf_publishes() {
        // Serf's page shows 30 nodes, fanout 3, interval 0.2 s: beyond 99.99 % after five rounds.
        let ms = model_ms(30, 3, 200, 0);
        assert!((800.0..1_000.0).contains(&ms), "{ms}");
        assert!(model_ms(1_000, 3, 200, 100) > model_ms(1_000, 3, 200, 0));
    }

    #[test]
    fn a_hundred_nodes_know_within_half_as_long_again_as_the_model_says() {
        let question = Question {
            seed: 1,
            nodes: 100,
            fanout: 3,
            interval_ms: 200,
            delay_ms: 10,
            loss_permille: 0,
            known: 0,
        };
        let figure = measure(question);
        let bound_ms = 1.5 * model_ms(100, 3, 200, 0);
        assert!(figure.known_ms.is_some_and(|ms| ms as f64 <= bound_ms), "{figure:?}, bound {bound_ms}");
    }

    /// Serf's own page estimates at most 42,000 bytes a second (fanout 3, 1,400 bytes, five times a second, both
    /// ways).
    #[test]
    fn bandwidth_is_far_below_what_serf_allows_itself() {
        let question = Question {
            seed: 1,
            nodes: 60,
            fanout: 3,
            interval_ms: 200,
            delay_ms: 10,
            loss_permille: 0,
            known: 60,
        };
        let figure = measure(question);
        assert!((1..10_000).contains(&figure.most_bytes_per_s), "{figure:?}");
    }
}
