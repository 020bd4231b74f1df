//! What a frame looks like, from the frame and from what came before it.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
};

use super::Ports;
use crate::frame::{ARP, ETHERNET_BYTES, ICMPV6, IPV4, IPV6, Ipv4, TCP, UDP, ethertype, u16_at, u32_at};

/// Most connections that are followed; what is beyond counts as foreign.
const MAX_CONNECTIONS: usize = 65_536;

/// QUIC (RFC 9000, section 17): the form bit, the fixed bit, and the smallest packets.
const LONG: u8 = 0x80;
const FIXED: u8 = 0x40;
const VERSION_1: u32 = 1;
const NEGOTIATION: u32 = 0;
const SMALLEST_SHORT_BYTES: usize = 21;
const SMALLEST_INITIAL_BYTES: usize = 1_200;

/// TLS records (RFC 8446, section 5.1): kinds from change_cipher_spec to application_data, and the most
/// that one holds.
const RECORD_KINDS: std::ops::RangeInclusive<u8> = 20..=23;
const RECORD_HEADER_BYTES: usize = 5;
const MAX_RECORD_BYTES: usize = (16 << 10) + 2_048;

/// TCP flags (RFC 9293).
const SYN: u8 = 0x02;

/// Neighbour discovery (RFC 4861): from router solicitation to redirect.
const DISCOVERY: std::ops::RangeInclusive<u8> = 133..=137;

/// What a frame looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Address resolution of IPv4 (RFC 826).
    Arp,
    /// Neighbour discovery of IPv6 (RFC 4861).
    NeighbourDiscovery,
    /// QUIC version 1 between ports of the fabric.
    Quic,
    /// The API: TCP that carries TLS and nothing else.
    ApiTls,
    /// What a host or a gateway has to report about a packet of the fabric (ICMP, RFC 792): a port is
    /// closed, as while a node starts, or a packet is too big.
    Error,
    /// Anything else.
    Foreign,
}

/// Two ends of a connection.
type Ends = (SocketAddrV4, SocketAddrV4);

/// One direction of a TCP connection.
#[derive(Debug, Clone, Copy, Default)]
struct Stream {
    /// The sequence number that comes next.
    next: u32,
    /// What has been seen of a record's header.
    header: [u8; RECORD_HEADER_BYTES],
    header_bytes: usize,
    /// What is still to come of a record.
    left: usize,
}

/// Remembers connections.
#[derive(Debug)]
pub(super) struct Observer {
    ports: Ports,
    /// Connections of QUIC that were seen to begin, the lower end first. From then on the fixed bit may be unset (RFC 9287).
    quic: BTreeSet<Ends>,
    /// Directions of connections to the API, each by where it comes from and where it goes.
    tls: BTreeMap<Ends, Stream>,
}

impl Observer {
    pub(super) const fn new(ports: Ports) -> Self {
        Self { ports, quic: BTreeSet::new(), tls: BTreeMap::new() }
    }

    pub(super) fn kind(&mut self, frame: &[u8]) -> Kind {
        let body = frame.get(ETHERNET_BYTES..).unwrap_or_default();
        match ethertype(frame) {
            Some(ARP) => Kind::Arp,
            Some(IPV6) if is_discovery(body) => Kind::NeighbourDiscovery,
            Some(IPV4) => self.ipv4(body).unwrap_or(Kind::Foreign),
            _ => Kind::Foreign,
        }
    }

    fn ipv4(&mut self, packet: &[u8]) -> Option<Kind> {
        let ip = Ipv4::parse(packet)?;
        if let Some(quoted) = ip.quoted {
            let quoted = Ipv4::parse(&packet[quoted..ip.end])?;
            return self.speaks(&quoted).map(|_| Kind::Error);
        }
        let (from, to) = ip.ports?;
        let ends = (SocketAddrV4::new(ip.source, from), SocketAddrV4::new(ip.destination, to));
        let body = &packet[ip.payload..ip.end];
        match self.speaks(&ip)? {
            UDP => self.quic(ends, body.get(8..)?).then_some(Kind::Quic),
            _ => self.tcp(ends, body)?.then_some(Kind::ApiTls),
        }
    }

