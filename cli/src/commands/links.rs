//! `links`.

use clap::Args;
use selvedge_node::api::types::Link;

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look, human,
        table::{Cell, Table},
    },
};

/// Links of the overlay of this node.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge links
  selvedge links -o json")]
pub(crate) struct LinksArgs {}

pub(crate) async fn run(global: &Global, _args: LinksArgs) -> Outcome {
    let links: Vec<Link> = global.client()?.ask(Ask::get("/v1/links")).await?;
    global.printer().show(&links, |look| table(&links, look))?;
    DONE
}

fn table(links: &[Link], look: Look) -> String {
    const NARROW: [&str; 6] = ["PEER", "STATE", ">RTT", ">LOSS", ">SENT", ">RECEIVED"];
    const WIDE: [&str; 7] = ["PEER", "STATE", ">RTT", ">LOSS", ">SENT", ">RECEIVED", ">DATAGRAM"];
    let mut rows = Table::new(look, if look.wide { &WIDE } else { &NARROW });
    for link in links {
        rows.row([
            link.peer.as_str().into(),
            Cell::word(&link.state),
            Cell::maybe(link.rtt_ms.map(human::rtt)),
            format!("{:.1}%", link.loss * 100.0).into(),
            human::bytes(link.tx_bytes).into(),
            human::bytes(link.rx_bytes).into(),
            Cell::maybe(link.max_datagram_bytes),
        ]);
    }
    rows.or("no link: the overlay of this node is off, or there is no other node")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_read_at_a_glance() {
        let up = Link {
            peer: "aws-1".into(),
            state: "up".into(),
            rtt_ms: Some(0.25),
            loss: 0.015,
            tx_bytes: 1_500,
            rx_bytes: 12,
            max_datagram_bytes: Some(1_414),
        };
        let down = Link { peer: "gcp-1".into(), state: "down".into(), ..Link::default() };
        let expected = "\
PEER   STATE      RTT  LOSS    SENT  RECEIVED
aws-1  up     0.25 ms  1.5%  1.5 kB      12 B
gcp-1  down         -  0.0%     0 B       0 B
";
        assert_eq!(table(&[up, down], Look::PLAIN), expected);
    }
}
