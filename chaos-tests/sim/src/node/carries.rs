//! The router of a node, driven as the overlay's shell drives it.

use bytes::Bytes;
use selvedge_fabric::{key::NodeId, plan::Plan, record::Body};
use selvedge_membership::core::Now;
use selvedge_overlay::{Difference, Output, QUALITY_INTERVAL_US, facts_differ, peek};

use super::{Node, Packet, Send};
use crate::mutant::Mutant;

/// Largest datagram of a link, bytes.
const MAX_DATAGRAM: usize = 1_400;

const fn micros(now: Now) -> u64 {
    now.mono_ms * 1_000
}

impl Node {
    /// Takes the routing half of a plan.
    pub(super) fn route_by(&mut self, plan: &Plan, now: Now) {
        let mut routing = plan.routing.clone();
        if self.mutant == Some(Mutant::AnyWay) {
            std::sync::Arc::make_mut(&mut routing).paths.clear();
        }
        if self.mutant == Some(Mutant::StaleRoutes) {
            let first = self.first_verdicts.get_or_insert_with(|| routing.verdicts.clone());
            std::sync::Arc::make_mut(&mut routing).verdicts = first.clone();
        }
        self.take_routed();
        self.routed_revision = plan.revision;
        self.router.handle_plan(routing, micros(now));
        self.take_routed();
    }

    pub(super) fn tick_router(&mut self, now: Now) {
        if !self.carries {
            return;
        }
        self.router.handle_tick(micros(now));
        let facts = self.router.facts();
        let due = match facts_differ(&self.links_told, &facts) {
            None => false,
            Some(Difference::Links) => true,
            Some(Difference::Quality) => micros(now) >= self.links_told_us + QUALITY_INTERVAL_US,
        };
        if due {
            self.links_told_us = micros(now);
            self.links_told = facts.clone();
            self.gossip.own().say(Body::Links(facts), false);
        }
        self.take_routed();
    }

    /// The nodes to which it wants connections.
    pub(crate) fn wanted(&self) -> Vec<NodeId> {
        if self.carries { self.router.wanted().iter().copied().collect() } else { Vec::new() }
    }

    /// A connection of the transport came or went.
    pub(crate) fn handle_connection(&mut self, peer: NodeId, there: bool, true_ms: u64) {
        let now = self.clock.read(true_ms);
        self.router.handle_connection(peer, there.then_some(MAX_DATAGRAM), micros(now));
        self.take_routed();
    }

    /// A packet of one of its workloads.
    pub(crate) fn send_packet(&mut self, packet: Vec<u8>, true_ms: u64) {
        let now = self.clock.read(true_ms);
        self.router.handle_packet(packet.into(), micros(now));
        self.take_routed();
    }

    pub(super) fn handle_datagram(&mut self, from: NodeId, bytes: &Bytes, now: Now) {
        self.router.handle_datagram(from, bytes, micros(now));
        self.take_routed();
    }

    fn take_routed(&mut self) {
        while let Some(output) = self.router.poll() {
            match output {
                Output::Datagram { to, bytes } => {
                    self.frames.extend(peek(&bytes).map(|frame| (to, self.routed_revision, frame)));
                    self.out.push(Send::To(to, Packet::Link(bytes)));
                }
                Output::Packet(packet) => self.delivered.push((self.routed_revision, packet)),
            }
        }
    }
}
