//! What a datagram tells whoever carries it, for tools that watch links: the simulation, and captures.

use std::net::IpAddr;

use bytes::Bytes;
use selvedge_fabric::{Revision, key::NodeId};

use crate::{
    frame::{Header, Kind},
    wire::Datagram,
};

/// The part of a frame's header that says what it carries, and between whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peeked {
    /// The node it comes from.
    pub source_node: NodeId,
    /// The node it goes to.
    pub destination_node: NodeId,
    /// Source address of the packet.
    pub source: IpAddr,
    /// Destination address of the packet.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The port of the service that accepts the flow.
    pub port: u16,
    /// Whether the packet answers: then source and destination are the flow's other way round.
    pub answer: bool,
    /// Revision of the policy under which it was sent.
    pub revision: Revision,
    /// Whether the packet is sealed.
    pub sealed: bool,
}

/// Reads a datagram of a link; `None` when it is no whole frame that carries a packet.
#[must_use]
pub fn peek(datagram: &Bytes) -> Option<Peeked> {
    let Datagram::Frame(frame) = Datagram::decode(datagram).ok()? else { return None };
    let header = Header::decode(&frame).ok().filter(|header| header.kind != Kind::Handshake)?;
    Some(Peeked {
        source_node: header.source_node,
        destination_node: header.destination_node,
        source: header.source,
        destination: header.destination,
        protocol: header.protocol,
        port: header.port,
        answer: header.flags.answer,
        revision: header.revision,
        sealed: header.kind == Kind::Sealed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::Flags,
        packet::UDP,
        testing::{CLIENT, SERVER, client_ipv4, server_ipv4},
        wire::split,
    };

    #[test]
    fn frames_tell_what_they_carry_and_probes_nothing() {
        let header = Header {
            kind: Kind::Sealed,
            flags: Flags { answer: true, ..Flags::default() },
            hop_limit: 4,
            passed: 0,
            protocol: UDP,
            port: 53,
            source_identity: SERVER,
            destination_identity: CLIENT,
            source_node: NodeId(3),
            destination_node: NodeId(1),
            revision: 9,
            flow_label: 0,
            session: 0,
            counter: 0,
            source: server_ipv4(3).into(),
            destination: client_ipv4(1).into(),
        };
        let mut frame = Vec::new();
        header.encode(&mut frame);
        let (datagram, _) = split(&frame, 1_200, 0).unwrap();
        let seen = peek(&datagram).unwrap();
        assert_eq!((seen.source_node, seen.destination_node), (NodeId(3), NodeId(1)));
        assert_eq!(
            (seen.protocol, seen.port, seen.answer, seen.revision, seen.sealed),
            (UDP, 53, true, 9, true)
        );
        assert_eq!(peek(&Datagram::probe(7)), None);
        assert_eq!(peek(&Bytes::from_static(b"\x01nonsense")), None);
    }
}
