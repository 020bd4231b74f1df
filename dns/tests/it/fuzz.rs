//! Bytes from outside: nothing panics, nothing grows beyond its bound.
//!
//! `SELVEDGE_FUZZ_SECONDS` bounds each test, 2 by default.

use std::time::{Duration, Instant};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use selvedge_dns::{
    Asker, ZoneIndex, answer, encode,
    proto::{op::Message, rr::RecordType},
    udp_limit,
};

use crate::fixture::{crowd, query, service, with_edns};

fn budget() -> Duration {
    let seconds = std::env::var("SELVEDGE_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// Checks drawn values until the time is over, some at least; a failing one is shrunk and shown.
fn for_a_while<S: Strategy>(strategy: &S, check: impl Fn(S::Value)) {
    let end = Instant::now() + budget();
    loop {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        let round = runner.run(strategy, |value| {
            check(value);
            Ok(())
        });
        if let Err(failure) = round {
            panic!("{failure}");
        }
        if Instant::now() >= end {
            return;
        }
    }
}

/// What the server does with a packet, but for the socket.
fn serve(index: &ZoneIndex, packet: &[u8]) {
    let Ok(query) = Message::from_vec(packet) else { return };
    for asker in [Asker::All, Asker::Nothing, Asker::Service(service("front@shop"))] {
        let reply = answer(index, &query, &asker);
        for limit in [udp_limit(&query), u16::MAX] {
            match encode(&reply, limit) {
                Ok(bytes) => {
                    assert!(bytes.len() <= usize::from(limit));
                    let again = Message::from_vec(&bytes).expect("what we send can be read");
                    assert_eq!(again.metadata.id, query.metadata.id);
                }
                // Only a heap of questions, which the server does not even decode, is too large.
                Err(error) => assert!(query.queries.len() > 1, "{error}: {query:?}"),
            }
        }
    }
}

/// Some real queries, as bytes.
fn seeds() -> Vec<Vec<u8>> {
    let names =
        ["", "web.shop", "_web._tcp.shop", "many.shop", "web-1.ep", "1.1.64.100.in-addr.arpa.", "x.example."];
    let types = [RecordType::A, RecordType::SRV, RecordType::ANY, RecordType::PTR, RecordType::SOA];
    let plain = names.iter().flat_map(|name| types.map(|rtype| query(name, rtype)));
    plain.flat_map(|q| [q.clone(), with_edns(q, 1232)]).map(|q| q.to_vec().unwrap()).collect()
}

#[derive(Debug, Clone)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        6 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Mutation::Set(at, to)),
        1 => any::<prop::sample::Index>().prop_map(Mutation::Cut),
        2 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(at, what)| Mutation::Insert(at, what)),
    ]
}

fn mutate(packet: &mut Vec<u8>, mutation: Mutation) {
    if packet.is_empty() {
        return;
    }
    match mutation {
        Mutation::Set(at, to) => *at.get_mut(packet) = to,
        Mutation::Cut(at) => packet.truncate(at.index(packet.len())),
        Mutation::Insert(at, what) => {
            let at = at.index(packet.len());
            packet.splice(at..at, what);
        }
    }
}

#[test]
fn arbitrary_bytes_do_no_harm() {
    let index = ZoneIndex::build(&crowd(60));
    for_a_while(&prop::collection::vec(any::<u8>(), 0..600), |packet| serve(&index, &packet));
}

#[test]
fn mutated_queries_do_no_harm() {
    let index = ZoneIndex::build(&crowd(60));
    let strategy = (prop::sample::select(seeds()), prop::collection::vec(mutation(), 0..6));
    for_a_while(&strategy, |(mut packet, mutations)| {
        for mutation in mutations {
            mutate(&mut packet, mutation);
        }
        serve(&index, &packet);
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_under_a_rain_of_mutants_goes_on_answering() {
    let site = crate::client::start(|_| {}, crowd(60)).await;
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let strategy = (prop::sample::select(seeds()), prop::collection::vec(mutation(), 0..6));
    for_a_while(&strategy, |(mut packet, mutations)| {
        for mutation in mutations {
            mutate(&mut packet, mutation);
        }
        let _ = socket.send_to(&packet, site.address());
    });
    // The rain may still fill the socket's buffer; who asks again is answered.
    let good = query("web.shop", RecordType::A).to_vec().unwrap();
    for _ in 0..100 {
        if let Some(reply) = site.raw(&good).await {
            assert_eq!(reply.answers.len(), 2);
            return site.dns.shutdown().await;
        }
    }
    panic!("the server answers no more");
}
