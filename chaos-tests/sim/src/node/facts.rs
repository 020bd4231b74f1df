//! Membership, driven as its service drives it: the order of calls and the intervals are the service's.

use std::{collections::BTreeSet, sync::Arc};

use selvedge_fabric::{
    key::NodeId,
    policy::PolicyState,
    record::{Body, Health, Presence, Record, Topic},
    view::Liveness,
};
use selvedge_membership::core::{
    Now,
    detector::Detector,
    gossip::{Event, Transmit, Verdict},
    own::Identity,
    store::Key,
    view::Inputs,
    watch::Nudge,
    wire::{Request, Response},
};

use super::{Node, Packet, Send};
use crate::{
    intent::{FABRIC, cloud},
    mutant::Mutant,
};

const REVIEW_INTERVAL_MS: u64 = 1_000;
const WRITE_INTERVAL_MS: u64 = 1_000;
const RTT_INTERVAL_MS: u64 = 1_000;
/// How often a node asks another which policy it has. Stands for appends and for following bundles.
const ASK_POLICY_MS: u64 = 400;

impl Node {
    pub(super) fn begin(&mut self, seed: u64, now: Now) {
        self.take_policy(seed, now);
        self.say_endpoints();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        self.gossip.own().say(
            Body::Presence(Presence {
                addresses: vec![address],
                gossip: vec![address],
                ..Presence::default()
            }),
            false,
        );
        self.judge(now);
        self.publish_view(now);
    }

    /// Takes over a policy when it is newer.
    pub(crate) fn handle_policy(&mut self, policy: &Arc<PolicyState>, true_ms: u64) {
        if policy.revision <= self.policy.revision {
            return;
        }
        let now = self.clock.read(true_ms);
        self.policy = policy.clone();
        self.disk.policy = policy.clone();
        self.take_policy(true_ms, now);
        self.say_endpoints();
        self.step(now);
    }

    fn take_policy(&mut self, seed: u64, now: Now) {
        let policy = match self.mutant {
            Some(Mutant::ForgottenTombstones) => Arc::new(self.with_the_removed()),
            _ => self.policy.clone(),
        };
        self.policy = policy.clone();
        for key in self.gossip.handle_policy(&policy, now) {
            self.disk.records.remove(&key);
        }
        let incarnation = self.gossip.own().incarnation();
        self.outlook.handle_policy(&policy, incarnation, seed.rotate_left(1), now);
        let roster = &self.outlook.roster;
        self.rtt_us.retain(|id, _| roster.contains_key(id));
        self.dirty = true;
    }

    /// The policy as one who forgets removals would have it.
    fn with_the_removed(&self) -> PolicyState {
        let mut policy = (*self.policy).clone();
        for (name, admission) in &self.disk.founding.nodes {
            policy.nodes.entry(name.clone()).or_insert_with(|| admission.clone());
        }
        policy.removed.clear();
        policy
    }

    fn say_endpoints(&mut self) {
        if let Some(endpoint) = self.birth.endpoint(&self.policy, self.health) {
            self.gossip.own().say(Body::Endpoints(vec![endpoint]), false);
        }
    }

    /// What it says changes, as health checks have it.
    pub(crate) fn set_health(&mut self, health: Health) {
        self.health = health;
        self.say_endpoints();
    }

    pub(crate) fn handle_connected(&mut self, peer: NodeId, true_ms: u64) {
        let now = self.clock.read(true_ms);
        self.gossip.handle_connected(peer, now);
        self.step(now);
    }

    pub(crate) fn handle_disconnected(&mut self, peer: NodeId) {
        self.gossip.handle_disconnected(peer);
    }

    /// Whether the node lets `peer` speak to it.
    pub(crate) fn admits(&self, peer: NodeId) -> bool {
        self.gossip.store().members().contains_key(&peer)
    }

