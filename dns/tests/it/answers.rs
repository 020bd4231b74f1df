//! Each record type, and each way of not having one.

use selvedge_dns::{
    Asker, TTL_S, ZoneIndex, answer,
    proto::{
        op::{Message, MessageType, OpCode, ResponseCode},
        rr::{DNSClass, RecordType},
    },
};

use crate::fixture::{answers, ask, full, query, zone};

fn check(name: &str, rtype: RecordType, expected: &[&str]) {
    let reply = ask(name, rtype);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name} {rtype}");
    assert_eq!(answers(&reply), expected, "{name} {rtype}");
    assert!(reply.metadata.authoritative, "{name} {rtype}: AA");
    let records = reply.answers.iter().chain(&reply.authorities).chain(&reply.additionals);
    assert!(records.clone().all(|r| r.ttl <= TTL_S), "{name} {rtype}: TTL");
    assert!(reply.answers.iter().all(|r| r.name == full(name)), "{name} {rtype}: owner");
}

#[test]
fn records_exist_as_the_plan_orders_them() {
    use RecordType::{A, AAAA, ANY, NS, SOA, SRV, TXT};
    for (name, rtype, expected) in [
        // Nearest first; the failing web-3 is left out, while others are left.
        ("web.shop", A, &["A 100.64.1.1", "A 100.64.1.2"][..]),
        ("web.shop", AAAA, &["AAAA fd12:3456:789a:1::1"]),
        // The failing db-1 is all there is.
        ("db.shop", A, &["A 100.64.1.4"]),
        (
            "web.shop",
            SRV,
            &[
                "SRV 10 100 80 web-1.ep.fabric.internal.",
                "SRV 20 100 8080 web-2.ep.fabric.internal.",
                "SRV 20 100 80 web-2.ep.fabric.internal.",
            ],
        ),
        (
            "_web._tcp.shop",
            SRV,
            &["SRV 10 100 80 web-1.ep.fabric.internal.", "SRV 20 100 8080 web-2.ep.fabric.internal."],
        ),
        ("_web._udp.shop", SRV, &["SRV 20 100 80 web-2.ep.fabric.internal."]),
        ("web-1.ep", A, &["A 100.64.1.1"]),
        ("web-1.ep", AAAA, &["AAAA fd12:3456:789a:1::1"]),
        ("client-1.ep", A, &["A 100.64.1.6"]),
        ("far.node", A, &["A 100.64.1.102"]),
        ("web.shop", ANY, &["HINFO RFC8482 "]),
        ("", NS, &["NS near.node.fabric.internal."]),
        ("", SOA, &["SOA near.node.fabric.internal. hostmaster.fabric.internal. 7 1 1 1 1"]),
        (
            "mail.post",
            TXT,
            &["TXT endpoint=mail-1 service=server@shop node=apart zone=aws/east health=passing port=tcp/25"],
        ),
    ] {
        check(name, rtype, expected);
    }
}

#[test]
fn txt_tells_health_and_staleness_of_every_endpoint() {
    let told = answers(&ask("web.shop", RecordType::TXT));
    assert_eq!(told.len(), 3);
    assert!(told[0].contains("health=passing") && !told[0].contains("stale"), "{told:?}");
    assert!(told[1].contains("health=unknown") && told[1].contains("stale-since-ms=1700000000000"));
    assert!(told[2].contains("health=failing"), "failing endpoints are where people look: {told:?}");
    let endpoint = answers(&ask("web-1.ep", RecordType::TXT));
    assert!(endpoint[0].contains("node=near") && !endpoint[0].contains("port="), "{endpoint:?}");
}

#[test]
fn srv_and_ns_bring_the_addresses_of_their_targets() {
    for (name, rtype, expected) in [
        (
            "web.shop",
            RecordType::SRV,
            &["web-1.ep 100.64.1.1", "web-1.ep fd12:3456:789a:1::1", "web-2.ep 100.64.1.2"][..],
        ),
        ("_web._udp.shop", RecordType::SRV, &["web-2.ep 100.64.1.2"]),
        ("", RecordType::NS, &["near.node 100.64.1.101"]),
    ] {
        let reply = ask(name, rtype);
        let glue: Vec<_> = reply
            .additionals
            .iter()
            .map(|r| format!("{} {}", r.name.to_ascii().replace(".fabric.internal.", ""), r.data))
            .collect();
        assert_eq!(glue, expected, "{name} {rtype}");
    }
}

