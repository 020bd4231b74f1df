//! Membership, driven as its service drives it: the order of calls and the intervals are the service's.

use std::{collections::BTreeSet, sync::Arc};

use selvedge_fabric::{
    command::Role,
    id::Name,
    key::NodeId,
    policy::PolicyState,
    record::{Body, Health, Presence, Record, Seen, Topic},
    view::Liveness,
};
use selvedge_membership::core::{
    Now,
    detector::{Detector, SwimState},
    gossip::{Event, Transmit, Verdict},
    own::Identity,
    sights::{Sources, roster},
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
const REPEAT_INTERVAL_MS: u64 = 2_000;
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
        self.roster = roster(&policy);
        for key in self.gossip.handle_policy(&policy, now) {
            self.disk.records.remove(&key);
        }
        let processors: BTreeSet<NodeId> =
            self.roster.iter().filter(|(_, n)| n.role == Role::Processor).map(|(id, _)| *id).collect();
        self.watch.set_members(&processors, now.mono_ms);
        if processors.contains(&self.me) && self.detector.is_none() {
            let incarnation = self.gossip.own().incarnation();
            self.detector = Some(Detector::new(self.me, incarnation, &self.timers, seed.rotate_left(1)));
        }
        if let Some(detector) = &mut self.detector {
            detector.set_members(processors);
        }
        self.rtt_us.retain(|id, _| self.roster.contains_key(id));
        self.starts.retain(|id, _| self.roster.contains_key(id));
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
            Packet::Refused => self.watch.handle_refused(from, now.mono_ms),
            _ if !self.admits(from) => return,
            Packet::Push(record) => self.handle_push(from, &record, now),
            Packet::Request(request) => self.handle_request(from, request, now),
            Packet::Response(response) => self.handle_response(from, response, now),
            Packet::Ping => {
                self.watch.handle_heard(from, now.mono_ms);
                self.out.push(Send::To(from, Packet::Pong));
            }
            Packet::Pong => {
                self.watch.handle_heard(from, now.mono_ms);
                self.watch.handle_pong(from);
            }
            Packet::Swim(packet) => {
                self.watch.handle_heard(from, now.mono_ms);
                if let Some(detector) = &mut self.detector {
                    // SWIM expects loss; a packet that it refuses is one.
                    let _ = detector.handle_packet(from, &packet, now.mono_ms);
                }
            }
            Packet::Link(bytes) => return self.handle_datagram(from, &bytes, now),
            Packet::AskPolicy(revision) => {
                if self.policy.revision > revision {
                    self.out.push(Send::To(from, Packet::Policy(self.disk.policy.clone())));
                }
            }
            Packet::Policy(policy) => return self.handle_policy(&policy, true_ms),
        }
        self.step(now);
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
        if let Some(detector) = &mut self.detector {
            detector.handle_timeout(now.mono_ms);
        }
        self.look(now);
        self.measure(now);
        self.tick_router(now);
        self.judge(now);
        self.testify(now);
        self.write(now);
        self.ask_policy(now);
        self.step(now);
    }

    fn look(&mut self, now: Now) {
        for nudge in self.watch.poll_nudges(now.mono_ms) {
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
        for (id, node) in self.roster.iter().filter(|(id, _)| **id != self.me) {
            let heard = self.watch.heard_ms(*id).is_some_and(|at| now.mono_ms - at < 2 * RTT_INTERVAL_MS);
            let position = (0..self.rtt_by_cloud_us.len()).find(|number| cloud(*number) == node.cloud);
            if let Some(position) = position.filter(|_| heard) {
                self.rtt_us.insert(*id, self.rtt_by_cloud_us[position]);
            }
        }
    }

    fn judge(&mut self, now: Now) {
        let Some(my_cloud) = self.my_cloud() else { return };
        let nobody = BTreeSet::new();
        let sights = self.sources(&nobody, now).sights(my_cloud);
        for (id, sight) in &sights.processors {
            let suspected = sight.swim.is_some_and(|swim| swim.state == SwimState::Suspect);
            if suspected || sight.reports.values().any(|seen| *seen != Seen::Vouched) {
                self.watch.handle_accused(*id, now.mono_ms);
            }
        }
        let judgement = self.judge.judge(&sights, now.mono_ms);
        if judgement == self.judgement {
            return;
        }
        if let Some(detector) = &mut self.detector {
            for (id, _) in judgement.states.iter().filter(|(_, state)| **state == Liveness::Down) {
                detector.declare_down(*id, now.mono_ms);
            }
        }
        self.judgement = judgement;
        self.dirty = true;
    }

    fn testify(&mut self, now: Now) {
        let testimony = self.sources(&BTreeSet::new(), now).testimony();
        let repeat = self.unheard && now.mono_ms >= self.done.testified_ms + REPEAT_INTERVAL_MS;
        if repeat {
            (self.unheard, self.done.testified_ms) = (false, now.mono_ms);
        }
        let refresh = repeat && !testimony.is_empty();
        self.gossip.own().say(Body::Observations(testimony), refresh);
    }

    fn sources<'a>(&'a self, vouched: &'a BTreeSet<NodeId>, now: Now) -> Sources<'a> {
        Sources {
            me: self.me,
            roster: &self.roster,
            store: self.gossip.store(),
            watch: &self.watch,
            detector: self.detector.as_ref(),
            vouched,
            now_ms: now.mono_ms,
        }
    }

    fn my_cloud(&self) -> Option<Name> {
        self.roster.get(&self.me).map(|node| node.cloud.clone())
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
        let others: Vec<NodeId> = self.roster.keys().copied().filter(|id| *id != self.me).collect();
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
        if let Some(rejoined) = self.detector.as_mut().and_then(Detector::poll_rejoined)
            && self.gossip.own().raise_above(rejoined.saturating_sub(1), now.mono_ms)
        {
            self.raised(now);
        }
        while let Some((to, packet)) = self.detector.as_mut().and_then(Detector::poll_transmit) {
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
            Event::Dropped { .. } | Event::Revocation(_) => {}
        }
    }

    fn handle_taken(&mut self, key: Key, now: Now) {
        self.dirty = true;
        self.unwritten.insert(key);
        let Some(entry) = self.gossip.store().get(&key) else { return };
        let incarnation = entry.rank.version.incarnation;
        if key.node != self.me && key.topic == Topic::Presence {
            let newest = self.starts.entry(key.node).or_insert(0);
            self.unheard |= incarnation > *newest;
            *newest = incarnation.max(*newest);
            if let Some(detector) = &mut self.detector {
                detector.handle_later_start(key.node, incarnation, now.mono_ms);
            }
        }
    }

    fn raised(&mut self, now: Now) {
        let incarnation = self.gossip.own().incarnation();
        if let Some(detector) = &mut self.detector {
            detector.raise(incarnation, now.mono_ms);
        }
        self.disk.incarnation = incarnation;
    }

    fn publish_view(&mut self, now: Now) {
        self.dirty = false;
        self.done.view_ms = now.mono_ms;
        let inputs = Inputs {
            policy: &self.policy,
            store: self.gossip.store(),
            judgement: &self.judgement,
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
