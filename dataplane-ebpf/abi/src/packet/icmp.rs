//! ICMP (RFC 792, RFC 4443), neighbour discovery (RFC 4861) and the packets that errors quote.

use super::{Bytes, Kind, Packet, Rest, be16, ipv6_addresses};
use crate::{Reason, address::Address};

/// The hop limit that proves that neighbour discovery comes from the link itself.
const ON_LINK_HOPS: u8 = 255;

#[inline(always)]
pub(super) fn version4<B: Bytes + ?Sized>(bytes: &B, rest: Rest, packet: &mut Packet) -> Result<(), Reason> {
    let h = rest.load::<8, B>(bytes)?;
    match h[0] {
        0 => echo(h, Kind::Plain, packet),
        8 => echo(h, Kind::Opening, packet),
        // Unreachable, time exceeded, parameter problem.
        3 | 11 | 12 => return quoted4(bytes, rest.skip(8), packet),
        // Source quench, redirect, router discovery: they steer the receiver, no contract speaks of them.
        4 | 5 | 9 | 10 => return Err(Reason::LinkControl),
        _ => packet.kind = Kind::Stateless,
    }
    Ok(())
}

#[inline(always)]
pub(super) fn version6<B: Bytes + ?Sized>(
    bytes: &B,
    rest: Rest,
    hops: u8,
    packet: &mut Packet,
) -> Result<(), Reason> {
    let h = rest.load::<8, B>(bytes)?;
    match h[0] {
        129 => echo(h, Kind::Plain, packet),
        128 => echo(h, Kind::Opening, packet),
        // Unreachable, packet too big, time exceeded, parameter problem.
        1..=4 => return quoted6(bytes, rest.skip(8), packet),
        135 | 136 if hops == ON_LINK_HOPS => {
            packet.quoted = Address::ipv6(rest.skip(8).load::<16, B>(bytes)?);
            packet.kind = if h[0] == 135 { Kind::Solicitation } else { Kind::Advertisement };
        }
        // Multicast listeners, routers, redirects and the like.
        130..=137 | 141..=143 | 148 | 149 | 151..=153 => return Err(Reason::LinkControl),
        _ => packet.kind = Kind::Stateless,
    }
    Ok(())
}

/// Both directions of an echo share its identifier.
#[inline(always)]
const fn echo(h: [u8; 8], kind: Kind, packet: &mut Packet) {
    packet.kind = kind;
    packet.source_port = be16(h[4], h[5]);
    packet.destination_port = packet.source_port;
}

#[inline(always)]
fn quoted4<B: Bytes + ?Sized>(bytes: &B, rest: Rest, packet: &mut Packet) -> Result<(), Reason> {
    let h = rest.load::<20, B>(bytes)?;
    let header = ((h[0] & 0x0f) as usize) * 4;
    if h[0] >> 4 != 4 || header < 20 || be16(h[6], h[7]) & 0x1fff != 0 {
        return Err(Reason::UntrackedError);
    }
    let source = Address::ipv4([h[12], h[13], h[14], h[15]]);
    packet.quoted = Address::ipv4([h[16], h[17], h[18], h[19]]);
    quoted(bytes, rest.skip(header), &source, h[9], packet)
}

/// Without extension headers: the flows that are tracked hardly have them, and one more walk costs the
/// verifier more than it is worth.
#[inline(always)]
fn quoted6<B: Bytes + ?Sized>(bytes: &B, rest: Rest, packet: &mut Packet) -> Result<(), Reason> {
    let h = rest.load::<40, B>(bytes)?;
    if h[0] >> 4 != 6 {
        return Err(Reason::UntrackedError);
    }
    let (source, destination) = ipv6_addresses(&h);
    packet.quoted = destination;
    quoted(bytes, rest.skip(40), &source, h[6], packet)
}

/// The flow of the quoted packet, turned round: what its source was is where the error goes.
#[inline(always)]
fn quoted<B: Bytes + ?Sized>(
    bytes: &B,
    rest: Rest,
    source: &Address,
    protocol: u8,
    packet: &mut Packet,
) -> Result<(), Reason> {
    if !source.same(&packet.destination) {
        return Err(Reason::UntrackedError);
    }
    packet.kind = Kind::Error;
    packet.flow_protocol = protocol;
    match protocol {
        6 | 17 => {
            let h = rest.load::<4, B>(bytes)?;
            packet.destination_port = be16(h[0], h[1]);
            packet.source_port = be16(h[2], h[3]);
        }
        1 | 58 => {
            let h = rest.load::<8, B>(bytes)?;
            // Never an error about an error.
            if !matches!(h[0], 0 | 8 | 128 | 129) {
                return Err(Reason::UntrackedError);
            }
            packet.source_port = be16(h[4], h[5]);
            packet.destination_port = packet.source_port;
        }
        _ => {}
    }
    Ok(())
}
