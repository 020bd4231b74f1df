//! Packets, as far as a verdict needs them: addresses, protocol, ports, and what a packet does to a flow.
//!
//! What cannot be seen is never allowed: every length is checked against what the headers declare and
//! against what is there, and whatever this parser does not understand is refused with a reason.

use crate::{Reason, address::Address};

mod icmp;

/// Most IPv6 extension headers that are walked. RFC 8504 section 5.3 lets nodes limit them; hosts send
/// two or three.
pub const MAX_EXTENSION_HEADERS: usize = 8;

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_BYTES: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// EtherType of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;

/// Bytes of a TCP header up to its flags: all of them that a verdict reads.
const TCP_BYTES: usize = 14;
/// SYN and ACK in the flags of TCP.
const SYN_ACK: u8 = 0x12;
const SYN: u8 = 0x02;

/// The bytes of a packet: of a socket buffer in the kernel, of a slice elsewhere.
pub trait Bytes {
    /// How many there are.
    fn length(&self) -> usize;
    /// `N` of them from `offset` on; `None` when there are not so many.
    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;
    /// [`parse`] on these bytes. The kernel has it verified by itself: else its verifier would follow
    /// every way to read a packet through every way to judge one, and give up.
    ///
    /// # Errors
    /// The reason for which the packet is refused.
    #[inline(always)]
    fn parse(&self, offset: usize, ethertype: u16, packet: &mut Packet) -> Result<(), Reason> {
        parse(self, offset, ethertype, packet)
    }
}

impl Bytes for [u8] {
    fn length(&self) -> usize {
        self.len()
    }

    fn load<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }
}

/// What a packet does to a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// Belongs to a flow, or opens one: UDP, TCP that is no opening, an echo reply, other protocols.
    #[default]
    Plain,
    /// Opens a flow, whatever came before: a TCP SYN without ACK, an echo request. Never a reply.
    Opening,
    /// Belongs to no flow and opens none: ICMP that is neither echo nor error.
    Stateless,
    /// An ICMP error about a packet that its destination sent. The ports and [`Packet::flow_protocol`]
    /// are those of that packet, turned round; [`Packet::quoted`] is where it went.
    Error,
    /// Neighbour discovery (RFC 4861) about the address in [`Packet::quoted`].
    Solicitation,
    /// The answer to it, likewise.
    Advertisement,
}

/// What a verdict needs of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Packet {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// See [`Kind::Error`] and [`Kind::Solicitation`]; none otherwise.
    pub quoted: Address,
    /// Port at the source; the identifier for echo; 0 where there is none.
    pub source_port: u16,
    /// Port at the destination; the identifier for echo; 0 where there is none.
    pub destination_port: u16,
    /// IP protocol number of the packet.
    pub protocol: u8,
    /// IP protocol number of the flow it belongs to.
    pub flow_protocol: u8,
    /// What it does to a flow.
    pub kind: Kind,
}

/// Where the part of a packet that is still to be read begins, and where the packet ends by its own
/// account.
#[derive(Clone, Copy)]
struct Rest {
    offset: usize,
    end: usize,
}

impl Rest {
    /// `N` bytes that the packet counts as its own.
    #[inline(always)]
    fn load<const N: usize, B: Bytes + ?Sized>(self, bytes: &B) -> Result<[u8; N], Reason> {
        if self.offset + N > self.end {
            return Err(Reason::Truncated);
        }
        bytes.load(self.offset).ok_or(Reason::Truncated)
    }

    #[inline(always)]
    const fn skip(self, bytes: usize) -> Self {
        Self { offset: self.offset + bytes, end: self.end }
    }
}

#[inline(always)]
pub(crate) const fn be16(high: u8, low: u8) -> u16 {
    u16::from_be_bytes([high, low])
}

/// Reads an IP packet that begins at `offset`; `ethertype` says of which version.
///
/// # Errors
/// The reason for which it is refused; `packet` then holds what was understood so far.
#[inline(always)]
pub fn parse<B: Bytes + ?Sized>(
    bytes: &B,
    offset: usize,
    ethertype: u16,
    packet: &mut Packet,
) -> Result<(), Reason> {
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(bytes, offset, packet),
        ETHERTYPE_IPV6 => ipv6(bytes, offset, packet),
        _ => Err(Reason::NotIp),
    }
}

/// The EtherType that the first byte of an IP packet stands for; 0 when it is none.
#[must_use]
pub fn ethertype_of<B: Bytes + ?Sized>(bytes: &B) -> u16 {
    match bytes.load::<1>(0) {
        Some([first]) if first >> 4 == 4 => ETHERTYPE_IPV4,
        Some([first]) if first >> 4 == 6 => ETHERTYPE_IPV6,
        _ => 0,
    }
}

