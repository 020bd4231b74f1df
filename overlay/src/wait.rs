//! Queues with an end: frames that wait for a newer policy, packets that wait for a session, ports of
//! fragmented datagrams.

use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
};

use bytes::Bytes;
use selvedge_fabric::key::NodeId;

use crate::{Micros, packet::Packet};

/// Frames of one neighbour that wait for the policy under which they were sent: 64 ms of 1,000 packets a
/// second. What is lost beyond is sent again by who needs it.
pub(crate) const MAX_WAITING_PER_NEIGHBOUR: usize = 64;
/// How long they wait. A policy reaches every node within that, or something is wrong.
pub(crate) const MAX_POLICY_WAIT_US: Micros = 1_000_000;
/// Packets for one node that wait for a session with it.
pub(crate) const MAX_WAITING_PER_SESSION: usize = 64;
/// How long they wait: three tries of a handshake.
pub(crate) const MAX_SESSION_WAIT_US: Micros = 1_500_000;
/// Fragmented datagrams whose ports are remembered.
pub(crate) const MAX_FRAGMENTED: usize = 1_024;
/// For how long.
const FRAGMENTED_US: Micros = 5_000_000;

/// Things that wait, by node; bounded for each.
#[derive(Debug)]
pub(crate) struct Waiting {
    limit: usize,
    timeout: Micros,
    queues: BTreeMap<NodeId, VecDeque<(Micros, Bytes)>>,
}

impl Waiting {
    pub(crate) const fn new(limit: usize, timeout: Micros) -> Self {
        Self { limit, timeout, queues: BTreeMap::new() }
    }

    /// Adds one; `false` when there are too many of that node.
    pub(crate) fn push(&mut self, node: NodeId, bytes: Bytes, now: Micros) -> bool {
        let queue = self.queues.entry(node).or_default();
        if queue.len() >= self.limit {
            return false;
        }
        queue.push_back((now, bytes));
        true
    }

    /// Takes all of one node, with when they came.
    pub(crate) fn take(&mut self, node: NodeId) -> VecDeque<(Micros, Bytes)> {
        self.queues.remove(&node).unwrap_or_default()
    }

    /// The nodes with something that waits.
    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.queues.keys().copied().collect()
    }

    /// Puts one back that keeps its time.
    pub(crate) fn put_back(&mut self, node: NodeId, since: Micros, bytes: Bytes) {
        self.queues.entry(node).or_default().push_back((since, bytes));
    }

    /// Drops what waited too long and returns how many.
    pub(crate) fn expire(&mut self, now: Micros) -> usize {
        let mut expired = 0;
        for queue in self.queues.values_mut() {
            while queue.pop_front_if(|(since, _)| now >= since.saturating_add(self.timeout)).is_some() {
                expired += 1;
            }
        }
        self.queues.retain(|_, queue| !queue.is_empty());
        expired
    }
}

/// Source, destination, protocol and number of a fragmented datagram.
type DatagramId = (IpAddr, IpAddr, u8, u32);

/// Ports of datagrams whose later fragments do not hold them.
#[derive(Debug, Default)]
pub(crate) struct Fragmented {
    /// Source port, destination port, since when.
    ports: BTreeMap<DatagramId, (u16, u16, Micros)>,
    /// Oldest first.
    order: VecDeque<DatagramId>,
}

impl Fragmented {
    /// Notes the ports of a first fragment and gives them to later ones. `None`: a later fragment whose
    /// first was not seen, which cannot be judged.
    pub(crate) fn complete(&mut self, packet: Packet, now: Micros) -> Option<Packet> {
        let Some(fragment) = packet.fragment else { return Some(packet) };
        let key = (packet.source, packet.destination, packet.protocol, fragment.id);
        if fragment.first {
            if self.ports.insert(key, (packet.source_port, packet.destination_port, now)).is_none() {
                self.order.push_back(key);
            }
            if self.order.len() > MAX_FRAGMENTED
                && let Some(oldest) = self.order.pop_front()
            {
                self.ports.remove(&oldest);
            }
            return Some(packet);
        }
        let (source_port, destination_port, at) = *self.ports.get(&key)?;
        (now < at.saturating_add(FRAGMENTED_US)).then_some(Packet { source_port, destination_port, ..packet })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::udp4;

    #[test]
    fn queues_are_bounded_in_number_and_time() {
        let mut waiting = Waiting::new(2, 100);
        let (node, other) = (NodeId(1), NodeId(2));
        assert!(waiting.push(node, Bytes::new(), 0) && waiting.push(node, Bytes::new(), 50));
        assert!(!waiting.push(node, Bytes::new(), 50) && waiting.push(other, Bytes::new(), 60));
        assert_eq!((waiting.expire(99), waiting.expire(100)), (0, 1));
        assert_eq!(waiting.nodes(), [node, other]);
        assert_eq!(waiting.take(node).len(), 1);
        assert_eq!((waiting.expire(160), waiting.nodes()), (1, Vec::new()));
    }

    #[test]
    fn later_fragments_get_the_ports_of_the_first() {
        let mut first = udp4([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53, b"x");
        first[4..8].copy_from_slice(&[0, 7, 0x20, 0]);
        let mut later = first.clone();
        later[7] = 1;
        let (first, later) = (Packet::parse(&first).unwrap(), Packet::parse(&later).unwrap());
        let mut known = Fragmented::default();
        assert_eq!(known.complete(later, 0), None);
        assert_eq!(known.complete(first, 0), Some(first));
        assert_eq!(known.complete(later, 1).map(|p| (p.source_port, p.destination_port)), Some((1000, 53)));
        assert_eq!(known.complete(later, FRAGMENTED_US), None);
        for id in 0..2 * MAX_FRAGMENTED as u32 {
            let fragment = Some(crate::packet::Fragment { id: 1_000 + id, first: true });
            known.complete(Packet { fragment, ..first }, 2);
        }
        assert_eq!((known.ports.len(), known.order.len()), (MAX_FRAGMENTED, MAX_FRAGMENTED));
    }
}
