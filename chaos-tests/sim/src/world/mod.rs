//! The world: nodes, network and time under one seed.
//!
//! Everything that happens is an event in one queue, ordered by time and by the order in which it was put
//! there, and every choice comes from one random generator; so a seed says everything.

mod faults;
mod mesh;
mod network;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::Arc,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use selvedge_fabric::{Revision, key::NodeId, policy::PolicyState};
use selvedge_overlay::Peeked;

pub(crate) use self::{
    faults::Death,
    network::{Network, Weather},
};
use crate::{
    intent::{Birth, Change, Commands, START_MS, applied},
    mutant::Mutant,
    node::{Deed, Disk, Node, Packet, Send, Start, founding_log},
    scenario::Scenario,
    trace::Trace,
};

/// How often it is looked whether a stopped node goes on: its pause may be cut short.
const PAUSED_MS: u64 = 100;
/// After a pause of this length ago a node is steady again.
const STEADY_MS: u64 = 2_000;

/// Something that an invariant looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sighting {
    /// A node made a plan and applied it.
    Planned(usize),
    /// A node that routes by a revision sends a frame of the overlay to a neighbour.
    Frame { from: usize, to: usize, revision: Revision, frame: Peeked },
    /// A packet came out of the overlay: where, by which revision, from whom, to whom, on which port.
    Delivered { at: usize, revision: Revision, source: Ipv4Addr, destination: Ipv4Addr, port: u16 },
    /// A replica did something.
    Did { by: usize, deed: Deed },
    /// Time to look around.
    Moment,
}

#[derive(Debug)]
enum Event {
    /// A packet arrives: to, in which life of the receiver, from, what.
    Arrival { to: usize, life: u32, from: usize, packet: Packet },
    /// A node's timers.
    Tick { slot: usize, life: u32 },
    /// Connections of the mesh are looked at.
    Mesh,
}

/// A place where a node runs, or ran.
pub(crate) struct Slot {
    pub(crate) birth: Arc<Birth>,
    pub(crate) node: Option<Box<Node>>,
    pub(crate) disk: Disk,
    /// Counts starts and ends.
    life: u32,
    started_ms: u64,
    pub(crate) dead_since_ms: Option<u64>,
    /// Whether its host still answers for its closed ports.
    host_up: bool,
    paused_until_ms: u64,
    slow: bool,
    skew_ms: i64,
    /// Taken out of the fabric for good.
    pub(crate) removed: bool,
    rtt_by_cloud_us: Arc<Vec<u32>>,
    neighbours: BTreeSet<usize>,
    /// Connections of its transport: to whom, in which life of theirs.
    connections: BTreeMap<usize, u32>,
}

impl Slot {
    pub(crate) const fn started_ms(&self) -> u64 {
        self.started_ms
    }
}

pub(crate) struct World {
    pub(crate) now_ms: u64,
    pub(crate) rng: SmallRng,
    pub(crate) network: Network,
    pub(crate) slots: Vec<Slot>,
    pub(crate) trace: Trace,
    /// Every state of intent that was agreed, oldest first.
    pub(crate) agreed: Vec<Arc<PolicyState>>,
    pub(crate) scenario: Scenario,
    /// When a fault last began or ended.
    pub(crate) troubled_ms: u64,
    by_id: BTreeMap<NodeId, usize>,
    /// Whose endpoint has which address.
    pub(crate) by_address: BTreeMap<Ipv4Addr, usize>,
    commands: Commands,
    births: Vec<Birth>,
    queue: BTreeMap<(u64, u64), Event>,
    queued: u64,
    links: mesh::Links,
    sightings: Vec<Sighting>,
    pub(crate) mutant: Option<Mutant>,
    pub(crate) messages: u64,
    /// Numbers that clients wrote so far.
    written: u64,
    /// The highest epoch that an operator made.
    epoch: u64,
}

