//! What the overlay reads of an IP packet: addresses, protocol, ports, and for an ICMP error the flow of
//! which it speaks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::reason::Refusal;

/// IP protocol numbers.
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Most extension headers that are walked; more is nothing that an application sends.
const MAX_EXTENSIONS: usize = 8;
const IPV4_HEADER_BYTES: usize = 20;
const IPV6_HEADER_BYTES: usize = 40;
/// An ICMP header, after which an error quotes the packet that it is about.
pub(crate) const ICMP_HEADER_BYTES: usize = 8;

/// What is known of a packet's flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// Of an ICMP error: the protocol of the packet that it quotes.
    pub(crate) protocol: u8,
    /// Zero for protocols without ports. Of an ICMP error, the port to which the quoted packet went: the
    /// error travels as an answer to it would.
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    /// Whether it is an ICMP error.
    pub(crate) error: bool,
    /// Fragments of a datagram have this in common, and only the first holds ports.
    pub(crate) fragment: Option<Fragment>,
}

/// Which fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fragment {
    pub(crate) id: u32,
    pub(crate) first: bool,
}

/// The network layer alone.
struct Network {
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    fragment: Option<Fragment>,
    /// Where the transport header begins.
    payload: usize,
}

impl Packet {
    /// Reads a packet.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Refusal> {
        let network = network(bytes, true).ok_or(Refusal::NotIp)?;
        let rest = &bytes[network.payload.min(bytes.len())..];
        let plain = Self {
            source: network.source,
            destination: network.destination,
            protocol: network.protocol,
            source_port: 0,
            destination_port: 0,
            error: false,
            fragment: network.fragment,
        };
        if network.fragment.is_some_and(|fragment| !fragment.first) {
            return Ok(plain);
        }
        match network.protocol {
            TCP | UDP => {
                let (source_port, destination_port) = ports(rest).ok_or(Refusal::NotIp)?;
                Ok(Self { source_port, destination_port, ..plain })
            }
            ICMP if matches!(rest.first(), Some(3 | 4 | 5 | 11 | 12)) => plain.about(rest),
            ICMPV6 if rest.first().is_some_and(|kind| *kind < 128) => plain.about(rest),
            _ => Ok(plain),
        }
    }

    /// An ICMP error as an answer to the packet that it quotes. One that quotes what its receiver did not
    /// send is no answer to anything.
    fn about(self, icmp: &[u8]) -> Result<Self, Refusal> {
        let quote = icmp.get(ICMP_HEADER_BYTES..).ok_or(Refusal::NotIp)?;
        let quoted = network(quote, false).ok_or(Refusal::NotIp)?;
        if quoted.source != self.destination {
            return Err(Refusal::HeaderMismatch);
        }
        let rest = &quote[quoted.payload.min(quote.len())..];
        let (from, to) = match quoted.protocol {
            TCP | UDP => ports(rest).ok_or(Refusal::NotIp)?,
            _ => (0, 0),
        };
        Ok(Self { protocol: quoted.protocol, source_port: to, destination_port: from, error: true, ..self })
    }

    /// A number that packets of one flow have in common: FNV-1a over addresses, protocol and ports.
    pub(crate) fn flow_label(&self) -> u32 {
        let address = |hash: u32, address: IpAddr| match address {
            IpAddr::V4(v4) => fnv(hash, &v4.octets()),
            IpAddr::V6(v6) => fnv(hash, &v6.octets()),
        };
        let hash = address(address(0x811c_9dc5, self.source), self.destination);
        let ports = (u32::from(self.source_port) << 16) | u32::from(self.destination_port);
        fnv(fnv(hash, &[self.protocol]), &ports.to_be_bytes())
    }
}