    pub(crate) fn handle_packet(&mut self, from: NodeId, packet: Packet, true_ms: u64) {
        let now = self.clock.read(true_ms);
        match packet {
            Packet::Poke => return,
            Packet::Refused => self.outlook.watch.handle_refused(from, now.mono_ms),
            _ if !self.admits(from) => return,
            Packet::Push(record) => self.handle_push(from, &record, now),
            Packet::Request(request) => self.handle_request(from, request, now),
            Packet::Response(response) => self.handle_response(from, response, now),
            Packet::Ping => {
                self.outlook.watch.handle_heard(from, now.mono_ms);
                self.out.push(Send::To(from, Packet::Pong));
            }
            Packet::Pong => {
                self.outlook.watch.handle_heard(from, now.mono_ms);
                self.outlook.watch.handle_pong(from);
            }
            Packet::Swim(packet) => {
                self.outlook.watch.handle_heard(from, now.mono_ms);
                if let Some(detector) = &mut self.outlook.detector {
                    // SWIM expects loss; a packet that it refuses is one.
                    let _ = detector.handle_packet(from, &packet, now.mono_ms);
                }
            }
            Packet::Link(bytes) => return self.handle_datagram(from, &bytes, now),
            Packet::Raft(message) => {
                self.replica.handle(from, *message, now.mono_ms);
                return self.take_said();
            }
            Packet::AskPolicy(revision) => {
                if self.policy.revision > revision {
                    self.out.push(Send::To(from, Packet::Policy(self.disk.policy.clone())));
                }
            }
            Packet::Policy(policy) => return self.handle_policy(&policy, true_ms),
        }
        self.step(now);
    }

    /// What the replica wants sent; what it stored outlives the process ([`Node::into_disk`]).
    fn take_said(&mut self) {
        let said = std::mem::take(&mut self.replica.out);
        self.out.extend(said.into_iter().map(|(to, message)| Send::To(to, Packet::Raft(Box::new(message)))));
    }

    /// A client writes; only a leader takes it.
    pub(crate) fn propose(&mut self, number: u64) {
        self.replica.propose(number, self.clock.mono_ms);
        self.take_said();
    }

    /// An operator makes this node the only voter of a new epoch.
    pub(crate) fn recover(&mut self, epoch: u64) {
        self.replica.recover(epoch);
        self.take_said();
    }

    fn handle_push(&mut self, from: NodeId, record: &Arc<Record>, now: Now) {
        if self.gossip.handle_push(from, (**record).clone(), now) == Verdict::Accept {
            self.out.push(Send::Spread(record.clone(), Some(from)));
        }
    }

    fn handle_request(&mut self, from: NodeId, request: Request, now: Now) {
        let request = match request {
            Request::Exchange { want, .. } if self.mutant == Some(Mutant::DeafToExchange) => {
                Request::Exchange { give: Vec::new(), want }
            }
            request => request,
        };
        let response = self.gossip.handle_request(from, request, now);
        self.out.push(Send::To(from, Packet::Response(response)));
    }

    fn handle_response(&mut self, from: NodeId, response: Response, now: Now) {
        let response = match response {
            Response::Records(_) if self.mutant == Some(Mutant::DeafToExchange) => Response::Refused,
            response => response,
        };
        self.gossip.handle_response(from, response, now);
    }

    /// What is done every tick.
    pub(crate) fn handle_tick(&mut self, true_ms: u64) {
        let now = self.clock.read(true_ms);
        if now.mono_ms >= self.done.presence_ms + self.timers.presence_ms {
            self.done.presence_ms = now.mono_ms;
            self.gossip.own().refresh(Topic::Presence);
        }
        let identity = Identity { fabric: FABRIC, epoch: 0, signer: &self.birth.key };
        self.gossip.handle_timeout(&identity, now);
        if let Some(detector) = &mut self.outlook.detector {
            detector.handle_timeout(now.mono_ms);
        }
        self.look(now);
        self.measure(now);
        self.tick_router(now);
        self.judge(now);
        self.replica.handle_tick(&self.policy, &self.outlook.judgement, now.mono_ms);
        self.take_said();
        self.testify(now);
        self.write(now);
        self.ask_policy(now);
        self.step(now);
    }

    fn look(&mut self, now: Now) {
        for nudge in self.outlook.watch.poll_nudges(now.mono_ms) {
            self.out.push(match nudge {
                Nudge::Ping(peer) => Send::To(peer, Packet::Ping),
                Nudge::Poke(peer) => Send::To(peer, Packet::Poke),
            });
        }
    }

    fn measure(&mut self, now: Now) {
        if now.mono_ms < self.done.rtt_ms + RTT_INTERVAL_MS {
            return;
        }
        self.done.rtt_ms = now.mono_ms;
        for (id, node) in self.outlook.roster.iter().filter(|(id, _)| **id != self.me) {
            let heard =
                self.outlook.watch.heard_ms(*id).is_some_and(|at| now.mono_ms - at < 2 * RTT_INTERVAL_MS);
            let position = (0..self.rtt_by_cloud_us.len()).find(|number| cloud(*number) == node.cloud);
            if let Some(position) = position.filter(|_| heard) {
                self.rtt_us.insert(*id, self.rtt_by_cloud_us[position]);
            }
        }
    }