    /// The protocol of a packet, if it has to do with a port of the fabric.
    fn speaks(&self, ip: &Ipv4) -> Option<u8> {
        let (from, to) = ip.ports?;
        let ports = match ip.protocol {
            UDP => &self.ports.quic,
            TCP => &self.ports.tls,
            _ => return None,
        };
        (ports.contains(&from) || ports.contains(&to)).then_some(ip.protocol)
    }

    fn quic(&mut self, (from, to): Ends, datagram: &[u8]) -> bool {
        let ends = (from.min(to), from.max(to));
        let is_known = self.quic.contains(&ends);
        let Some(&first) = datagram.first() else { return false };
        if first & LONG == 0 {
            return is_known || (first & FIXED != 0 && datagram.len() >= SMALLEST_SHORT_BYTES);
        }
        let fits = match u32_at(datagram, 1) {
            Some(VERSION_1) => is_known || (first & FIXED != 0 && datagram.len() >= SMALLEST_INITIAL_BYTES),
            Some(NEGOTIATION) => true,
            _ => false,
        };
        if fits && self.quic.len() < MAX_CONNECTIONS {
            self.quic.insert(ends);
        }
        fits
    }

    /// Whether a segment carries nothing but records of TLS.
    fn tcp(&mut self, ends: Ends, segment: &[u8]) -> Option<bool> {
        let (sequence, flags) = (u32_at(segment, 4)?, *segment.get(13)?);
        let data = segment.get(usize::from(segment.get(12)? >> 4) * 4..)?;
        if flags & SYN != 0 {
            if self.tls.len() >= MAX_CONNECTIONS && !self.tls.contains_key(&ends) {
                return None;
            }
            self.tls.insert(ends, Stream { next: sequence.wrapping_add(1), ..Stream::default() });
            return Some(data.is_empty());
        }
        if data.is_empty() {
            return Some(true);
        }
        if !self.tls.contains_key(&ends) && self.tls.len() >= MAX_CONNECTIONS {
            return None;
        }
        // Where the beginning was not seen, a record must begin here.
        let unseen = Stream { next: sequence, ..Stream::default() };
        self.tls.entry(ends).or_insert(unseen).take(sequence, data)
    }
}

impl Stream {
    /// Follows the records. What was seen before is not looked at again; none where something is missing.
    fn take(&mut self, sequence: u32, data: &[u8]) -> Option<bool> {
        let seen = self.next.wrapping_sub(sequence);
        if seen > i32::MAX as u32 {
            return None;
        }
        let Some(mut data) = data.get(seen as usize..) else { return Some(true) };
        self.next = self.next.wrapping_add(data.len() as u32);
        while !data.is_empty() {
            if self.left == 0 {
                self.header[self.header_bytes] = data[0];
                self.header_bytes += 1;
                data = &data[1..];
                if self.header_bytes == RECORD_HEADER_BYTES {
                    self.header_bytes = 0;
                    self.left = record_bytes(self.header)?;
                }
                continue;
            }
            let step = self.left.min(data.len());
            self.left -= step;
            data = &data[step..];
        }
        Some(true)
    }
}

/// How long a record is, by its header; none when it is not one.
fn record_bytes(header: [u8; RECORD_HEADER_BYTES]) -> Option<usize> {
    let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
    let fits = RECORD_KINDS.contains(&header[0])
        && header[1] == 3
        && header[2] <= 4
        && (1..=MAX_RECORD_BYTES).contains(&length);
    fits.then_some(length)
}

/// ICMPv6 right behind the header; neighbour discovery has no extension headers in between, and never
/// crosses a router, so its hop limit is 255.
fn is_discovery(packet: &[u8]) -> bool {
    let byte = |at: usize| packet.get(at).copied();
    byte(6) == Some(ICMPV6)
        && byte(7) == Some(255)
        && byte(40).is_some_and(|kind| DISCOVERY.contains(&kind))
        && u16_at(packet, 4).is_some_and(|length| length >= 8)
}
