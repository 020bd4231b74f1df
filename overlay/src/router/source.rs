//! Packets that leave here.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use selvedge_fabric::{key::NodeId, plan::Routing};

use super::{Hop, Output, Router};
use crate::{
    Micros,
    frame::{Header, Kind},
    icmp,
    judge::{ends, identity, judge_at_source},
    packet::Packet,
    reason::Refusal,
    route::link_is_permitted,
    seal::{Sealed, TAG_BYTES},
    wire,
};

impl Router {
    /// Takes an IP packet that the TUN gave.
    pub fn handle_packet(&mut self, bytes: Bytes, now: Micros) {
        if let Err(why) = self.send_packet(bytes, now) {
            self.counters.refuse(why);
        }
    }

    fn send_packet(&mut self, bytes: Bytes, now: Micros) -> Result<(), Refusal> {
        let (header, hop) = self.prepare(&bytes, now)?;
        self.check_size(&bytes, &header, hop)?;
        if self.direct_links {
            self.want_direct(header.destination_node, now);
        }
        if hop.next == header.destination_node {
            self.send_plain(header, hop, &bytes)?;
        } else {
            self.send_sealed(header, hop, bytes, now)?;
        }
        self.counters.sent += 1;
        Ok(())
    }

    /// Judges a packet and finds its way.
    fn prepare(&mut self, bytes: &[u8], now: Micros) -> Result<(Header, Hop), Refusal> {
        let packet = Packet::parse(bytes)?;
        if !is_unicast(packet.source) || !is_unicast(packet.destination) {
            return Err(Refusal::NotUnicast);
        }
        let packet = self.fragmented.complete(packet, now).ok_or(Refusal::LostFragment)?;
        let routing = Arc::clone(&self.routing);
        let ends = ends(&routing, &packet)?;
        if ends.source.node != self.me || routing.me != Some(self.me) {
            return Err(Refusal::SpoofedSource);
        }
        if ends.destination.node == self.me {
            return Err(Refusal::WrongDestination);
        }
        let (flags, contract) = judge_at_source(&routing, &ends, &packet)?;
        let header = Header {
            kind: Kind::Plain,
            flags,
            hop_limit: self.hop_limit(contract),
            passed: 0,
            protocol: packet.protocol,
            port: if flags.answer { packet.source_port } else { packet.destination_port },
            source_identity: identity(&ends.source),
            destination_identity: identity(&ends.destination),
            source_node: self.me,
            destination_node: ends.destination.node,
            revision: routing.revision,
            flow_label: packet.flow_label(),
            session: 0,
            counter: 0,
            source: packet.source,
            destination: packet.destination,
        };
        let hop = self.route(&header, contract, None)?;
        Ok((header, hop))
    }

    /// A packet that not even two datagrams hold is answered.
    fn check_size(&mut self, bytes: &[u8], header: &Header, hop: Hop) -> Result<(), Refusal> {
        let max_datagram = self.links.get(&hop.next).and_then(|link| link.max_datagram);
        let room = wire::max_frame_bytes(max_datagram.ok_or(Refusal::NoRoute)?);
        let room = room.saturating_sub(header.len() + TAG_BYTES);
        if bytes.len() <= room {
            return Ok(());
        }
        if let Some(error) = own_address(&self.routing, self.me, header.source)
            .and_then(|from| icmp::too_big(bytes, from, room))
        {
            self.out.push_back(Output::Packet(error.into()));
        }
        Err(Refusal::TooLarge)
    }

    /// To a neighbour: QUIC keeps it secret.
    fn send_plain(&mut self, header: Header, hop: Hop, packet: &[u8]) -> Result<(), Refusal> {
        let header = Header { hop_limit: hop.hop_limit, passed: hop.passed, ..header };
        let mut frame = Vec::with_capacity(header.len() + packet.len());
        header.encode(&mut frame);
        frame.extend_from_slice(packet);
        self.send_frame(hop.next, &frame)
    }

    fn send_sealed(&mut self, header: Header, hop: Hop, packet: Bytes, now: Micros) -> Result<(), Refusal> {
        let to = header.destination_node;
        let mut header =
            Header { kind: Kind::Sealed, hop_limit: hop.hop_limit, passed: hop.passed, ..header };
        let routing = Arc::clone(&self.routing);
        let key = &routing.nodes.get(&to).ok_or(Refusal::UnknownNode)?.sealing_key;
        let first = match self.sessions.seal(key, &mut header, &packet, now)? {
            Sealed::Frame { frame, first } => {
                self.send_frame(hop.next, &frame)?;
                first
            }
            Sealed::NoSession { first } => {
                if !self.waiting_for_session.push(to, packet, now) {
                    return Err(Refusal::SessionWait);
                }
                first
            }
        };
        match first {
            Some(message) => self.send_handshake(header, hop, &message),
            None => Ok(()),
        }
    }

