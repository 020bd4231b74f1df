//! From addresses to names.

use selvedge_dns::{
    Asker, ZoneIndex,
    proto::{op::ResponseCode, rr::RecordType},
};

use crate::fixture::{answers, ask, ask_as, name, reverse_of, service, v4, v6, zone};

#[test]
fn addresses_have_the_names_of_their_endpoints_and_nodes() {
    for (reverse, expected) in [
        (reverse_of(v4(1).unwrap()), "PTR web-1.ep.fabric.internal."),
        (reverse_of(v6(1).unwrap()), "PTR web-1.ep.fabric.internal."),
        (reverse_of(v4(102).unwrap()), "PTR far.node.fabric.internal."),
        (reverse_of(v4(6).unwrap()), "PTR client-1.ep.fabric.internal."),
    ] {
        let reply = ask(&reverse, RecordType::PTR);
        assert_eq!(answers(&reply), [expected], "{reverse}");
        assert!(reply.metadata.authoritative);
    }
}

#[test]
fn our_ranges_are_answered_here_and_nothing_else_is() {
    let index = ZoneIndex::build(&zone());
    let front = Asker::Service(service("front@shop"));
    for (of, rcode, apex) in [
        ("9.9.64.100.in-addr.arpa.", ResponseCode::NXDomain, "64.100.in-addr.arpa."),
        ("9.9.127.100.in-addr.arpa.", ResponseCode::NXDomain, "127.100.in-addr.arpa."),
        ("999.64.100.in-addr.arpa.", ResponseCode::NXDomain, "64.100.in-addr.arpa."),
        ("x.1.1.64.100.in-addr.arpa.", ResponseCode::NXDomain, "64.100.in-addr.arpa."),
        ("1.64.100.in-addr.arpa.", ResponseCode::NoError, "64.100.in-addr.arpa."),
        ("64.100.in-addr.arpa.", ResponseCode::NoError, "64.100.in-addr.arpa."),
        ("0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.", ResponseCode::NoError, "a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa."),
    ] {
        assert!(index.owns(&name(of)), "{of}");
        for asker in [&Asker::All, &front, &Asker::Nothing] {
            let reply = ask_as(asker, of, RecordType::PTR);
            assert_eq!(reply.metadata.response_code, rcode, "{of}");
            assert_eq!(reply.authorities[0].name, name(apex), "{of}");
            assert_eq!(reply.authorities[0].record_type(), RecordType::SOA, "{of}");
        }
    }
    for of in [
        "1.128.100.in-addr.arpa.",
        "100.in-addr.arpa.",
        "1.0.0.10.in-addr.arpa.",
        "in-addr.arpa.",
        "d.f.ip6.arpa.",
    ] {
        assert!(!index.owns(&name(of)), "{of}");
        assert_eq!(ask(of, RecordType::PTR).metadata.response_code, ResponseCode::Refused, "{of}");
    }
}

#[test]
fn a_reverse_zone_has_an_apex_of_its_own() {
    let soa = ask("64.100.in-addr.arpa.", RecordType::SOA);
    assert_eq!(answers(&soa).len(), 1);
    assert_eq!(soa.answers[0].name, name("64.100.in-addr.arpa."));
    let ns = ask("64.100.in-addr.arpa.", RecordType::NS);
    assert_eq!(answers(&ns), ["NS near.node.fabric.internal."]);
}
