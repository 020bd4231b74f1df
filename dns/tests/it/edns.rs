//! EDNS(0), RFC 6891.

use selvedge_dns::{
    Asker, MAX_UDP_PAYLOAD_BYTES, ZoneIndex, answer, encode,
    proto::{
        op::{Message, ResponseCode},
        rr::RecordType,
    },
    udp_limit,
};

use crate::fixture::{query, with_edns, zone};

/// Through the wire and back: the response code is split between header and OPT there.
fn round_trip(query: &Message) -> Message {
    let reply = answer(&ZoneIndex::build(&zone()), query, &Asker::All);
    Message::from_vec(&encode(&reply, udp_limit(query)).unwrap()).unwrap()
}

#[test]
fn edns_is_answered_with_edns_and_its_absence_with_none() {
    assert_eq!(round_trip(&query("web.shop", RecordType::A)).edns, None);
    let mut with = with_edns(query("web.shop", RecordType::A), 4096);
    with.edns.as_mut().unwrap().set_dnssec_ok(true);
    let edns = round_trip(&with).edns.unwrap();
    assert_eq!((edns.version(), edns.max_payload()), (0, MAX_UDP_PAYLOAD_BYTES));
    assert!(edns.flags().dnssec_ok);
}

#[test]
fn another_version_is_refused_with_the_one_we_speak() {
    let mut query = with_edns(query("web.shop", RecordType::A), 1232);
    query.edns.as_mut().unwrap().set_version(1);
    let reply = round_trip(&query);
    // 16 is BADVERS beside OPT and BADSIG beside TSIG; the codec knows only the latter when it reads.
    assert_eq!(u16::from(reply.metadata.response_code), u16::from(ResponseCode::BADVERS));
    assert_eq!(reply.edns.unwrap().version(), 0);
    assert!(reply.answers.is_empty());
}

#[test]
fn the_payload_size_is_honoured_between_512_and_1232() {
    let plain = query("web.shop", RecordType::A);
    assert_eq!(udp_limit(&plain), 512);
    for (advertised, limit) in [(0, 512), (512, 512), (1000, 1000), (1232, 1232), (65535, 1232)] {
        assert_eq!(udp_limit(&with_edns(plain.clone(), advertised)), limit, "{advertised}");
    }
}

#[test]
fn a_refusal_says_why_to_those_who_speak_edns() {
    let reply = round_trip(&with_edns(query("example.org.", RecordType::A), 1232));
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    let edns = format!("{:?}", reply.edns.unwrap());
    assert!(edns.contains("15"), "an extended error (RFC 8914): {edns}");
}
