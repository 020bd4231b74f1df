//! The connections behind the router's links: made where links are wanted, ended where they are not.

use std::collections::BTreeMap;

use bytes::Bytes;
use selvedge_fabric::{key::NodeId, plan::Routing};
use selvedge_transport::{Alpn, Channel, DatagramError, Transport};

use crate::{Micros, Refusal, Router, wire};

/// How often it is asked again which connection to use: when both ends dialled, they agree on one of two
/// only after a moment, and credentials are renewed.
const CHOOSE_EVERY_US: Micros = 1_000_000;

pub(super) struct Connections {
    transport: Transport,
    channels: BTreeMap<NodeId, (Channel, Micros)>,
}

impl Connections {
    pub(super) const fn new(transport: Transport) -> Self {
        Self { transport, channels: BTreeMap::new() }
    }

    /// Makes what is wanted and missing, ends what this node made and does not want, and tells the router
    /// what there is.
    pub(super) fn maintain(&mut self, router: &mut Router, routing: &Routing, now: Micros) {
        let linked: Vec<NodeId> = router.linked().collect();
        for node in &linked {
            let wanted = router.wanted().contains(node);
            let max = self.maintain_one(*node, wanted, routing, now);
            router.handle_connection(*node, max, now);
        }
        self.channels.retain(|node, _| linked.binary_search(node).is_ok());
    }

    /// Bytes of the largest datagram to a node, if there is a connection.
    fn maintain_one(&mut self, node: NodeId, wanted: bool, routing: &Routing, now: Micros) -> Option<usize> {
        let name = &routing.nodes.get(&node)?.name;
        let usable = |(channel, chosen): &&(Channel, Micros)| {
            channel.is_open() && now < chosen.saturating_add(CHOOSE_EVERY_US)
        };
        if self.channels.get(&node).filter(usable).is_none() {
            match self.transport.channel(name, Alpn::Link).filter(Channel::is_open) {
                Some(channel) => {
                    self.channels.insert(node, (channel, now));
                }
                None => {
                    self.channels.remove(&node);
                    if wanted {
                        self.transport.connect(name, Alpn::Link);
                    }
                }
            }
        }
        let (channel, _) = self.channels.get(&node)?;
        if !wanted && channel.dialled() {
            channel.close();
            return None;
        }
        channel.max_datagram_bytes()
    }

    /// Sends a datagram; returns why not.
    pub(super) fn send(&self, router: &mut Router, to: NodeId, bytes: Bytes, now: Micros) -> Option<Refusal> {
        let Some((channel, _)) = self.channels.get(&to) else { return Some(Refusal::NoRoute) };
        let result = if wire::is_urgent(&bytes) { channel.send_now(bytes) } else { channel.send(bytes) };
        match result {
            Ok(()) => None,
            Err(DatagramError::Full) => Some(Refusal::LinkFull),
            Err(DatagramError::TooLarge) => {
                // The path has become narrower; the next frame is cut to fit.
                router.handle_connection(to, channel.max_datagram_bytes(), now);
                Some(Refusal::TooLarge)
            }
            Err(DatagramError::Closed) => {
                router.handle_connection(to, None, now);
                Some(Refusal::NoRoute)
            }
        }
    }
}
