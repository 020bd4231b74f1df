//! More than fits.

use selvedge_dns::{
    Asker, ZoneIndex, answer, encode,
    proto::{op::Message, rr::RecordType},
    udp_limit,
};

use crate::fixture::{answers, crowd, query, with_edns};

const CROWD: u8 = 60;

fn whole(query: &Message) -> Message {
    answer(&ZoneIndex::build(&crowd(CROWD)), query, &Asker::All)
}

fn decoded(reply: &Message, limit: u16) -> Message {
    let bytes = encode(reply, limit).unwrap();
    assert!(bytes.len() <= usize::from(limit), "{} > {limit}", bytes.len());
    Message::from_vec(&bytes).unwrap()
}

#[test]
fn sixty_endpoints_are_cut_over_udp_and_whole_over_tcp() {
    for (payload, least) in [(None, 28), (Some(512), 27), (Some(900), 50)] {
        let plain = query("many.shop", RecordType::A);
        let query = payload.map_or(plain.clone(), |size| with_edns(plain, size));
        let whole = whole(&query);
        let cut = decoded(&whole, udp_limit(&query));
        assert!(cut.metadata.truncation, "{payload:?}");
        assert!(cut.answers.len() >= least, "{payload:?}: {} of {CROWD}", cut.answers.len());
        assert_eq!(answers(&cut), answers(&whole)[..cut.answers.len()], "the nearest are kept");
        assert_eq!(cut.edns.is_some(), payload.is_some(), "{payload:?}");

        let over_tcp = decoded(&whole, u16::MAX);
        assert!(!over_tcp.metadata.truncation);
        assert_eq!(over_tcp.answers.len(), usize::from(CROWD));
    }
}

#[test]
fn srv_keeps_whole_records_when_cut() {
    let query = with_edns(query("many.shop", RecordType::SRV), 1232);
    let cut = decoded(&whole(&query), udp_limit(&query));
    assert!(cut.metadata.truncation && cut.answers.len() > 10);
    assert!(cut.additionals.is_empty());
    assert_eq!(decoded(&whole(&query), u16::MAX).additionals.len(), usize::from(CROWD));
}

#[test]
fn additional_records_give_way_without_truncation() {
    let query = query("many.shop", RecordType::SRV);
    let whole = whole(&query);
    let mut bare = whole.clone();
    bare.additionals.clear();
    let answers_only = u16::try_from(encode(&bare, u16::MAX).unwrap().len()).unwrap();
    let reply = decoded(&whole, answers_only + 20);
    assert!(!reply.metadata.truncation, "RFC 2181, section 9");
    assert_eq!(reply.answers.len(), usize::from(CROWD));
    assert!(reply.additionals.len() < usize::from(CROWD));
}
