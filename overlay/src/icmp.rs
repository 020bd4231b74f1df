//! "Packet too big", told to an application whose packet does not fit (RFC 1191, RFC 8201).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::packet::{ICMP, ICMPV6};

/// Least MTU of an IPv6 path; below it nothing is ever announced.
const MIN_IPV6_MTU: usize = 1_280;
/// Least MTU of an IPv4 path (RFC 791).
const MIN_IPV4_MTU: usize = 68;
/// How much of an IPv4 packet is quoted (RFC 1812, section 4.3.2.3).
const MAX_QUOTE_IPV4: usize = 576 - 28;
/// How much of an IPv6 packet is quoted (RFC 4443, section 3.2).
const MAX_QUOTE_IPV6: usize = MIN_IPV6_MTU - 48;

/// The error to an application that sent `packet`, from the address `from` of this node; `None` for an
/// IPv4 packet that may be fragmented, or when `from` is of the other family.
pub(crate) fn too_big(packet: &[u8], from: IpAddr, mtu: usize) -> Option<Vec<u8>> {
    match (packet.first()? >> 4, from) {
        (4, IpAddr::V4(from)) => ipv4(packet, from, mtu.max(MIN_IPV4_MTU)),
        (6, IpAddr::V6(from)) => ipv6(packet, from, mtu.max(MIN_IPV6_MTU)),
        _ => None,
    }
}

fn ipv4(packet: &[u8], from: Ipv4Addr, mtu: usize) -> Option<Vec<u8>> {
    let may_fragment = packet.get(6)? & 0x40 == 0;
    if may_fragment {
        return None;
    }
    let to = packet.get(12..16)?;
    let quote = &packet[..packet.len().min(MAX_QUOTE_IPV4)];
    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    let mut error = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, ICMP, 0, 0];
    let total = u16::try_from(28 + quote.len()).ok()?;
    error[2..4].copy_from_slice(&total.to_be_bytes());
    error.extend_from_slice(&from.octets());
    error.extend_from_slice(to);
    let sum = checksum(&error, 0);
    error[10..12].copy_from_slice(&sum.to_be_bytes());
    // Destination unreachable, fragmentation needed.
    error.extend_from_slice(&[3, 4, 0, 0, 0, 0]);
    error.extend_from_slice(&mtu.to_be_bytes());
    error.extend_from_slice(quote);
    let sum = checksum(&error[20..], 0);
    error[22..24].copy_from_slice(&sum.to_be_bytes());
    Some(error)
}

fn ipv6(packet: &[u8], from: Ipv6Addr, mtu: usize) -> Option<Vec<u8>> {
    let to = packet.get(8..24)?;
    let quote = &packet[..packet.len().min(MAX_QUOTE_IPV6)];
    let length = u16::try_from(8 + quote.len()).ok()?;
    let mut error = vec![0x60, 0, 0, 0, 0, 0, ICMPV6, 64];
    error[4..6].copy_from_slice(&length.to_be_bytes());
    error.extend_from_slice(&from.octets());
    error.extend_from_slice(to);
    // Packet too big.
    error.extend_from_slice(&[2, 0, 0, 0]);
    error.extend_from_slice(&u32::try_from(mtu).ok()?.to_be_bytes());
    error.extend_from_slice(quote);
    // The pseudo-header: both addresses, length, protocol (RFC 8200, section 8.1).
    let pseudo = sum(&error[8..40]) + u32::from(length) + u32::from(ICMPV6);
    let sum = checksum(&error[40..], pseudo);
    error[42..44].copy_from_slice(&sum.to_be_bytes());
    Some(error)
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8], initial: u32) -> u16 {
    let mut total = sum(bytes) + initial;
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// At most 64 KiB, so the sum fits.
fn sum(bytes: &[u8]) -> u32 {
    let pair = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    bytes.chunks(2).map(pair).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        packet::Packet,
        testing::{udp4, udp6},
    };

    #[test]
    fn an_ipv4_packet_that_may_not_be_fragmented_is_answered() {
        let mut packet = udp4([10, 0, 0, 1], [10, 0, 0, 2], 1, 2, &[0; 1_400]);
        let from = IpAddr::from([10, 9, 9, 9]);
        assert_eq!(too_big(&packet, from, 1_280), None);
        packet[6] |= 0x40;
        let error = too_big(&packet, from, 1_280).unwrap();
        assert_eq!((checksum(&error[..20], 0), checksum(&error[20..], 0)), (0, 0));
        assert_eq!((&error[20..22], &error[26..28]), (&[3, 4][..], &1_280_u16.to_be_bytes()[..]));
        let read = Packet::parse(&error).unwrap();
        assert!(read.error && read.destination == IpAddr::from([10, 0, 0, 1]) && read.source_port == 2);
    }

    #[test]
    fn an_ipv6_packet_is_answered() {
        let packet = udp6(1, 2, 1, 2, &[0; 1_400]);
        let error = too_big(&packet, IpAddr::from(Ipv6Addr::from(9)), 100).unwrap();
        assert!(error.len() <= MIN_IPV6_MTU);
        assert_eq!(error[44..48], 1_280_u32.to_be_bytes());
        let pseudo = sum(&error[8..40]) + (error.len() - 40) as u32 + 58;
        assert_eq!(checksum(&error[40..], pseudo), 0);
        assert!(Packet::parse(&error).unwrap().error);
        assert_eq!(too_big(&packet, IpAddr::from([10, 9, 9, 9]), 1_280), None);
    }
}
