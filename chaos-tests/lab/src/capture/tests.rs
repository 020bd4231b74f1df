use super::*;
use crate::frame::{
    TCP, UDP,
    tests::{error, framed, packet},
};

const A: [u8; 4] = [198, 18, 1, 11];
const B: [u8; 4] = [198, 18, 2, 11];
const GATEWAY: frame::Mac = [2, 0, 0, 0, 0, 2];
const CLIENT: u16 = 40_000;

fn kinds(frames: &[Vec<u8>]) -> Vec<Kind> {
    let mut capture = Capture::new(Ports::default());
    for frame in frames {
        capture.record(Duration::ZERO, Site(0), frame);
    }
    capture.frames().iter().map(|frame| frame.kind).collect()
}

fn udp(from: u16, to: u16, data: &[u8]) -> Vec<u8> {
    framed(GATEWAY, &packet(UDP, (A, from), (B, to), data))
}

fn initial() -> Vec<u8> {
    let mut data = vec![0; 1_200];
    data[..5].copy_from_slice(&[0xc3, 0, 0, 0, 1]);
    data
}

/// A segment from the client, at this place of what it says.
fn tcp(at: u32, flags: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = framed(GATEWAY, &packet(TCP, (A, CLIENT), (B, 7443), data));
    frame[38..42].copy_from_slice(&at.to_be_bytes());
    frame[47] = flags;
    frame
}

#[test]
fn quic_is_known_by_its_form_on_its_ports() {
    let short = |first: u8| {
        let mut data = vec![0x55; 40];
        data[0] = first;
        data
    };
    let frames = [
        udp(CLIENT, 7401, &short(0x12)),
        udp(CLIENT, 7401, &initial()[..600]),
        udp(CLIENT, 7401, &short(0x52)),
        udp(CLIENT, 7401, &initial()),
        udp(CLIENT, 7401, &initial()[..600]),
        udp(CLIENT, 7401, &short(0x12)),
        udp(CLIENT, 7402, &initial()),
        udp(7400, CLIENT, &initial()),
        udp(CLIENT, 7400, b"GET / HTTP/1.1"),
        udp(CLIENT, 7400, b""),
    ];
    use Kind::{Foreign, Quic};
    let expected = [Foreign, Foreign, Quic, Quic, Quic, Quic, Foreign, Quic, Foreign, Foreign];
    assert_eq!(kinds(&frames), expected);
}

#[test]
fn tls_is_followed_record_by_record() {
    let record = |bytes: usize| {
        let mut record = vec![0xaa; 5 + bytes];
        record[..5].copy_from_slice(&[23, 3, 3, (bytes >> 8) as u8, bytes as u8]);
        record
    };
    let two = [record(300), record(20)].concat();
    let frames = [
        tcp(99, 0x02, b""),
        tcp(100, 0x10, b""),
        tcp(100, 0x18, &two[..303]),
        // Sent again, and more.
        tcp(100, 0x18, &two[..303]),
        tcp(350, 0x18, &two[250..]),
        tcp(430, 0x11, b""),
        tcp(430, 0x18, b"GET / HTTP/1.1"),
    ];
    let mut expected = [Kind::ApiTls; 7];
    expected[6] = Kind::Foreign;
    assert_eq!(kinds(&frames), expected);
    // Where something is missing in between, nothing can be said.
    assert_eq!(kinds(&[tcp(99, 2, b""), tcp(150, 0x18, &record(10))]), [Kind::ApiTls, Kind::Foreign]);
    // A connection that began before the capture.
    assert_eq!(kinds(&[tcp(7, 0x18, &record(10)), tcp(22, 0x18, &record(5))]), [Kind::ApiTls; 2]);
    assert_eq!(kinds(&[tcp(7, 0x18, b"clear")]), [Kind::Foreign]);
}

#[test]
fn neighbours_are_found_by_arp_and_discovery_and_the_rest_is_foreign() {
    let mut arp = framed([0xff; 6], &[0; 28]);
    arp[12..14].copy_from_slice(&frame::ARP.to_be_bytes());
    let ipv6 = |hops: u8, kind: u8| {
        let mut packet = vec![0; 64];
        packet[0] = 0x60;
        packet[5] = 24;
        packet[6..8].copy_from_slice(&[58, hops]);
        packet[40] = kind;
        let mut frame = framed([0x33; 6], &packet);
        frame[12..14].copy_from_slice(&frame::IPV6.to_be_bytes());
        frame
    };
    let refused = |port| framed(GATEWAY, &error(B, A, &packet(UDP, (A, 1), (B, port), b"")));
    let echo = framed(GATEWAY, &packet(1, (A, 1), (B, 1), b""));
    let refusals = [refused(7401), refused(53)];
    let frames = [arp, ipv6(255, 135), ipv6(64, 135), ipv6(255, 128), echo, vec![], vec![0; 14]];
    use Kind::{Arp, Error, Foreign, NeighbourDiscovery};
    let expected = [Arp, NeighbourDiscovery, Foreign, Foreign, Foreign, Foreign, Foreign];
    assert_eq!(kinds(&frames), expected);
    assert_eq!(kinds(&refusals), [Error, Foreign]);
}

#[test]
fn what_there_is_no_room_for_is_counted() {
    let mut capture = Capture::new(Ports::default());
    let frame = udp(CLIENT, 7401, &initial());
    capture.kept_bytes = MAX_KEPT_BYTES - frame.len();
    capture.record(Duration::ZERO, Site(0), &frame);
    capture.record(Duration::ZERO, Site(0), &frame);
    assert_eq!((capture.frames().len(), capture.missed()), (1, 1));
    assert_eq!(capture.counts()[&Kind::Quic], 2);
    assert!(capture.find(&[0xc3, 0, 0, 0, 1]).is_some() && capture.find(b"").is_none());
}