#[inline(always)]
fn ipv4<B: Bytes + ?Sized>(bytes: &B, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    let h = bytes.load::<20>(offset).ok_or(Reason::Truncated)?;
    let header = ((h[0] & 0x0f) as usize) * 4;
    let total = be16(h[2], h[3]) as usize;
    if h[0] >> 4 != 4 || header < 20 || total < header {
        return Err(Reason::Malformed);
    }
    if offset + total > bytes.length() {
        return Err(Reason::Truncated);
    }
    // The ports are in the first fragment alone.
    if be16(h[6], h[7]) & 0x1fff != 0 {
        return Err(Reason::Fragment);
    }
    *packet = Packet {
        source: Address::ipv4([h[12], h[13], h[14], h[15]]),
        destination: Address::ipv4([h[16], h[17], h[18], h[19]]),
        protocol: h[9],
        flow_protocol: h[9],
        ..Packet::default()
    };
    let rest = Rest { offset: offset + header, end: offset + total };
    match h[9] {
        1 => icmp::version4(bytes, rest, packet),
        58 => Err(Reason::Malformed),
        _ => transport(bytes, rest, packet),
    }
}

#[inline(always)]
fn ipv6<B: Bytes + ?Sized>(bytes: &B, offset: usize, packet: &mut Packet) -> Result<(), Reason> {
    let h = bytes.load::<40>(offset).ok_or(Reason::Truncated)?;
    if h[0] >> 4 != 6 {
        return Err(Reason::Malformed);
    }
    let end = offset + 40 + be16(h[4], h[5]) as usize;
    if end > bytes.length() {
        return Err(Reason::Truncated);
    }
    let (source, destination) = ipv6_addresses(&h);
    // Such an address on the wire (RFC 4942 section 2.2) would be taken for an IPv4 one.
    if source.is_ipv4() || destination.is_ipv4() {
        return Err(Reason::Malformed);
    }
    let (protocol, rest) = extension_headers(bytes, h[6], Rest { offset: offset + 40, end })?;
    *packet = Packet { source, destination, protocol, flow_protocol: protocol, ..Packet::default() };
    match protocol {
        58 => icmp::version6(bytes, rest, h[7], packet),
        1 => Err(Reason::Malformed),
        _ => transport(bytes, rest, packet),
    }
}

#[inline(always)]
const fn ipv6_addresses(h: &[u8; 40]) -> (Address, Address) {
    (
        Address::ipv6([
            h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15], h[16], h[17], h[18], h[19], h[20], h[21],
            h[22], h[23],
        ]),
        Address::ipv6([
            h[24], h[25], h[26], h[27], h[28], h[29], h[30], h[31], h[32], h[33], h[34], h[35], h[36], h[37],
            h[38], h[39],
        ]),
    )
}

/// Walks the extension headers (RFC 8200 section 4) to the transport protocol.
#[inline(always)]
fn extension_headers<B: Bytes + ?Sized>(bytes: &B, first: u8, rest: Rest) -> Result<(u8, Rest), Reason> {
    let (mut next, mut rest) = (first, rest);
    for _ in 0..MAX_EXTENSION_HEADERS {
        // Hop-by-hop 0, routing 43, fragment 44, authentication 51, destination options 60.
        if !matches!(next, 0 | 43 | 44 | 51 | 60) {
            return Ok((next, rest));
        }
        let h = rest.load::<4, B>(bytes)?;
        let length = match next {
            44 if be16(h[2], h[3]) & 0xfff8 != 0 => return Err(Reason::Fragment),
            44 => 8,
            51 => (h[1] as usize + 2) * 4,
            // With segments left the destination in the header is not where the packet ends up.
            43 if h[3] != 0 => return Err(Reason::ExtensionHeaders),
            _ => (h[1] as usize + 1) * 8,
        };
        next = h[0];
        rest = rest.skip(length);
        if rest.offset > rest.end {
            return Err(Reason::Truncated);
        }
    }
    if matches!(next, 0 | 43 | 44 | 51 | 60) {
        return Err(Reason::ExtensionHeaders);
    }
    Ok((next, rest))
}

#[inline(always)]
fn transport<B: Bytes + ?Sized>(bytes: &B, rest: Rest, packet: &mut Packet) -> Result<(), Reason> {
    let ports = match packet.protocol {
        6 => {
            // The flags too: a first fragment without them could be completed to anything (RFC 1858).
            let h = rest.load::<TCP_BYTES, B>(bytes)?;
            if h[13] & SYN_ACK == SYN {
                packet.kind = Kind::Opening;
            }
            [h[0], h[1], h[2], h[3]]
        }
        17 => {
            let h = rest.load::<8, B>(bytes)?;
            [h[0], h[1], h[2], h[3]]
        }
        _ => return Ok(()),
    };
    packet.source_port = be16(ports[0], ports[1]);
    packet.destination_port = be16(ports[2], ports[3]);
    Ok(())
}
