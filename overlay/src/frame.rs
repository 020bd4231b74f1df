//! Frames: what one node sends another over the overlay, on one link or several.
//!
//! ```text
//!  0      version (4 bits) and kind (4 bits)
//!  1      flags: 1 IPv6, 2 answer, 4 ICMP error, 8 later fragment
//!  2      hop limit: links it may still cross           changed on the way
//!  3      places of the contract's `via` it has passed  changed on the way
//!  4      protocol
//!  5      zero
//!  6..8   the service's port
//!  8..12  identity behind the source address, 0 for a node's own
//! 12..16  identity behind the destination address, likewise
//! 16..24  source node
//! 24..32  destination node
//! 32..40  revision of the policy under which it was sent
//! 40..44  flow label
//! 44..48  session of the receiver, when sealed
//! 48..56  counter, when sealed
//! 56..    source and destination address, 4 or 16 bytes each; then the payload
//! ```
//! All numbers are big-endian. Everything but the two bytes that change on the way is authenticated.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use selvedge_fabric::{Revision, abi::Identity, key::NodeId};

use crate::reason::Refusal;

/// Version of the format. A frame of another is refused.
const VERSION: u8 = 1;
const FIXED_BYTES: usize = 56;
/// Bytes of the longest header.
pub(crate) const MAX_HEADER_BYTES: usize = FIXED_BYTES + 32;
/// Where the bytes are that change on the way.
const HOP_LIMIT_AT: usize = 2;
const PASSED_AT: usize = 3;

const FLAG_IPV6: u8 = 1;
const FLAG_ANSWER: u8 = 2;
const FLAG_ERROR: u8 = 4;
const FLAG_LATER: u8 = 8;
const FLAGS: u8 = FLAG_IPV6 | FLAG_ANSWER | FLAG_ERROR | FLAG_LATER;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A packet as it is: only over the direct link of the two end nodes.
    Plain = 1,
    /// A sealed packet.
    Sealed = 2,
    /// A message of the handshake that makes a session.
    Handshake = 3,
}

/// Which way, seen from the service that accepts the flow, and what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Flags {
    /// It answers: the port is the source's.
    pub(crate) answer: bool,
    /// An ICMP error about the flow.
    pub(crate) error: bool,
    /// A fragment that holds no ports; they are those of the first.
    pub(crate) later: bool,
}

/// What each hop needs to judge and forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) flags: Flags,
    pub(crate) hop_limit: u8,
    pub(crate) passed: u8,
    pub(crate) protocol: u8,
    pub(crate) port: u16,
    pub(crate) source_identity: Identity,
    pub(crate) destination_identity: Identity,
    pub(crate) source_node: NodeId,
    pub(crate) destination_node: NodeId,
    pub(crate) revision: Revision,
    pub(crate) flow_label: u32,
    pub(crate) session: u32,
    pub(crate) counter: u64,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

impl Header {
    /// How long it is on the wire.
    pub(crate) const fn len(&self) -> usize {
        if self.source.is_ipv6() { FIXED_BYTES + 32 } else { FIXED_BYTES + 8 }
    }