impl World {
    pub(crate) fn new(scenario: Scenario, mutant: Option<Mutant>) -> Self {
        let mut rng = SmallRng::seed_from_u64(scenario.seed);
        let network = Network::new(scenario.clouds, &mut rng);
        let births: Vec<Birth> = (0..scenario.nodes).map(|n| scenario.birth(n)).collect();
        let mut commands = Commands::new(scenario.services);
        let mut policy = PolicyState::default();
        for envelope in commands.founding(&births, scenario.clouds) {
            policy.apply(&envelope).expect("the founding commands are good");
        }
        let mut world = Self {
            now_ms: 0,
            rng,
            network,
            slots: Vec::new(),
            trace: Trace::default(),
            agreed: vec![Arc::new(policy)],
            scenario,
            troubled_ms: 0,
            by_id: BTreeMap::new(),
            by_address: BTreeMap::new(),
            commands,
            births: Vec::new(),
            queue: BTreeMap::new(),
            queued: 0,
            links: mesh::Links::default(),
            sightings: Vec::new(),
            mutant,
            messages: 0,
            written: 0,
            epoch: 0,
        };
        for birth in births {
            world.add_slot(birth);
        }
        world.slots[0].disk.log = founding_log(world.births[0].id());
        world.choose_neighbours();
        (0..world.slots.len()).for_each(|slot| world.start(slot));
        world.schedule(0, Event::Mesh);
        world
    }

    /// What is agreed now.
    pub(crate) fn policy(&self) -> &Arc<PolicyState> {
        self.agreed.last().expect("the founding state is always there")
    }

    /// The nodes that run, and are not taken out of the fabric.
    pub(crate) fn living(&self) -> impl Iterator<Item = (usize, &Node)> {
        let running = self.slots.iter().enumerate().filter(|(_, slot)| !slot.removed);
        running.filter_map(|(n, slot)| Some((n, &**slot.node.as_ref()?)))
    }

    pub(crate) fn is_paused(&self, slot: usize) -> bool {
        self.slots[slot].paused_until_ms > self.now_ms
    }

    pub(crate) fn tell(&mut self, what: &std::fmt::Arguments<'_>) {
        self.trace.tell(self.now_ms, what);
    }

    /// A place for a node that does not run yet.
    fn add_slot(&mut self, birth: Birth) -> usize {
        let slot = self.slots.len();
        let rtt =
            |cloud| u32::try_from(2_000 * self.network.distance_ms(birth.cloud, cloud)).unwrap_or(u32::MAX);
        let rtt_by_cloud_us = Arc::new((0..self.scenario.clouds).map(rtt).collect());
        self.by_id.insert(birth.id(), slot);
        self.births.push(birth.clone());
        self.slots.push(Slot {
            birth: Arc::new(birth),
            node: None,
            disk: Disk::default(),
            life: 0,
            started_ms: 0,
            dead_since_ms: Some(self.now_ms),
            host_up: true,
            paused_until_ms: 0,
            slow: false,
            skew_ms: 0,
            removed: false,
            rtt_by_cloud_us,
            neighbours: BTreeSet::new(),
            connections: BTreeMap::new(),
        });
        // A node that joins is handed the policy with its admission.
        self.slots[slot].disk.policy = self.policy().clone();
        self.slots[slot].disk.founding = self.agreed[0].clone();
        self.learn_addresses();
        slot
    }

    fn learn_addresses(&mut self) {
        let policy = self.policy().clone();
        for (n, slot) in self.slots.iter().enumerate() {
            if let Some(address) = slot.birth.address(&policy) {
                self.by_address.insert(address, n);
            }
        }
    }

    fn start(&mut self, n: usize) {
        let seed = self.rng.random();
        let slot = &mut self.slots[n];
        slot.life += 1;
        slot.connections.clear();
        (slot.started_ms, slot.dead_since_ms, slot.host_up) = (self.now_ms, None, true);
        slot.node = Some(Box::new(Node::new(Start {
            birth: slot.birth.clone(),
            disk: std::mem::take(&mut slot.disk),
            true_ms: self.now_ms,
            skew_ms: slot.skew_ms,
            seed,
            view_every_ms: self.scenario.view_ms,
            carries: self.scenario.carries,
            rtt_by_cloud_us: slot.rtt_by_cloud_us.clone(),
            mutant: self.mutant,
        })));
        let life = slot.life;
        let phase_ms = self.rng.random_range(0..self.scenario.tick_ms);
        self.schedule(phase_ms, Event::Tick { slot: n, life });
        self.sightings.push(Sighting::Planned(n));
        self.drain(n);
    }

