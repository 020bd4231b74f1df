use super::*;
use crate::{
    Kind,
    frame::{
        ARP, UDP,
        tests::{framed, packet},
    },
};

const A: Site = Site(0);
const B: Site = Site(1);
const C: Site = Site(2);
const START: Duration = Duration::ZERO;
const INSIDE: [u8; 4] = [10, 0, 0, 11];

fn public(site: Site) -> [u8; 4] {
    [198, 18, site.0 + 1, 11]
}

/// Three clouds, each with one public host of the same address.
fn exchange() -> Exchange {
    let edges = [A, B, C].map(|site| Edge::new([198, 18, site.0 + 1, 1].into()));
    let mut exchange = Exchange::new(7, Conditions::IDEAL, edges.into()).expect("conditions");
    for site in [A, B, C] {
        exchange.publish(site, INSIDE.into(), public(site).into());
    }
    exchange
}

#[test]
fn a_packet_is_translated_at_both_edges_and_seen_in_between() {
    let mut exchange = exchange();
    exchange.watch(Ports::default());
    exchange.take(
        START,
        A,
        &framed(gateway_mac(C), &packet(UDP, (INSIDE, 7401), (public(C), 7401), b"data")),
    );
    let expected = framed(gateway_mac(C), &packet(UDP, (public(A), 7401), (INSIDE, 7401), b"data"));
    assert_eq!(exchange.give(START), Some((C, expected)));
    assert_eq!(exchange.give(START), None);
    let capture = exchange.captured().expect("it was watched");
    let crossed = framed(gateway_mac(C), &packet(UDP, (public(A), 7401), (public(C), 7401), b"data"));
    assert_eq!(capture.frames()[0].bytes, crossed);
}

#[test]
fn who_is_asked_for_is_heard_by_all_others() {
    let mut exchange = exchange();
    exchange.watch(Ports::default());
    let mut arp = framed([0xff; 6], &[0; 28]);
    arp[12..14].copy_from_slice(&ARP.to_be_bytes());
    exchange.take(START, B, &arp);
    let heard = [exchange.give(START), exchange.give(START), exchange.give(START)];
    assert_eq!(heard, [Some((A, arp.clone())), Some((C, arp)), None]);
    assert_eq!(exchange.captured().expect("it was watched").counts()[&Kind::Arp], 1);
}

#[test]
fn what_is_for_the_own_cloud_comes_back_in_order_and_unseen() {
    let mut exchange = exchange();
    exchange.publish(A, [10, 0, 0, 12].into(), [198, 18, 1, 12].into());
    exchange.watch(Ports::default());
    for data in [b"1", b"2"] {
        let packet = packet(UDP, (INSIDE, 7401), ([198, 18, 1, 12], 7401), data);
        exchange.take(START, A, &framed(HAIRPIN_MAC, &packet));
    }
    assert_eq!(exchange.next_due(), Some(START));
    for data in [b"1", b"2"] {
        let (to, frame) = exchange.give(START).expect("it comes back");
        assert_eq!((to, &frame[..6], &frame[6..12]), (A, &gateway_mac(A)[..], &HAIRPIN_MAC[..]));
        assert_eq!(frame[14..], packet(UDP, (public(A), 7401), ([10, 0, 0, 12], 7401), data));
    }
    assert_eq!(exchange.next_due(), None);
    assert_eq!(exchange.captured().expect("it was watched").frames().len(), 0);
}

#[test]
fn what_an_edge_refuses_is_counted_and_goes_nowhere() {
    let mut exchange = exchange();
    let nobody = packet(UDP, (INSIDE, 7401), ([198, 18, 3, 99], 7401), b"data");
    exchange.take(START, A, &framed(gateway_mac(C), &nobody));
    exchange.take(START, A, &framed(gateway_mac(C), &[0; 40]));
    exchange.take(START, A, &framed([2; 6], &nobody));
    exchange.take(START, A, &[1, 2, 3]);
    assert_eq!(exchange.give(START), None);
    assert_eq!(exchange.refused(), &[(Barred::Unsuitable, 1), (Barred::Uncalled, 1)].into());
}