#[test]
fn absence_of_a_type_and_absence_of_a_name_are_told_apart() {
    use RecordType::{A, AAAA, ANY, DS, HTTPS, MX, SRV};
    let cases = [
        // Names without that type.
        ("web.shop", MX, ResponseCode::NoError),
        ("web.shop", HTTPS, ResponseCode::NoError),
        ("db.shop", AAAA, ResponseCode::NoError),
        ("idle.shop", A, ResponseCode::NoError),
        ("idle.shop", SRV, ResponseCode::NoError),
        ("_idle._tcp.shop", SRV, ResponseCode::NoError),
        ("_db._udp.shop", SRV, ResponseCode::NoError),
        ("", A, ResponseCode::NoError),
        ("", DS, ResponseCode::NoError),
        // Empty non-terminals (RFC 8020).
        ("shop", A, ResponseCode::NoError),
        ("shop", ANY, ResponseCode::NoError),
        ("_tcp.shop", SRV, ResponseCode::NoError),
        ("_udp.post", A, ResponseCode::NoError),
        ("node", A, ResponseCode::NoError),
        ("ep", A, ResponseCode::NoError),
        // Names that do not exist.
        ("nope.shop", A, ResponseCode::NXDomain),
        ("nope", A, ResponseCode::NXDomain),
        ("web.nope", ANY, ResponseCode::NXDomain),
        ("_nope._tcp.shop", SRV, ResponseCode::NXDomain),
        ("_web._sctp.shop", SRV, ResponseCode::NXDomain),
        ("x.web.shop", A, ResponseCode::NXDomain),
        ("nope.ep", A, ResponseCode::NXDomain),
        ("nope.node", A, ResponseCode::NXDomain),
    ];
    for (name, rtype, rcode) in cases {
        let reply = ask(name, rtype);
        assert_eq!(reply.metadata.response_code, rcode, "{name} {rtype}");
        assert!(reply.answers.is_empty() && reply.metadata.authoritative, "{name} {rtype}");
        let soa: Vec<_> =
            reply.authorities.iter().map(|r| (r.name.clone(), r.record_type(), r.ttl)).collect();
        assert_eq!(soa, [(full(""), RecordType::SOA, TTL_S)], "{name} {rtype}");
    }
}

#[test]
fn case_does_not_matter_and_comes_back_as_it_was_sent() {
    let reply = ask("wEb.SHOP", RecordType::A);
    assert_eq!(answers(&reply).len(), 2);
    let spelt = "wEb.SHOP.fabric.internal.";
    assert_eq!(reply.queries[0].name.to_ascii(), spelt);
    assert!(reply.answers.iter().all(|r| r.name.to_ascii() == spelt));
}

#[test]
fn the_header_follows_the_query() {
    let index = ZoneIndex::build(&zone());
    for recursion_desired in [false, true] {
        let mut query = query("web.shop", RecordType::A);
        query.metadata.recursion_desired = recursion_desired;
        query.metadata.checking_disabled = true;
        let reply = answer(&index, &query, &Asker::All);
        assert_eq!(reply.metadata.id, 4711);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        assert_eq!(reply.metadata.recursion_desired, recursion_desired);
        assert!(reply.metadata.checking_disabled && !reply.metadata.recursion_available);
    }
}

#[test]
fn what_is_no_plain_question_is_refused_with_the_right_code() {
    type Change = fn(&mut Message);
    let cases: [(&str, Change, ResponseCode); 9] = [
        ("class CH", |q| q.queries[0].query_class = DNSClass::CH, ResponseCode::Refused),
        ("class ANY", |q| q.queries[0].query_class = DNSClass::ANY, ResponseCode::Refused),
        ("NOTIFY", |q| q.metadata.op_code = OpCode::Notify, ResponseCode::NotImp),
        ("UPDATE", |q| q.metadata.op_code = OpCode::Update, ResponseCode::NotImp),
        ("two questions", |q| q.queries.push(q.queries[0].clone()), ResponseCode::FormErr),
        ("no question", |q| q.queries.clear(), ResponseCode::FormErr),
        ("AXFR", |q| q.queries[0].query_type = RecordType::AXFR, ResponseCode::Refused),
        ("type OPT", |q| q.queries[0].query_type = RecordType::OPT, ResponseCode::FormErr),
        ("foreign name", |q| q.queries[0].name = full("example.org."), ResponseCode::Refused),
    ];
    for (what, change, rcode) in cases {
        let mut query = query("web.shop", RecordType::A);
        change(&mut query);
        let reply = answer(&ZoneIndex::build(&zone()), &query, &Asker::All);
        assert_eq!(reply.metadata.response_code, rcode, "{what}");
        assert!(reply.answers.is_empty() && !reply.metadata.authoritative, "{what}");
    }
}

#[test]
fn a_zone_without_a_suffix_owns_nothing() {
    let index = ZoneIndex::build(&Default::default());
    let reply = answer(&index, &query("web.shop", RecordType::A), &Asker::All);
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert!(!index.owns(&full("web.shop")));
}

#[test]
fn a_node_without_a_name_or_address_still_has_soa_and_ns() {
    let mut unnamed = zone();
    unnamed.me = None;
    let reply = answer(&ZoneIndex::build(&unnamed), &query("", RecordType::NS), &Asker::All);
    assert_eq!(answers(&reply), ["NS fabric.internal."]);
    let mut homeless = zone();
    homeless.nodes.clear();
    let index = ZoneIndex::build(&homeless);
    let reply = answer(&index, &query("near.node", RecordType::A), &Asker::Nothing);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "the NS target exists");
}

#[test]
fn the_longest_names_are_answered_or_left_out_but_never_break_the_zone() {
    let long = "x".repeat(63);
    let mut zone = zone();
    let targets = zone.contracts.values().next().unwrap().clone();
    zone.contracts.insert(format!("{long}@{long}").parse().unwrap(), targets);
    let index = ZoneIndex::build(&zone);
    let reply = answer(&index, &query(&format!("{long}.{long}"), RecordType::A), &Asker::All);
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
    assert_eq!(answers(&reply).len(), 1);
}