    fn schedule(&mut self, after_ms: u64, event: Event) {
        self.queued += 1;
        self.queue.insert((self.now_ms + after_ms, self.queued), event);
    }

    /// Lets the next event happen, when it is due by `until_ms`; returns what is to be looked at.
    pub(crate) fn advance(&mut self, until_ms: u64) -> Option<Vec<Sighting>> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= until_ms);
        let Some(entry) = entry else {
            self.now_ms = until_ms;
            return None;
        };
        self.now_ms = entry.key().0;
        match entry.remove() {
            Event::Arrival { to, life, from, packet } => self.arrive(to, life, from, packet),
            Event::Tick { slot, life } => self.tick(slot, life),
            Event::Mesh => self.mend_mesh(),
        }
        Some(self.take_sightings())
    }

    pub(crate) fn take_sightings(&mut self) -> Vec<Sighting> {
        std::mem::take(&mut self.sightings)
    }

    /// Whether no message is lost, repeated or late.
    pub(crate) fn weather_is_fair(&self) -> bool {
        let Weather { loss_permille, repeat_permille, jitter_ms } = self.network.weather;
        (loss_permille, repeat_permille) == (0, 0) && jitter_ms <= 2
    }

    /// Whether a node runs at its full speed, and has for a while.
    pub(crate) fn is_steady(&self, n: usize) -> bool {
        let slot = &self.slots[n];
        slot.paused_until_ms + STEADY_MS < self.now_ms && !slot.slow
    }

    fn tick(&mut self, n: usize, life: u32) {
        let slot = &mut self.slots[n];
        if slot.life != life {
            return;
        }
        if slot.paused_until_ms > self.now_ms {
            let wait_ms = (slot.paused_until_ms - self.now_ms).min(PAUSED_MS);
            return self.schedule(wait_ms, Event::Tick { slot: n, life });
        }
        let every_ms = if slot.slow { 6 * self.scenario.tick_ms } else { self.scenario.tick_ms };
        if let Some(node) = &mut slot.node {
            node.handle_tick(self.now_ms);
        }
        self.drain(n);
        self.schedule(every_ms, Event::Tick { slot: n, life });
    }

    fn arrive(&mut self, to: usize, life: u32, from: usize, packet: Packet) {
        let slot = &mut self.slots[to];
        if slot.life != life {
            if matches!(packet, Packet::Poke) {
                self.refuse(to, from);
            }
            return;
        }
        if slot.paused_until_ms > self.now_ms {
            let wait_ms = (slot.paused_until_ms - self.now_ms).min(PAUSED_MS);
            return self.schedule(wait_ms, Event::Arrival { to, life, from, packet });
        }
        let Some(node) = &mut slot.node else {
            if matches!(packet, Packet::Poke) {
                self.refuse(to, from);
            }
            return;
        };
        self.trace.note((self.now_ms, to, from));
        let sender = self.births[from].id();
        node.handle_packet(sender, packet, self.now_ms);
        self.drain(to);
    }

    /// The host of a process that is gone answers for it.
    fn refuse(&mut self, at: usize, asked_by: usize) {
        if self.slots[at].host_up && self.slots[at].node.is_none() {
            self.send(at, asked_by, &Packet::Refused);
        }
    }

    /// Takes what a node wants sent.
    fn drain(&mut self, n: usize) {
        let Some(node) = &mut self.slots[n].node else { return };
        let out = std::mem::take(&mut node.out);
        let planned = node.plans_made != node.plans_seen;
        node.plans_seen = node.plans_made;
        if planned {
            self.sightings.push(Sighting::Planned(n));
        }
        let deeds = std::mem::take(&mut node.replica.deeds);
        for deed in deeds {
            match &deed {
                Deed::Led { epoch, term } => {
                    self.trace.tell(self.now_ms, &format_args!("n{n} leads in term {term} of epoch {epoch}"))
                }
                Deed::Reseated { after, .. } => {
                    self.trace.tell(self.now_ms, &format_args!("n{n} begins: {after:?}"));
                }
                Deed::Deposed { .. } | Deed::Committed { .. } | Deed::Followed { .. } => {}
            }
            self.sightings.push(Sighting::Did { by: n, deed });
        }
        let delivered = std::mem::take(&mut node.delivered);
        self.sightings
            .extend(delivered.iter().filter_map(|(revision, packet)| delivery(n, *revision, packet)));
        let frames = std::mem::take(&mut node.frames);
        self.sightings.extend(frames.into_iter().filter_map(|(to, revision, frame)| {
            Some(Sighting::Frame { from: n, to: *self.by_id.get(&to)?, revision, frame })
        }));
        for send in out {
            match send {
                Send::To(to, packet) => {
                    if let Some(to) = self.by_id.get(&to).copied() {
                        self.send(n, to, &packet);
                    }
                }
                Send::Spread(record, except) => {
                    let except = except.and_then(|id| self.by_id.get(&id).copied());
                    for to in self.links.of(n).filter(|to| Some(*to) != except).collect::<Vec<_>>() {
                        self.send(n, to, &Packet::Push(record.clone()));
                    }
                }
            }
        }
    }

    /// A workload of a node sends a packet.
    pub(crate) fn send_packet(&mut self, n: usize, packet: Vec<u8>) {
        if let Some(node) = &mut self.slots[n].node {
            node.send_packet(packet, self.now_ms);
        }
        self.drain(n);
    }

    fn send(&mut self, from: usize, to: usize, packet: &Packet) {
        if !self.network.reaches(from, to) {
            return;
        }
        let (a, b) = (self.births[from].cloud, self.births[to].cloud);
        let mut distance_ms = self.network.distance_ms(a, b);
        if self.slots[from].slow || self.slots[to].slow {
            distance_ms += self.rng.random_range(100..600);
        }
        let life = self.slots[to].life;
        for after_ms in self.network.fate(distance_ms, &mut self.rng) {
            self.messages += 1;
            self.schedule(after_ms, Event::Arrival { to, life, from, packet: packet.clone() });
        }
    }

    /// Agrees on a change of intent, when a majority of the nodes can; returns whether that happened.
    pub(crate) fn agree(&mut self, change: &Change) -> bool {
        let running: Vec<usize> = self.living().map(|(n, _)| n).filter(|n| !self.is_paused(*n)).collect();
        let admitted = self.slots.iter().filter(|slot| !slot.removed).count();
        let hears = |n: &usize| running.iter().filter(|other| self.network.connects(*n, **other)).count();
        let Some(leader) = running.iter().copied().find(|n| hears(n) * 2 > admitted) else { return false };
        // What is agreed on is on the disks of a majority; the others hear of it later.
        let others = running.iter().copied().filter(|n| *n != leader && self.network.connects(leader, *n));
        let majority: Vec<usize> = std::iter::once(leader).chain(others).take(admitted / 2 + 1).collect();
        let at_ms = (START_MS + self.now_ms).saturating_add_signed(self.slots[leader].skew_ms);
        let envelope = self.commands.of(change, &self.births, at_ms);
        let next = match applied(self.policy(), &envelope) {
            Ok(next) if next.revision > self.policy().revision => next,
            Ok(_) | Err(_) => return false,
        };
        self.tell(&format_args!("revision {}: {change:?}", next.revision));
        self.agreed.push(next.clone());
        self.learn_addresses();
        for n in majority {
            if let Some(node) = &mut self.slots[n].node {
                node.handle_policy(&next, self.now_ms);
            }
            self.drain(n);
        }
        true
    }
}

/// What a delivered packet was, by the header that the simulation's workloads give it.
fn delivery(at: usize, revision: Revision, packet: &Bytes) -> Option<Sighting> {
    let address = |from: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(from..from + 4)?).ok()?));
    let port = u16::from_be_bytes(packet.get(22..24)?.try_into().ok()?);
    Some(Sighting::Delivered { at, revision, source: address(12)?, destination: address(16)?, port })
}