    fn judge(&mut self, now: Now) {
        let before = self.outlook.judge(self.gossip.store(), &BTreeSet::new(), now);
        let Some(before) = before else { return };
        if self.mutant == Some(Mutant::Unforgiving) {
            let dead = before.states.into_iter().filter(|(_, state)| *state == Liveness::Down);
            self.outlook.judgement.states.extend(dead);
        }
        self.dirty = true;
    }

    fn testify(&mut self, now: Now) {
        let (testimony, again) = self.outlook.testify(self.gossip.store(), &BTreeSet::new(), now);
        self.gossip.own().say(Body::Observations(testimony), again);
    }

    fn write(&mut self, now: Now) {
        if self.unwritten.is_empty() || now.mono_ms < self.done.write_ms + WRITE_INTERVAL_MS {
            return;
        }
        self.done.write_ms = now.mono_ms;
        for key in std::mem::take(&mut self.unwritten) {
            if let Some(entry) = self.gossip.store().get(&key) {
                self.disk.records.insert(key, ((*entry.record).clone(), entry.heard_ms));
            }
        }
    }

    fn ask_policy(&mut self, now: Now) {
        if now.mono_ms < self.done.asked_ms + ASK_POLICY_MS {
            return;
        }
        self.done.asked_ms = now.mono_ms;
        let others: Vec<NodeId> = self.outlook.roster.keys().copied().filter(|id| *id != self.me).collect();
        if let Some(other) = others.get((now.mono_ms / ASK_POLICY_MS) as usize % others.len().max(1)) {
            self.out.push(Send::To(*other, Packet::AskPolicy(self.disk.policy.revision)));
        }
    }

    /// Does what the cores say after something came in.
    fn step(&mut self, now: Now) {
        while let Some(event) = self.gossip.poll_event() {
            self.handle_event(event, now);
        }
        while let Some(transmit) = self.gossip.poll_transmit(now) {
            self.out.push(match transmit {
                Transmit::Publish(record) => Send::Spread(record, None),
                Transmit::Ask { to, request } => Send::To(to, Packet::Request(request)),
            });
        }
        if let Some(rejoined) = self.outlook.detector.as_mut().and_then(Detector::poll_rejoined)
            && self.gossip.own().raise_above(rejoined.saturating_sub(1), now.mono_ms)
        {
            self.raised(now);
        }
        while let Some((to, packet)) = self.outlook.detector.as_mut().and_then(Detector::poll_transmit) {
            self.out.push(Send::To(to, Packet::Swim(packet)));
        }
        let since_ms = now.mono_ms.saturating_sub(self.done.view_ms);
        if (self.dirty && since_ms >= self.view_every_ms) || since_ms >= REVIEW_INTERVAL_MS {
            self.publish_view(now);
        }
    }

    fn handle_event(&mut self, event: Event, now: Now) {
        match event {
            Event::Taken(key) => self.handle_taken(key, now),
            Event::Raised(_) => self.raised(now),
            Event::Quarantined(_) => self.dirty = true,
            Event::Dropped { .. } | Event::Revocation(..) => {}
        }
    }

    fn handle_taken(&mut self, key: Key, now: Now) {
        self.dirty = true;
        self.unwritten.insert(key);
        let Some(entry) = self.gossip.store().get(&key) else { return };
        let incarnation = entry.rank.version.incarnation;
        if key.node != self.me && key.topic == Topic::Presence {
            self.outlook.handle_start(key.node, incarnation, now);
        }
    }

    fn raised(&mut self, now: Now) {
        let incarnation = self.gossip.own().incarnation();
        self.outlook.raise(incarnation, now);
        self.disk.incarnation = incarnation;
    }

    fn publish_view(&mut self, now: Now) {
        self.dirty = false;
        self.done.view_ms = now.mono_ms;
        let inputs = Inputs {
            policy: &self.policy,
            store: self.gossip.store(),
            judgement: &self.outlook.judgement,
            holders: self.gossip.holders(),
            rtt_us: &self.rtt_us,
        };
        let view = self.views.build(&inputs, now);
        self.views.take_disbelieved();
        if let Some(view) = view {
            self.view = Arc::new(view);
        }
        self.act(now);
    }
}
