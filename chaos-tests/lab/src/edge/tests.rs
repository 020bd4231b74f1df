use super::*;
use crate::frame::tests::{error, is_sound, packet};

const NAT: [u8; 4] = [198, 18, 1, 1];
const PUBLIC: [u8; 4] = [198, 18, 1, 11];
const PROCESSOR: [u8; 4] = [10, 0, 0, 11];
const WORKLOAD: [u8; 4] = [10, 0, 0, 12];
const OTHER: [u8; 4] = [10, 0, 0, 13];
const FAR: [u8; 4] = [198, 18, 2, 11];
const START: Duration = Duration::ZERO;

fn edge() -> Edge {
    let mut edge = Edge::new(NAT.into());
    edge.publish(PROCESSOR.into(), PUBLIC.into());
    edge
}

/// Source and destination of a packet, with ports.
fn ends(packet: &[u8]) -> (([u8; 4], u16), ([u8; 4], u16)) {
    let ip = Ipv4::parse(packet).expect("a packet");
    let ports = ip.ports.expect("ports");
    ((ip.source.octets(), ports.0), (ip.destination.octets(), ports.1))
}

#[test]
fn a_public_host_is_translated_one_to_one() {
    for protocol in [TCP, UDP, ICMP] {
        let mut out = packet(protocol, (PROCESSOR, 7401), (FAR, 7401), b"data");
        edge().leave(START, &mut out).expect("it may");
        assert_eq!(ends(&out), ((PUBLIC, 7401), (FAR, 7401)));
        let mut back = packet(protocol, (FAR, 7401), (PUBLIC, 7401), b"data");
        edge().enter(START, &mut back).expect("it may");
        assert_eq!(ends(&back), ((FAR, 7401), (PROCESSOR, 7401)));
        assert!(is_sound(&out) && is_sound(&back));
    }
}

#[test]
fn a_masqueraded_flow_is_answered_from_where_it_went_and_nowhere_else() {
    for protocol in [TCP, UDP, ICMP] {
        let mut edge = edge();
        let mut out = packet(protocol, (WORKLOAD, 5000), (FAR, 7401), b"data");
        edge.leave(START, &mut out).expect("it may");
        assert_eq!(ends(&out).0, (NAT, 5000), "its own port is free");
        // Another host's flow from the same port gets another one.
        let mut second = packet(protocol, (OTHER, 5000), (FAR, 7401), b"data");
        edge.leave(START, &mut second).expect("it may");
        let port = ends(&second).0.1;
        assert_ne!(port, 5000);
        assert!(is_sound(&out) && is_sound(&second));

        for (port, whose) in [(5000, WORKLOAD), (port, OTHER)] {
            let from = if protocol == ICMP { port } else { 7401 };
            let mut back = packet(protocol, (FAR, from), (NAT, port), b"data");
            edge.enter(START, &mut back).expect("it is an answer");
            assert_eq!(ends(&back).1, (whose, 5000));
            assert!(is_sound(&back));
        }
        let mut stranger = packet(protocol, ([198, 18, 3, 11], 7401), (NAT, 5000), b"data");
        assert_eq!(edge.enter(START, &mut stranger), Err(Barred::Uncalled));
    }
    let mut other_port = packet(UDP, (FAR, 7400), (NAT, 5000), b"data");
    let mut edge = edge();
    edge.leave(START, &mut packet(UDP, (WORKLOAD, 5000), (FAR, 7401), b"data")).expect("it may");
    assert_eq!(edge.enter(START, &mut other_port), Err(Barred::Uncalled));
}

#[test]
fn nothing_comes_in_uncalled() {
    let mut call = packet(UDP, (FAR, 7401), (NAT, 7401), b"data");
    assert_eq!(edge().enter(START, &mut call), Err(Barred::Uncalled));
    let mut nobody = packet(UDP, (FAR, 7401), ([198, 18, 1, 99], 7401), b"data");
    assert_eq!(edge().enter(START, &mut nobody), Err(Barred::Uncalled));
    // Not even to an address inside.
    let mut inside = packet(UDP, (FAR, 7401), (PROCESSOR, 7401), b"data");
    assert_eq!(edge().enter(START, &mut inside), Err(Barred::Uncalled));
    assert_eq!(edge().leave(START, &mut [0; 40]), Err(Barred::Unsuitable));
    assert_eq!(edge().enter(START, &mut [0x45]), Err(Barred::Unsuitable));
}

#[test]
fn a_silent_flow_is_forgotten_and_room_is_limited() {
    let mut edge = edge();
    let mut send = |now, port: u16| {
        let mut out = packet(UDP, (WORKLOAD, port), (FAR, 7401), b"data");
        edge.leave(now, &mut out)
    };
    for port in 0..MAX_FLOWS as u16 {
        assert_eq!(send(START, port), Ok(()));
    }
    assert_eq!(send(START, 60_000), Err(Barred::Full));
    assert_eq!(send(FLOW_IDLE - Duration::from_secs(1), 0), Ok(()));
    assert_eq!(send(FLOW_IDLE, 60_000), Ok(()));
    let mut answer = |now, port| edge.enter(now, &mut packet(UDP, (FAR, 7401), (NAT, port), b"data"));
    assert_eq!(answer(FLOW_IDLE, 0), Ok(()));
    assert_eq!(answer(FLOW_IDLE, 1), Err(Barred::Uncalled));
    assert_eq!(answer(FLOW_IDLE * 3, 0), Err(Barred::Uncalled));
    assert_eq!((edge.flows.len(), edge.back.len()), (2, 2));
}

#[test]
fn errors_are_about_what_the_receiver_sent() {
    let mut edge = edge();
    for (inside, seen) in [(PROCESSOR, PUBLIC), (WORKLOAD, NAT)] {
        // Out: a packet goes, its error comes back.
        let sent = packet(UDP, (inside, 5000), (FAR, 7401), b"data");
        let mut out = sent.clone();
        edge.leave(START, &mut out).expect("it may");
        let mut told = error(FAR, seen, &out);
        edge.enter(START, &mut told).expect("it is about a flow");
        let parsed = Ipv4::parse(&told).expect("a packet");
        assert_eq!(parsed.destination.octets(), inside);
        assert_eq!(ends(&told[parsed.quoted.expect("one")..]), ((inside, 5000), (FAR, 7401)));
        assert!(is_sound(&told));

        // In: the far end's packet arrives, and this side has an error to report about it.
        let mut arrived = packet(UDP, (FAR, 7401), (seen, 5000), b"data");
        edge.enter(START, &mut arrived).expect("it is an answer");
        let mut told = error(inside, FAR, &arrived);
        edge.leave(START, &mut told).expect("it is about a flow");
        let parsed = Ipv4::parse(&told).expect("a packet");
        assert_eq!(parsed.source.octets(), seen);
        assert_eq!(ends(&told[parsed.quoted.expect("one")..]), ((FAR, 7401), (seen, 5000)));
        assert!(is_sound(&told));
    }
    let stray = packet(UDP, (NAT, 6000), (FAR, 7401), b"data");
    assert_eq!(edge.enter(START, &mut error(FAR, NAT, &stray)), Err(Barred::Uncalled));
    let stray = packet(UDP, (FAR, 7401), (WORKLOAD, 6000), b"data");
    assert_eq!(edge.leave(START, &mut error(WORKLOAD, FAR, &stray)), Err(Barred::Uncalled));
}
