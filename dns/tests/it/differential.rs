//! The same zone in another implementation: hickory-server's in-memory authority is given the records
//! that the zone stands for, spelled out by hand, and both must answer alike. Where we differ on purpose
//! (ANY by RFC 8482, TXT, TTLs, reverse names) nothing is compared.

use std::{collections::BTreeSet, sync::Arc};

use hickory_server::{
    Server,
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use selvedge_dns::proto::{
    op::Message,
    rr::{
        RData, Record, RecordType,
        rdata::{A, AAAA, NS, SOA, SRV},
    },
};
use tokio::net::UdpSocket;

use crate::fixture::{SUFFIX, ask, full, name, query, v4, v6};

/// Every name of the fixture's zone that somebody might ask for, and some that nobody has.
const NAMES: [&str; 24] = [
    "",
    "web.shop",
    "db.shop",
    "idle.shop",
    "mail.post",
    "shop",
    "post",
    "nope",
    "nope.shop",
    "a.web.shop",
    "web.nope",
    "_web._tcp.shop",
    "_web._udp.shop",
    "_mail._tcp.post",
    "_tcp.shop",
    "_nope._tcp.shop",
    "web-1.ep",
    "web-2.ep",
    "client-1.ep",
    "nope.ep",
    "ep",
    "near.node",
    "nope.node",
    "node",
];

const TYPES: [RecordType; 6] =
    [RecordType::A, RecordType::AAAA, RecordType::SRV, RecordType::NS, RecordType::MX, RecordType::CNAME];

fn a(of: &str, last: u8) -> (String, RData) {
    (of.to_owned(), RData::A(A(v4(last).unwrap())))
}

fn aaaa(of: &str, last: u16) -> (String, RData) {
    (of.to_owned(), RData::AAAA(AAAA(v6(last).unwrap())))
}

fn srv(of: &str, priority: u16, port: u16, endpoint: &str) -> (String, RData) {
    (of.to_owned(), RData::SRV(SRV::new(priority, 100, port, full(&format!("{endpoint}.ep")))))
}

/// The fixture's zone as a zone file would have it: healthy endpoints only, failing ones where there is
/// no other.
fn records() -> Vec<(String, RData)> {
    let mut records = vec![
        a("web.shop", 1),
        a("web.shop", 2),
        aaaa("web.shop", 1),
        a("db.shop", 4),
        a("mail.post", 5),
        srv("web.shop", 10, 80, "web-1"),
        srv("web.shop", 20, 8080, "web-2"),
        srv("web.shop", 20, 80, "web-2"),
        srv("_web._tcp.shop", 10, 80, "web-1"),
        srv("_web._tcp.shop", 20, 8080, "web-2"),
        srv("_web._udp.shop", 20, 80, "web-2"),
        srv("db.shop", 10, 5432, "db-1"),
        srv("_db._tcp.shop", 10, 5432, "db-1"),
        srv("mail.post", 10, 25, "mail-1"),
        srv("_mail._tcp.post", 10, 25, "mail-1"),
        aaaa("web-1.ep", 1),
        a("near.node", 101),
        a("far.node", 102),
        a("apart.node", 103),
        (String::new(), RData::NS(NS(full("near.node")))),
    ];
    let endpoints = [("web-1", 1), ("web-2", 2), ("web-3", 3), ("db-1", 4), ("mail-1", 5), ("client-1", 6)];
    records.extend(endpoints.map(|(endpoint, last)| a(&format!("{endpoint}.ep"), last)));
    // Names without data that exist all the same: a zone file needs a record to make them.
    let text = || RData::TXT(selvedge_dns::proto::rr::rdata::TXT::new(vec!["x".to_owned()]));
    let empty = ["idle.shop", "_idle._tcp.shop", "_idle._udp.shop", "_db._udp.shop", "_mail._udp.post"];
    records.extend(empty.map(|of| (of.to_owned(), text())));
    records
}

/// Starts the other implementation; the task ends with the test's runtime.
async fn other() -> std::net::SocketAddr {
    let origin = name(SUFFIX);
    let mut zone = InMemoryZoneHandler::<hickory_server::net::runtime::TokioRuntimeProvider>::empty(
        origin.clone(),
        ZoneType::Primary,
        AxfrPolicy::Deny,
    );
    let soa = SOA::new(full("near.node"), full("hostmaster"), 7, 60, 60, 60, 1);
    zone.upsert_mut(Record::from_rdata(origin.clone(), 1, RData::SOA(soa)), 7);
    for (of, data) in records() {
        zone.upsert_mut(Record::from_rdata(full(&of), 1, data), 7);
    }
    let mut catalog = Catalog::new();
    catalog.upsert(origin.into(), vec![Arc::new(zone)]);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let mut server = Server::new(catalog);
    server.register_socket(socket);
    tokio::task::spawn(async move { server.block_until_done().await.unwrap() });
    address
}

/// What an answer says, without order, TTLs and what is only additional.
fn said(message: &Message) -> (String, BTreeSet<String>, bool) {
    let answers =
        message.answers.iter().map(|r| format!("{} {} {}", r.name, r.record_type(), r.data)).collect();
    let soa = message.authorities.iter().any(|r| r.record_type() == RecordType::SOA);
    (message.metadata.response_code.to_string(), answers, soa)
}

#[tokio::test]
async fn another_implementation_answers_alike() {
    let server = other().await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let mut differences = Vec::new();
    for of in NAMES {
        for rtype in TYPES {
            socket.send(&query(of, rtype).to_vec().unwrap()).await.unwrap();
            let mut buffer = [0; 4096];
            let received = tokio::time::timeout(std::time::Duration::from_secs(20), socket.recv(&mut buffer));
            let length = received.await.unwrap().unwrap();
            let theirs = said(&Message::from_vec(&buffer[..length]).unwrap());
            let ours = said(&ask(of, rtype));
            if ours != theirs {
                differences.push(format!("{of:?} {rtype}: ours {ours:?}, theirs {theirs:?}"));
            }
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
