//! A zone to ask about, small enough to hold in the head:
//!
//! * `web.shop`: `web-1` (near, TUN, tcp/80), `web-2` (far, tcp/8080 and udp/80), `web-3` (failing).
//! * `db.shop`: `db-1`, whose checks fail; there is no other.
//! * `idle.shop`: nobody serves it. `mail.post`: another domain, on a node of its own.
//! * `front@shop` reaches `web.shop` and `idle.shop`; `stray@post` reaches nothing.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use selvedge_dns::{
    Asker, ZoneIndex, answer,
    proto::{
        op::{Edns, Message, MessageType, OpCode, Query},
        rr::{Name, RData, RecordType},
    },
};
use selvedge_fabric::{
    id::{ContractRef, EndpointId, ServiceRef},
    key::Hash,
    object::Protocol,
    plan::{Addresses, Plan, Target, Zone},
    record::Health,
};

pub(crate) const SUFFIX: &str = "fabric.internal";

pub(crate) fn v4(last: u8) -> Option<Ipv4Addr> {
    Some(Ipv4Addr::new(100, 64, 1, last))
}

pub(crate) fn v6(last: u16) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::new(0xfd12, 0x3456, 0x789a, 1, 0, 0, 0, last))
}

fn id(text: &str) -> EndpointId {
    text.parse().unwrap()
}

pub(crate) fn service(text: &str) -> ServiceRef {
    text.parse().unwrap()
}

pub(crate) fn target(endpoint: &str, node: &str, last: u8, ports: &[(Protocol, u16)]) -> Target {
    Target {
        endpoint: id(endpoint),
        service: service("server@shop"),
        node: id(node),
        zone: Some("aws/east".parse().unwrap()),
        stale_since_ms: None,
        health: Health::Passing,
        priority: 10,
        weight: 100,
        ports: ports.to_vec(),
        addresses: Addresses { ipv4: v4(last), ipv6: None },
    }
}

pub(crate) fn zone() -> Zone {
    let mut web = vec![
        target("web-1", "near", 1, &[(Protocol::Tcp, 80)]),
        target("web-2", "far", 2, &[(Protocol::Tcp, 8080), (Protocol::Udp, 80)]),
        target("web-3", "far", 3, &[(Protocol::Tcp, 80)]),
    ];
    web[0].addresses.ipv6 = v6(1);
    web[1].priority = 20;
    web[1].health = Health::Unknown;
    web[1].stale_since_ms = Some(1_700_000_000_000);
    web[2].health = Health::Failing;
    let mut db = vec![target("db-1", "near", 4, &[(Protocol::Tcp, 5432)])];
    db[0].health = Health::Failing;
    let mail = vec![target("mail-1", "apart", 5, &[(Protocol::Tcp, 25)])];

    let mut zone = Zone { suffix: SUFFIX.to_owned(), serial: 7, me: Some(id("near")), ..Zone::default() };
    for target in web.iter().chain(&db).chain(&mail) {
        zone.endpoints.insert(target.endpoint.clone(), target.addresses.clone());
    }
    zone.endpoints.insert(id("client-1"), Addresses { ipv4: v4(6), ipv6: None });
    for (node, last) in [("near", 101), ("far", 102), ("apart", 103)] {
        zone.nodes.insert(id(node), Addresses { ipv4: v4(last), ipv6: None });
    }
    for (contract, targets) in
        [("web@shop", web), ("db@shop", db), ("idle@shop", vec![]), ("mail@post", mail)]
    {
        zone.contracts.insert(contract.parse().unwrap(), targets);
    }
    zone.ranges = vec![("100.64.0.0".parse().unwrap(), 10), ("fd12:3456:789a::".parse().unwrap(), 48)];
    let reached: [ContractRef; 2] = [service("web@shop"), service("idle@shop")];
    zone.reach.insert(service("front@shop"), reached.into());
    zone.reach.insert(service("stray@post"), [].into());
    zone
}

/// A zone whose one contract `many.shop` has that many endpoints.
pub(crate) fn crowd(count: u8) -> Zone {
    let mut zone = zone();
    let many: Vec<_> =
        (1..=count).map(|n| target(&format!("many-{n}"), "near", n, &[(Protocol::Tcp, 80)])).collect();
    for one in &many {
        zone.endpoints.insert(one.endpoint.clone(), one.addresses.clone());
    }
    zone.contracts.insert(service("many@shop"), many);
    zone
}

pub(crate) fn plan(zone: Zone) -> Arc<Plan> {
    Arc::new(Plan {
        revision: 1,
        hash: Hash([0; 32]),
        generation: 1,
        at_ms: 0,
        verdicts: Arc::default(),
        identities: Default::default(),
        networks: Default::default(),
        routing: Arc::default(),
        zone,
        alarms: Vec::new(),
        whole: true,
        next_deadline_ms: None,
    })
}

pub(crate) fn name(text: &str) -> Name {
    let mut name = Name::from_ascii(text).unwrap();
    name.set_fqdn(true);
    name
}

/// `text` below the suffix, unless it ends with a dot.
pub(crate) fn full(text: &str) -> Name {
    match text {
        "" => name(SUFFIX),
        _ if text.ends_with('.') => name(text),
        _ => name(&format!("{text}.{SUFFIX}")),
    }
}

pub(crate) fn query(of: &str, rtype: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(full(of), rtype));
    message
}

pub(crate) fn with_edns(mut message: Message, payload: u16) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(payload);
    message.edns = Some(edns);
    message
}

pub(crate) fn ask_as(asker: &Asker, of: &str, rtype: RecordType) -> Message {
    answer(&ZoneIndex::build(&zone()), &query(of, rtype), asker)
}

pub(crate) fn ask(of: &str, rtype: RecordType) -> Message {
    ask_as(&Asker::All, of, rtype)
}

/// Answers as text, `TYPE data`, in order; the strings of TXT and HINFO without quotes.
pub(crate) fn answers(message: &Message) -> Vec<String> {
    let text = |data: &RData| match data {
        RData::TXT(txt) => {
            txt.txt_data.iter().map(|s| String::from_utf8_lossy(s)).collect::<Vec<_>>().join(" ")
        }
        other => other.to_string().replace('"', ""),
    };
    message.answers.iter().map(|r| format!("{} {}", r.record_type(), text(&r.data))).collect()
}

pub(crate) fn reverse_of(ip: impl Into<IpAddr>) -> String {
    Name::from(ip.into()).to_ascii()
}
