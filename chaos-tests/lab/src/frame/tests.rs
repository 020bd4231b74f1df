//! Packets for the tests of this crate, with right checksums, and what readdressing makes of them.

use proptest::prelude::*;

use super::*;

/// A packet with right checksums.
pub(crate) fn packet(protocol: u8, from: ([u8; 4], u16), to: ([u8; 4], u16), data: &[u8]) -> Vec<u8> {
    let mut body = match protocol {
        TCP => [&from.1.to_be_bytes()[..], &to.1.to_be_bytes(), &[0; 8], &[0x50, 0x10], &[0; 6]].concat(),
        UDP => {
            let length = (8 + data.len()) as u16;
            [&from.1.to_be_bytes()[..], &to.1.to_be_bytes(), &length.to_be_bytes(), &[0; 2]].concat()
        }
        // An echo request; its identifier is the source's port.
        _ => [&[ECHO_REQUEST, 0, 0, 0][..], &from.1.to_be_bytes(), &[0, 1]].concat(),
    };
    body.extend(data);
    whole(protocol, from.0, to.0, body)
}

/// An ICMP error about `quoted`: a port is closed.
pub(crate) fn error(from: [u8; 4], to: [u8; 4], quoted: &[u8]) -> Vec<u8> {
    let quoted = &quoted[..quoted.len().min(28)];
    whole(ICMP, from, to, [&[3, 3, 0, 0, 0, 0, 0, 0], quoted].concat())
}

fn whole(protocol: u8, from: [u8; 4], to: [u8; 4], body: Vec<u8>) -> Vec<u8> {
    let length = (20 + body.len()) as u16;
    let mut packet = vec![0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, protocol, 0, 0];
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend(from);
    packet.extend(to);
    let sum = !checksum(&packet);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend(body);
    let at = 20
        + match protocol {
            TCP => 16,
            UDP => 6,
            _ => 2,
        };
    let sum = !transport_sum(&packet);
    packet[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// The sum over a transport's header and data, and the pseudo header where it has one; all ones with a
/// right checksum.
fn transport_sum(packet: &[u8]) -> u16 {
    let body = &packet[20..];
    let mut covered = body.to_vec();
    if packet[9] != ICMP {
        if covered.len() % 2 == 1 {
            covered.push(0);
        }
        covered.extend(&packet[12..20]);
        covered.extend([0, packet[9]]);
        covered.extend((body.len() as u16).to_be_bytes());
    }
    checksum(&covered)
}

/// Whether both checksums are right.
pub(crate) fn is_sound(packet: &[u8]) -> bool {
    checksum(&packet[..20]) == 0xffff && transport_sum(packet) == 0xffff
}

/// A frame around it.
pub(crate) fn framed(to: Mac, packet: &[u8]) -> Vec<u8> {
    [&to[..], &[2, 0, 0, 0, 0, 1], &IPV4.to_be_bytes(), packet].concat()
}

#[test]
fn an_echo_has_its_identifier_for_ports_and_an_error_quotes() {
    let echo = packet(ICMP, ([10, 0, 0, 11], 77), ([198, 18, 2, 11], 0), b"");
    assert_eq!(Ipv4::parse(&echo).and_then(|ip| ip.ports), Some((77, 77)));
    let error = error([198, 18, 2, 11], [10, 0, 0, 11], &echo);
    let parsed = Ipv4::parse(&error).expect("a packet");
    assert!(parsed.is_error() && parsed.ports.is_none());
    let quoted = Ipv4::parse(&error[parsed.quoted.expect("one")..]).expect("a packet");
    assert_eq!(quoted.ports, Some((77, 77)));
}

#[test]
fn a_datagram_without_a_checksum_gets_none() {
    let mut packet = packet(UDP, ([10, 0, 0, 11], 7), ([10, 0, 0, 12], 9), b"data");
    packet[26..28].fill(0);
    readdress(&mut packet, End::Source, Ipv4Addr::new(198, 18, 1, 11), Some(8));
    assert_eq!(packet[26..28], [0, 0]);
    assert_eq!(checksum(&packet[..20]), 0xffff);
}

#[test]
fn a_later_fragment_has_no_ports() {
    let mut packet = packet(UDP, ([10, 0, 0, 11], 7), ([10, 0, 0, 12], 9), b"data");
    packet[6..8].copy_from_slice(&[0x00, 0x10]);
    let before = packet[20..].to_vec();
    assert_eq!(Ipv4::parse(&packet).map(|ip| (ip.is_later_fragment, ip.ports)), Some((true, None)));
    readdress(&mut packet, End::Source, Ipv4Addr::new(198, 18, 1, 11), None);
    assert_eq!(packet[20..], before);
}

proptest! {
    #[test]
    fn readdressed_packets_are_sound_and_readdressing_back_gives_the_same(
        protocol in prop_oneof![Just(TCP), Just(UDP), Just(ICMP)],
        from: ([u8; 4], u16), to: ([u8; 4], u16), other: [u8; 4], port: Option<u16>,
        data in proptest::collection::vec(any::<u8>(), 0..100),
        end in prop_oneof![Just(End::Source), Just(End::Destination)],
    ) {
        let before = packet(protocol, from, to, &data);
        prop_assert!(is_sound(&before));
        let mut packet = before.clone();
        readdress(&mut packet, end, other.into(), port);
        prop_assert!(is_sound(&packet));
        let old = Ipv4::parse(&before).expect("a packet");
        let (address, old_port) = match end {
            End::Source => (old.source, old.ports.map(|p| p.0)),
            End::Destination => (old.destination, old.ports.map(|p| p.1)),
        };
        readdress(&mut packet, end, address, old_port);
        let again = Ipv4::parse(&packet).expect("a packet");
        prop_assert_eq!(again, old);
        prop_assert!(is_sound(&packet));
    }

    #[test]
    fn no_bytes_upset_it(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), other: [u8; 4], port: u16) {
        let _ = Ipv4::parse(&bytes);
        readdress(&mut bytes, End::Source, other.into(), Some(port));
        readdress_quoted(&mut bytes, End::Destination, other.into(), Some(port));
    }

    #[test]
    fn no_packet_that_was_bent_upsets_it(
        at in proptest::collection::vec((0..80_usize, any::<u8>()), 1..8), cut in 0..80_usize, port: u16,
    ) {
        let quoted = packet(UDP, ([10, 0, 0, 11], 7), ([10, 0, 0, 12], 9), b"some data");
        let mut bytes = error([10, 0, 0, 12], [10, 0, 0, 11], &quoted);
        for (at, byte) in at {
            let length = bytes.len();
            bytes[at % length] = byte;
        }
        bytes.truncate(cut);
        readdress_quoted(&mut bytes, End::Source, [198, 18, 1, 1].into(), Some(port));
        readdress(&mut bytes, End::Destination, [198, 18, 1, 1].into(), Some(port));
    }
}
