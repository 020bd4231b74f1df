//! Ethernet frames and IPv4 packets, as far as one must understand them to forward, translate and name
//! them (RFC 791, 768, 792, 9293). Nothing here trusts a length that it read.

use std::net::Ipv4Addr;

/// A link-layer address.
pub type Mac = [u8; 6];

/// Bytes of the Ethernet header.
pub const ETHERNET_BYTES: usize = 14;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const IPV6: u16 = 0x86dd;

pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

/// Where the header of IPv4 has its parts.
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const HEADER_CHECKSUM: usize = 10;
const MIN_HEADER_BYTES: usize = 20;

/// ICMP messages (RFC 792).
const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const ERRORS: [u8; 3] = [3, 11, 12];
const ICMP_HEADER_BYTES: usize = 8;

/// To whom a frame is addressed.
pub(crate) fn destination(frame: &[u8]) -> Option<Mac> {
    frame.get(..6)?.try_into().ok()
}

/// What a frame carries.
pub(crate) fn ethertype(frame: &[u8]) -> Option<u16> {
    u16_at(frame, 12)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// One end of a packet: which part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Source,
    Destination,
}

/// What an IPv4 packet says about itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ipv4 {
    pub(crate) source: Ipv4Addr,
    pub(crate) destination: Ipv4Addr,
    pub(crate) protocol: u8,
    /// Where its payload begins.
    pub(crate) payload: usize,
    /// Where the packet ends; a frame may be padded.
    pub(crate) end: usize,
    /// Whether it is a fragment other than the first, so that no header of a transport is in it.
    pub(crate) is_later_fragment: bool,
    /// Ports of source and destination; the identifier of an ICMP echo is both.
    pub(crate) ports: Option<(u16, u16)>,
    /// Where the packet begins that an ICMP error quotes.
    pub(crate) quoted: Option<usize>,
}

impl Ipv4 {
    /// Reads a packet. A quoted one is cut short: what its header announces need not be there.
    pub(crate) fn parse(packet: &[u8]) -> Option<Self> {
        let first = *packet.first()?;
        let payload = usize::from(first & 0x0f) * 4;
        let end = usize::from(u16_at(packet, 2)?).min(packet.len());
        if first >> 4 != 4 || payload < MIN_HEADER_BYTES || payload > end {
            return None;
        }
        let address = |at: usize| Some(Ipv4Addr::from(u32_at(packet, at)?));
        let mut this = Self {
            source: address(SOURCE)?,
            destination: address(DESTINATION)?,
            protocol: packet[9],
            payload,
            end,
            is_later_fragment: u16_at(packet, 6)? & 0x1fff != 0,
            ports: None,
            quoted: None,
        };
        if !this.is_later_fragment {
            let body = &packet[payload..end];
            this.ports = this.ports_of(body);
            this.quoted = this.quoted_in(body).then_some(payload + ICMP_HEADER_BYTES);
        }
        Some(this)
    }

    fn ports_of(&self, body: &[u8]) -> Option<(u16, u16)> {
        match (self.protocol, body.first()?) {
            (TCP | UDP, _) => Some((u16_at(body, 0)?, u16_at(body, 2)?)),
            (ICMP, &(ECHO_REQUEST | ECHO_REPLY)) => u16_at(body, 4).map(|id| (id, id)),
            _ => None,
        }
    }

    fn quoted_in(&self, body: &[u8]) -> bool {
        self.protocol == ICMP
            && body.len() >= ICMP_HEADER_BYTES + MIN_HEADER_BYTES
            && ERRORS.contains(&body[0])
    }

    /// Whether it is an ICMP error.
    pub(crate) const fn is_error(&self) -> bool {
        self.quoted.is_some()
    }
}

/// Gives one end of a packet another address and, where it has one, another port. Checksums follow
/// (RFC 1624), but not that of a transport whose header is quoted in an error: nobody looks at it.
pub(crate) fn readdress(packet: &mut [u8], end: End, address: Ipv4Addr, port: Option<u16>) {
    let Some(header) = Ipv4::parse(packet) else { return };
    let (at, old) = match end {
        End::Source => (SOURCE, header.source),
        End::Destination => (DESTINATION, header.destination),
    };
    packet[at..at + 4].copy_from_slice(&address.octets());
    let mut change = Change::default();
    change.replace(&old.octets(), &address.octets());
    change.apply(packet, HEADER_CHECKSUM);
    let Some((source, destination)) = header.ports else { return };
    // An echo has one number, and its checksum does not cover the addresses.
    let (port_at, old_port) = match (header.protocol, end) {
        (ICMP, _) => (header.payload + 4, source),
        (_, End::Source) => (header.payload, source),
        (_, End::Destination) => (header.payload + 2, destination),
    };
    if header.protocol == ICMP {
        change = Change::default();
    }
    if let Some(port) = port {
        packet[port_at..port_at + 2].copy_from_slice(&port.to_be_bytes());
        change.replace(&old_port.to_be_bytes(), &port.to_be_bytes());
    }
    let checksum = header.payload
        + match header.protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
    // A datagram may go without (RFC 768).
    if header.protocol == UDP && u16_at(packet, checksum) == Some(0) {
        return;
    }
    change.apply(packet, checksum);
    if header.protocol == UDP && u16_at(packet, checksum) == Some(0) {
        packet[checksum..checksum + 2].fill(0xff);
    }
}

/// Gives one end of the packet that an ICMP error quotes another address and port.
pub(crate) fn readdress_quoted(packet: &mut [u8], end: End, address: Ipv4Addr, port: Option<u16>) {
    let Some(header) = Ipv4::parse(packet) else { return };
    let Some(quoted) = header.quoted else { return };
    readdress(&mut packet[quoted..header.end], end, address, port);
    let message = &mut packet[header.payload..header.end];
    message[2..4].fill(0);
    let sum = !checksum(message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
}

/// The one's complement sum of RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| {
        let low = word.get(1).copied().unwrap_or_default();
        u32::from(u16::from_be_bytes([word[0], low]))
    });
    fold(words.sum())
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// By how much a checksum changes.
#[derive(Debug, Default)]
struct Change {
    sum: u32,
}

impl Change {
    /// Both of the same, even length.
    fn replace(&mut self, old: &[u8], new: &[u8]) {
        self.sum += u32::from(!checksum(old)) + u32::from(checksum(new));
    }

    /// Where the checksum is not in the packet, as in one cut short, nothing changes.
    fn apply(&self, packet: &mut [u8], at: usize) {
        let Some(old) = u16_at(packet, at) else { return };
        let new = !fold(u32::from(!old) + self.sum);
        packet[at..at + 2].copy_from_slice(&new.to_be_bytes());
    }
}

#[cfg(test)]
pub(crate) mod tests;