fn fnv(hash: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(hash, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

fn ports(transport: &[u8]) -> Option<(u16, u16)> {
    Some((be16(transport, 0)?, be16(transport, 2)?))
}

/// The network header. A quoted packet may be cut short, so its length is checked only when `whole`.
fn network(bytes: &[u8], whole: bool) -> Option<Network> {
    match bytes.first()? >> 4 {
        4 => ipv4(bytes, whole),
        6 => ipv6(bytes, whole),
        _ => None,
    }
}

fn ipv4(bytes: &[u8], whole: bool) -> Option<Network> {
    let header = bytes.get(..IPV4_HEADER_BYTES)?;
    let payload = usize::from(header[0] & 15) * 4;
    let length = usize::from(be16(header, 2)?);
    if payload < IPV4_HEADER_BYTES || length < payload || (whole && length != bytes.len()) {
        return None;
    }
    let flags = be16(header, 6)?;
    let (more, offset) = (flags & 0x2000 != 0, flags & 0x1fff);
    let id = u32::from(be16(header, 4)?);
    let octets = |at: usize| <[u8; 4]>::try_from(&header[at..at + 4]).ok();
    Some(Network {
        source: Ipv4Addr::from(octets(12)?).into(),
        destination: Ipv4Addr::from(octets(16)?).into(),
        protocol: header[9],
        fragment: (more || offset > 0).then_some(Fragment { id, first: offset == 0 }),
        payload,
    })
}

fn ipv6(bytes: &[u8], whole: bool) -> Option<Network> {
    let header = bytes.get(..IPV6_HEADER_BYTES)?;
    if whole && usize::from(be16(header, 4)?) + IPV6_HEADER_BYTES != bytes.len() {
        return None;
    }
    let octets = |at: usize| <[u8; 16]>::try_from(&header[at..at + 16]).ok();
    let (mut protocol, mut payload, mut fragment) = (header[6], IPV6_HEADER_BYTES, None);
    for _ in 0..MAX_EXTENSIONS {
        let extension = bytes.get(payload..);
        let (next, length) = match protocol {
            // Hop-by-hop, routing, destination options (RFC 8200, section 4).
            0 | 43 | 60 => (*extension?.first()?, (usize::from(*extension?.get(1)?) + 1) * 8),
            44 => {
                let rest = extension?.get(..8)?;
                let id = u32::from_be_bytes(rest[4..8].try_into().ok()?);
                fragment = Some(Fragment { id, first: be16(rest, 2)? >> 3 == 0 });
                (rest[0], 8)
            }
            _ => break,
        };
        (protocol, payload) = (next, payload + length);
        if fragment.is_some_and(|f: Fragment| !f.first) {
            break;
        }
    }
    // One that has still more of them is taken for what it is: a protocol that no contract names.
    let (source, destination) = (Ipv6Addr::from(octets(8)?), Ipv6Addr::from(octets(24)?));
    Some(Network { source: source.into(), destination: destination.into(), protocol, fragment, payload })
}

pub(crate) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{icmp_error, udp4, udp6};

    #[test]
    fn a_datagram_is_read() {
        for bytes in [udp4([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53, b"x"), udp6(1, 2, 1000, 53, b"x")] {
            let packet = Packet::parse(&bytes).unwrap();
            assert_eq!((packet.protocol, packet.source_port, packet.destination_port), (UDP, 1000, 53));
            assert_eq!((packet.error, packet.fragment), (false, None));
        }
    }

    #[test]
    fn an_error_is_an_answer_to_what_it_quotes() {
        let about = udp4([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53, b"question");
        let error = icmp_error([10, 0, 0, 2], [10, 0, 0, 1], &about[..28]);
        let packet = Packet::parse(&error).unwrap();
        assert_eq!((packet.protocol, packet.source_port, packet.destination_port), (UDP, 53, 1000));
        assert!(packet.error);
        let elsewhere = icmp_error([10, 0, 0, 2], [10, 0, 0, 9], &about[..28]);
        assert_eq!(Packet::parse(&elsewhere), Err(Refusal::HeaderMismatch));
    }

    #[test]
    fn later_fragments_have_no_ports() {
        let mut bytes = udp4([10, 0, 0, 1], [10, 0, 0, 2], 1000, 53, b"x");
        bytes[4..8].copy_from_slice(&[0, 7, 0x20, 0]);
        let first = Packet::parse(&bytes).unwrap();
        assert_eq!((first.destination_port, first.fragment), (53, Some(Fragment { id: 7, first: true })));
        bytes[7] = 1;
        let later = Packet::parse(&bytes).unwrap();
        assert_eq!((later.destination_port, later.fragment), (0, Some(Fragment { id: 7, first: false })));
    }

    proptest! {
        #[test]
        fn garbage_is_refused_or_read_but_never_worse(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn cut_packets_are_refused(len in 0_usize..36) {
            let bytes = udp4([10, 0, 0, 1], [10, 0, 0, 2], 1, 2, b"12345678");
            prop_assert_eq!(Packet::parse(&bytes[..len]), Err(Refusal::NotIp));
        }
    }
}
