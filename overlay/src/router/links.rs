//! Which links there should be, and which live.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{key::NodeId, plan::LinkQuality};

use super::{Output, Router};
use crate::{
    Micros,
    link::{Link, PROBE_INTERVAL_US},
    neighbours::standing,
    reason::Refusal,
    wire::Datagram,
};

/// Links up to which each is probed at the full rate; with more, each is probed less often, so that a
/// node sends at most 160 probes a second.
const LINKS_AT_FULL_RATE: u64 = 16;
/// A link that is not up after this time makes a workload node look for another home.
const FAILING_AFTER_US: Micros = 700_000;
/// For how long a node that was not reached is thought worse than others.
const FAILING_FOR_US: Micros = 30_000_000;
/// How often what has no exact time is done: measured costs, forgotten sessions.
const HOUSEKEEPING_US: Micros = 2_000_000;

impl Router {
    /// The nodes to which there should be connections.
    #[must_use]
    pub const fn wanted(&self) -> &BTreeSet<NodeId> {
        &self.wanted
    }

    /// The nodes with which there is a link, alive or not.
    pub fn linked(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.links.keys().copied()
    }

    /// Takes whether there is a connection to a node, and how large its datagrams may be, in bytes.
    pub fn handle_connection(&mut self, node: NodeId, max_datagram: Option<usize>, now: Micros) {
        let link = match max_datagram {
            Some(_) => self.links.entry(node).or_insert_with(|| Link::new(now)),
            None => match self.links.get_mut(&node) {
                Some(link) => link,
                None => return,
            },
        };
        if link.set_connection(max_datagram, now) {
            self.topology_changed();
        }
    }

    pub(super) fn tick_links(&mut self, now: Micros) {
        let interval = PROBE_INTERVAL_US * (self.links.len() as u64).div_ceil(LINKS_AT_FULL_RATE).max(1);
        let mut went_down = false;
        let mut half_frames = 0;
        for (node, link) in &mut self.links {
            went_down |= link.overdue(interval, now);
            half_frames += link.halves.expire(now);
            if let Some(number) = link.probe(interval, now) {
                let bytes = Datagram::probe(number);
                link.tx_bytes += bytes.len() as u64;
                self.out.push_back(Output::Datagram { to: *node, bytes });
            }
        }
        self.refuse_many(Refusal::HalfFrame, half_frames);
        self.update_wanted(now);
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING_US;
            let routing = std::sync::Arc::clone(&self.routing);
            self.sessions.retain(|node| routing.nodes.get(&node).map(|node| node.sealing_key), now);
            went_down = true;
        }
        if went_down {
            self.topology_changed();
        }
    }

    pub(super) fn probe_answered(&mut self, from: NodeId, number: u32, now: Micros) {
        if self.links.get_mut(&from).is_some_and(|link| link.answered(number, now)) {
            self.failing.remove(&from);
            self.topology_changed();
            self.flush_waiting(from, now);
        }
    }

    /// Measured links that are up.
    pub(super) fn qualities(&self) -> BTreeMap<NodeId, LinkQuality> {
        let up = self.links.iter().filter(|(_, link)| link.is_up());
        up.map(|(node, link)| (*node, link.quality())).collect()
    }

    /// Works out to whom there should be links. Homes that fail are kept being tried beside those that
    /// stand in for them.
    pub(super) fn update_wanted(&mut self, now: Micros) {
        self.failing.retain(|_, until| now < *until);
        for node in &self.wanted {
            let down_since = self.links.get(node).filter(|link| !link.is_up()).map(|link| link.since);
            if down_since.is_some_and(|since| now >= since + FAILING_AFTER_US) {
                self.failing.insert(*node, now + FAILING_FOR_US);
            }
        }
        self.direct.expire(now);
        let failing = self.failing.keys().copied().collect();
        let mut wanted = standing(&self.routing, &BTreeSet::new());
        wanted.extend(standing(&self.routing, &failing));
        wanted.extend(self.direct.nodes().filter(|node| self.routing.nodes.contains_key(node)));
        for node in &wanted {
            self.links.entry(*node).or_insert_with(|| Link::new(now));
        }
        let known = &self.routing.nodes;
        self.links.retain(|node, link| {
            known.contains_key(node) && (wanted.contains(node) || link.max_datagram.is_some())
        });
        self.wanted = wanted;
    }
}