    /// A handshake message travels as the packet does that needs the session: judged alike, on the same
    /// way.
    pub(super) fn send_handshake(&mut self, header: Header, hop: Hop, message: &[u8]) -> Result<(), Refusal> {
        let handshake = Header { kind: Kind::Handshake, session: 0, counter: 0, ..header };
        self.send_plain(handshake, hop, message)
    }

    /// Sends a handshake message to where a frame came from.
    pub(super) fn answer_with_handshake(&mut self, header: &Header, message: &[u8]) -> Result<(), Refusal> {
        let (back, hop) = self.way_back(header)?;
        self.send_handshake(back, hop, message)
    }

    /// Sends an empty packet under a new session. The other end, which answered the handshake, uses the
    /// session only when it knows that this one has it.
    pub(super) fn confirm_session(&mut self, header: &Header, now: Micros) -> Result<(), Refusal> {
        let (back, hop) = self.way_back(header)?;
        let routing = Arc::clone(&self.routing);
        let to = back.destination_node;
        let key = &routing.nodes.get(&to).ok_or(Refusal::UnknownNode)?.sealing_key;
        let mut back = Header { kind: Kind::Sealed, hop_limit: hop.hop_limit, passed: hop.passed, ..back };
        match self.sessions.seal(key, &mut back, &[], now)? {
            Sealed::Frame { frame, .. } => self.send_frame(hop.next, &frame),
            Sealed::NoSession { .. } => Ok(()),
        }
    }

    fn way_back(&mut self, header: &Header) -> Result<(Header, Hop), Refusal> {
        let back = header.reversed();
        let routing = Arc::clone(&self.routing);
        let contract = crate::judge::contract_of(&routing, &back)?;
        let back = Header { hop_limit: self.hop_limit(contract), revision: routing.revision, ..back };
        let hop = self.route(&back, contract, None)?;
        Ok((back, hop))
    }

    /// Repeats the first message of a handshake for which packets wait.
    pub(super) fn retry_session(&mut self, node: NodeId, now: Micros) {
        let waiting = self.waiting_for_session.take(node);
        if let Some((_, packet)) = waiting.front()
            && let Err(why) = self.repeat_handshake(packet, now)
        {
            self.counters.refuse(why);
        }
        for (since, packet) in waiting {
            self.waiting_for_session.put_back(node, since, packet);
        }
    }

    fn repeat_handshake(&mut self, packet: &[u8], now: Micros) -> Result<(), Refusal> {
        let (header, hop) = self.prepare(packet, now)?;
        let routing = Arc::clone(&self.routing);
        let to = header.destination_node;
        let key = &routing.nodes.get(&to).ok_or(Refusal::UnknownNode)?.sealing_key;
        match self.sessions.begin(to, key, now)? {
            Some(message) => self.send_handshake(header, hop, &message),
            None => Ok(()),
        }
    }

    /// Sends what waited for a session, or for any way that needs none.
    pub(super) fn flush_waiting(&mut self, node: NodeId, now: Micros) {
        for (_, packet) in self.waiting_for_session.take(node) {
            // Counted as sent when it began to wait.
            match self.send_packet(packet, now) {
                Ok(()) => self.counters.sent -= 1,
                Err(why) => self.counters.refuse(why),
            }
        }
    }

    /// Notes traffic with a node that a direct link could spare the detour.
    fn want_direct(&mut self, node: NodeId, now: Micros) {
        if link_is_permitted(&self.routing, self.me, node) {
            self.direct.touch(node, now);
            self.wanted.insert(node);
        }
    }
}

/// Neither multicast nor of one link only.
const fn is_unicast(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            !v4.is_multicast() && !v4.is_broadcast() && !v4.is_link_local() && !v4.is_unspecified()
        }
        IpAddr::V6(v6) => !v6.is_multicast() && !v6.is_unicast_link_local() && !v6.is_unspecified(),
    }
}

/// This node's own address of the same family.
fn own_address(routing: &Routing, me: NodeId, like: IpAddr) -> Option<IpAddr> {
    let own = &routing.nodes.get(&me)?.addresses;
    if like.is_ipv4() { own.ipv4.map(IpAddr::V4) } else { own.ipv6.map(IpAddr::V6) }
}
