//! TXT records: what is known of an endpoint, one `name=value` a string (RFC 1464).

use hickory_proto::rr::{RData, rdata::TXT};
use selvedge_fabric::{object::Protocol, plan::Target, record::Health};

/// What the name of a contract says of one endpoint. Failing endpoints are listed too, though they
/// have no address there: this is where people look for why.
pub(crate) fn of_contract(target: &Target) -> RData {
    let mut strings = about(target);
    strings.extend(target.ports.iter().map(|(protocol, port)| format!("port={}/{port}", word(*protocol))));
    txt(strings)
}

/// What the name of an endpoint says of it. Not its ports: they belong to contracts that the asker may
/// not know of.
pub(crate) fn of_endpoint(target: &Target) -> RData {
    txt(about(target))
}

fn about(target: &Target) -> Vec<String> {
    let health = match target.health {
        Health::Passing => "passing",
        Health::Unknown => "unknown",
        Health::Failing => "failing",
    };
    let mut strings = vec![
        format!("endpoint={}", target.endpoint),
        format!("service={}", target.service),
        format!("node={}", target.node),
    ];
    strings.extend(target.zone.as_ref().map(|zone| format!("zone={zone}")));
    strings.push(format!("health={health}"));
    strings.extend(target.stale_since_ms.map(|since| format!("stale-since-ms={since}")));
    strings
}

const fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Icmp => "icmp",
        Protocol::Any => "any",
    }
}

/// No string here exceeds the 255 bytes of a character-string: names have at most 63.
fn txt(strings: Vec<String>) -> RData {
    RData::TXT(TXT::new(strings))
}
