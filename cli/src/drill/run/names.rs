//! What a node's DNS names, asked where it can be reached from here, and otherwise by the node's API.

use std::net::IpAddr;

use anyhow::ensure;
use hickory_proto::{op::ResponseCode, rr::RecordType};
use selvedge_node::api::types::ResolveReply;

use crate::{
    client::Ask,
    drill::ground::Site,
    probe::dns::{self, Wire},
};

/// What an answer names. No record at all is an answer too: nothing that serves it can be reached.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) addresses: Vec<IpAddr>,
    /// Targets of services.
    pub(super) hosts: Vec<String>,
}

/// Asks one question that must be answered without an error.
pub(super) async fn ask(node: &Site, name: &str, kind: RecordType) -> anyhow::Result<Named> {
    let Some(server) = node.dns else { return by_api(node, name, kind).await };
    let answer = dns::ask(server, name, kind, Wire::Udp).await?;
    let code = answer.metadata.response_code;
    ensure!(code == ResponseCode::NoError, "{name} {kind}: {code}");
    let hosts = dns::targets(&answer).into_iter().map(|target| target.host).collect();
    Ok(Named { addresses: dns::addresses_of(&answer), hosts })
}

async fn by_api(node: &Site, name: &str, kind: RecordType) -> anyhow::Result<Named> {
    let ask = Ask::get("/v1/resolve").query("name", name).query("type", kind);
    let reply: ResolveReply = node.client.ask(ask).await.map_err(|failure| anyhow::anyhow!("{failure}"))?;
    ensure!(reply.rcode == "NOERROR", "{name} {kind}: {}", reply.rcode);
    Ok(read(&reply))
}

fn read(reply: &ResolveReply) -> Named {
    let mut named = Named::default();
    for record in &reply.answers {
        match record.kind.as_str() {
            "A" | "AAAA" => named.addresses.extend(record.data.parse::<IpAddr>().ok()),
            // Priority, weight, port, target (RFC 2782).
            "SRV" => named.hosts.extend(record.data.split_whitespace().nth(3).map(str::to_owned)),
            _ => {}
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use selvedge_node::api::types::Answer;

    use super::*;

    #[test]
    fn answers_of_the_api_are_read() {
        let answer = |kind: &str, data: &str| Answer {
            name: "c.d.".into(),
            kind: kind.into(),
            ttl: 1,
            data: data.into(),
        };
        let answers = vec![
            answer("A", "127.64.0.9"),
            answer("SRV", "0 10 8080 e-1.ep.fabric.internal."),
            answer("TXT", "x"),
        ];
        let reply = ResolveReply {
            name: "c.d.".into(),
            kind: "A".into(),
            rcode: "NOERROR".into(),
            answers,
            additional: Vec::new(),
            revision: 1,
        };
        let named = read(&reply);
        assert_eq!(named.addresses, ["127.64.0.9".parse::<IpAddr>().expect("an address")]);
        assert_eq!(named.hosts, ["e-1.ep.fabric.internal."]);
    }
}
