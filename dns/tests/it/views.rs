//! Who asks decides what exists.

use selvedge_dns::{
    Asker,
    proto::{
        op::{Message, ResponseCode},
        rr::RecordType,
    },
};

use crate::fixture::{answers, ask_as, reverse_of, service, v4};

const NAMES: [(&str, RecordType); 12] = [
    ("web.shop", RecordType::A),
    ("_web._tcp.shop", RecordType::SRV),
    ("web.shop", RecordType::TXT),
    ("web-1.ep", RecordType::A),
    ("far.node", RecordType::A),
    ("shop", RecordType::A),
    ("_tcp.shop", RecordType::SRV),
    ("idle.shop", RecordType::A),
    ("db.shop", RecordType::A),
    ("mail.post", RecordType::A),
    ("apart.node", RecordType::A),
    ("client-1.ep", RecordType::A),
];

/// Which of [`NAMES`] exist for the asker.
fn existing(asker: &Asker) -> Vec<&'static str> {
    let exists = |(name, rtype): &(&'static str, RecordType)| {
        let reply = ask_as(asker, name, *rtype);
        (reply.metadata.response_code == ResponseCode::NoError).then_some(*name)
    };
    NAMES.iter().filter_map(exists).collect()
}

#[test]
fn a_service_sees_what_it_reaches_and_what_serves_that() {
    let front = Asker::Service(service("front@shop"));
    let expected =
        ["web.shop", "_web._tcp.shop", "web.shop", "web-1.ep", "far.node", "shop", "_tcp.shop", "idle.shop"];
    assert_eq!(existing(&front), expected);
    assert_eq!(answers(&ask_as(&front, "web.shop", RecordType::A)).len(), 2);
}

#[test]
fn without_reach_no_service_exists() {
    for asker in
        [Asker::Nothing, Asker::Service(service("stray@post")), Asker::Service(service("unknown@shop"))]
    {
        assert_eq!(existing(&asker), Vec::<&str>::new(), "{asker:?}");
        for name in ["", "node", "ep", "near.node"] {
            let reply = ask_as(&asker, name, RecordType::A);
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{asker:?} {name}");
        }
    }
}

#[test]
fn an_operator_sees_everything() {
    assert_eq!(existing(&Asker::All).len(), NAMES.len());
}

#[test]
fn a_hidden_name_is_indistinguishable_from_one_that_never_was() {
    let front = Asker::Service(service("front@shop"));
    let faceless = |mut reply: Message| {
        reply.queries.clear();
        reply
    };
    for (hidden, absent) in [
        ("db.shop", "no.shop"),
        ("_db._tcp.shop", "_no._tcp.shop"),
        ("post", "no"),
        ("mail.post", "mail.no"),
        ("db-1.ep", "no-1.ep"),
        ("apart.node", "no.node"),
        (&reverse_of(v4(5).unwrap()), &reverse_of(v4(250).unwrap())),
    ] {
        for rtype in [RecordType::A, RecordType::SRV, RecordType::PTR, RecordType::ANY] {
            let of_hidden = faceless(ask_as(&front, hidden, rtype));
            assert_eq!(of_hidden.metadata.response_code, ResponseCode::NXDomain, "{hidden}");
            assert_eq!(of_hidden, faceless(ask_as(&front, absent, rtype)), "{hidden} {rtype}");
        }
    }
}
