//! `members`.

use clap::Args;
use selvedge_node::api::types::Member;

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look, human,
        style::Tone,
        table::{Cell, Table},
    },
};

/// Membership as this node sees it.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge members
  selvedge members -o wide    with addresses, load and age of the facts")]
pub(crate) struct MembersArgs {}

pub(crate) async fn run(global: &Global, _args: MembersArgs) -> Outcome {
    let members: Vec<Member> = global.client()?.ask(Ask::get("/v1/members")).await?;
    global.printer().show(&members, |look| table(&members, look))?;
    DONE
}

fn table(members: &[Member], look: Look) -> String {
    const NARROW: [&str; 8] = ["NAME", "ZONE", "ROLE", "STATE", "VOTER", ">RTT", ">ENFORCES", ">ENDPOINTS"];
    const MORE: [&str; 5] = [">HEARD", ">INCARNATION", ">CPU", "SOFTWARE", "ADDRESSES"];
    let mut rows = if look.wide {
        Table::new(look, &[&NARROW[..], &MORE[..]].concat())
    } else {
        Table::new(look, &NARROW)
    };
    for member in members {
        rows.row([
            member.name.as_str().into(),
            member.zone.as_str().into(),
            member.role.as_str().into(),
            state(member),
            if member.voter { "yes".into() } else { "".into() },
            Cell::maybe(member.rtt_ms.map(human::rtt)),
            Cell::maybe(member.enforced_revision),
            member.endpoints.to_string().into(),
            Cell::maybe(member.heard_ms_ago.map(human::span)),
            member.incarnation.to_string().into(),
            Cell::maybe(member.cpu_percent.map(|p| format!("{p}%"))),
            Cell::maybe(member.software.as_ref()),
            member.addresses.join(",").into(),
        ]);
    }
    rows.or("no member")
}

/// What an administrator made of the node matters more than whether it lives.
fn state(member: &Member) -> Cell {
    match (member.quarantined, member.admission.as_str()) {
        (true, _) => Cell::toned("quarantined", Tone::Bad),
        (false, "draining") => Cell::toned(format!("{}, draining", member.state), Tone::Warn),
        (false, "revoked") => Cell::toned("revoked", Tone::Bad),
        (false, _) => Cell::word(&member.state),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_read_at_a_glance() {
        let alive = Member {
            name: "aws-1".into(),
            zone: "aws".into(),
            role: "processor".into(),
            state: "alive".into(),
            voter: true,
            rtt_ms: Some(0.25),
            enforced_revision: Some(7),
            admission: "active".into(),
            endpoints: 4,
            ..Member::default()
        };
        let down = Member {
            name: "gcp-1".into(),
            state: "down".into(),
            voter: false,
            rtt_ms: None,
            enforced_revision: None,
            endpoints: 0,
            admission: "draining".into(),
            ..alive.clone()
        };
        let expected = "\
NAME   ZONE  ROLE       STATE           VOTER      RTT  ENFORCES  ENDPOINTS
aws-1  aws   processor  alive           yes    0.25 ms         7          4
gcp-1  aws   processor  down, draining  -            -         -          0
";
        assert_eq!(table(&[alive, down], Look::PLAIN), expected);
    }
}