    /// Appends it to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.push((VERSION << 4) | self.kind as u8);
        let flag = |on: bool, bit: u8| if on { bit } else { 0 };
        out.push(
            flag(self.source.is_ipv6(), FLAG_IPV6)
                | flag(self.flags.answer, FLAG_ANSWER)
                | flag(self.flags.error, FLAG_ERROR)
                | flag(self.flags.later, FLAG_LATER),
        );
        out.extend_from_slice(&[self.hop_limit, self.passed, self.protocol, 0]);
        out.extend_from_slice(&self.port.to_be_bytes());
        out.extend_from_slice(&self.source_identity.0.to_be_bytes());
        out.extend_from_slice(&self.destination_identity.0.to_be_bytes());
        out.extend_from_slice(&self.source_node.0.to_be_bytes());
        out.extend_from_slice(&self.destination_node.0.to_be_bytes());
        out.extend_from_slice(&self.revision.to_be_bytes());
        out.extend_from_slice(&self.flow_label.to_be_bytes());
        out.extend_from_slice(&self.session.to_be_bytes());
        out.extend_from_slice(&self.counter.to_be_bytes());
        for address in [self.source, self.destination] {
            match address {
                IpAddr::V4(v4) => out.extend_from_slice(&v4.octets()),
                IpAddr::V6(v6) => out.extend_from_slice(&v6.octets()),
            }
        }
    }

    /// Reads a header; the payload follows it.
    pub(crate) fn decode(frame: &[u8]) -> Result<Self, Refusal> {
        Self::read(frame).ok_or(Refusal::Malformed)
    }

    fn read(frame: &[u8]) -> Option<Self> {
        let kind = match frame.first()? {
            byte if byte >> 4 != VERSION => return None,
            byte if byte & 15 == Kind::Plain as u8 => Kind::Plain,
            byte if byte & 15 == Kind::Sealed as u8 => Kind::Sealed,
            byte if byte & 15 == Kind::Handshake as u8 => Kind::Handshake,
            _ => return None,
        };
        let flags = *frame.get(1)?;
        if flags & !FLAGS != 0 || *frame.get(5)? != 0 {
            return None;
        }
        let (source, destination) = if flags & FLAG_IPV6 == 0 {
            let v4 = |at| array::<4>(frame, at).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
            (v4(FIXED_BYTES)?, v4(FIXED_BYTES + 4)?)
        } else {
            let v6 = |at| array::<16>(frame, at).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
            (v6(FIXED_BYTES)?, v6(FIXED_BYTES + 16)?)
        };
        let u32_at = |at| array(frame, at).map(u32::from_be_bytes);
        let u64_at = |at| array(frame, at).map(u64::from_be_bytes);
        Some(Self {
            kind,
            flags: Flags {
                answer: flags & FLAG_ANSWER != 0,
                error: flags & FLAG_ERROR != 0,
                later: flags & FLAG_LATER != 0,
            },
            hop_limit: frame[HOP_LIMIT_AT],
            passed: frame[PASSED_AT],
            protocol: frame[4],
            port: u16::from_be_bytes(array(frame, 6)?),
            source_identity: Identity(u32_at(8)?),
            destination_identity: Identity(u32_at(12)?),
            source_node: NodeId(u64_at(16)?),
            destination_node: NodeId(u64_at(24)?),
            revision: u64_at(32)?,
            flow_label: u32_at(40)?,
            session: u32_at(44)?,
            counter: u64_at(48)?,
            source,
            destination,
        })
    }

    /// The bytes that are authenticated: those that change on the way count as zero.
    pub(crate) fn associated(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(MAX_HEADER_BYTES);
        Self { hop_limit: 0, passed: 0, ..*self }.encode(&mut bytes);
        bytes
    }

    /// Writes the bytes that change on the way into an encoded frame.
    pub(crate) fn rewrite(&self, frame: &mut [u8]) {
        frame[HOP_LIMIT_AT] = self.hop_limit;
        frame[PASSED_AT] = self.passed;
    }

    /// The header of an answer in the other direction, to the node that sent this one.
    pub(crate) const fn reversed(&self) -> Self {
        Self {
            flags: Flags { answer: !self.flags.answer, ..self.flags },
            source_identity: self.destination_identity,
            destination_identity: self.source_identity,
            source_node: self.destination_node,
            destination_node: self.source_node,
            source: self.destination,
            destination: self.source,
            passed: 0,
            session: 0,
            counter: 0,
            ..*self
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at + N)?.try_into().ok()
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_header() -> impl Strategy<Value = Header> {
        let kind = prop_oneof![Just(Kind::Plain), Just(Kind::Sealed), Just(Kind::Handshake)];
        let flags = any::<(bool, bool, bool)>();
        let addresses = prop_oneof![
            any::<([u8; 4], [u8; 4])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
            any::<([u8; 16], [u8; 16])>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        ];
        let small = any::<(u8, u8, u8, u16, u32, u32)>();
        let large = any::<(u64, u64, u64, u32, u32, u64)>();
        (kind, flags, addresses, small, large).prop_map(|(kind, flags, addresses, small, large)| Header {
            kind,
            flags: Flags { answer: flags.0, error: flags.1, later: flags.2 },
            hop_limit: small.0,
            passed: small.1,
            protocol: small.2,
            port: small.3,
            source_identity: Identity(small.4),
            destination_identity: Identity(small.5),
            source_node: NodeId(large.0),
            destination_node: NodeId(large.1),
            revision: large.2,
            flow_label: large.3,
            session: large.4,
            counter: large.5,
            source: addresses.0,
            destination: addresses.1,
        })
    }

    proptest! {
        #[test]
        fn a_header_comes_back(header in any_header()) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            prop_assert_eq!(bytes.len(), header.len());
            prop_assert_eq!(Header::decode(&bytes), Ok(header));
            prop_assert_eq!(Header::decode(&bytes[..bytes.len() - 1]), Err(Refusal::Malformed));
            prop_assert_eq!(header.reversed().reversed(), Header { passed: 0, session: 0, counter: 0, ..header });
        }

        #[test]
        fn every_bit_but_those_that_change_on_the_way_is_authenticated(header in any_header(), bit in 0_usize..8 * FIXED_BYTES) {
            let mut bytes = Vec::new();
            header.encode(&mut bytes);
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Header::decode(&bytes) {
                let changes = matches!(bit / 8, HOP_LIMIT_AT | PASSED_AT);
                prop_assert_eq!(other.associated() == header.associated(), changes);
            }
        }

        #[test]
        fn garbage_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..120)) {
            if let Ok(header) = Header::decode(&bytes) {
                prop_assert!(header.len() <= bytes.len());
            }
        }
    }
}
