//! `explain`.

use clap::Args;
use selvedge_fabric::{id::ServiceRef, object::PortRange};
use selvedge_node::api::types::ExplainReply;

use super::{DONE, check_failed};
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look,
        style::{paint, tone_of},
        table::{Cell, Table},
    },
};

/// The verdict for a flow, and why. Exit code 5 when it is deny.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge explain --from voting-svc@voting-app --to voting-db@voting-app --port tcp/5432")]
pub(crate) struct ExplainArgs {
    /// Who opens the flow, name@domain
    #[arg(long, value_name = "S")]
    from: ServiceRef,
    /// Who accepts it, name@domain
    #[arg(long, value_name = "S")]
    to: ServiceRef,
    /// The port, for instance tcp/5432
    #[arg(long, value_name = "P")]
    port: PortRange,
}

pub(crate) async fn run(global: &Global, args: ExplainArgs) -> Outcome {
    let ask =
        Ask::get("/v1/explain").query("from", &args.from).query("to", &args.to).query("port", args.port);
    let reply: ExplainReply = global.client()?.ask(ask).await?;
    let flow = format!("{} → {} {}", args.from, args.to, args.port);
    global.printer().show(&reply, |look| text(&flow, &reply, look))?;
    if reply.verdict == "allow" { DONE } else { check_failed() }
}

fn text(flow: &str, reply: &ExplainReply, look: Look) -> String {
    let verdict = paint(&reply.verdict, tone_of(&reply.verdict), look.colour);
    let mut text = format!("{verdict}  {flow}\n");
    let lines = [
        ("reason", Some(&reply.reason)),
        ("contract", reply.contract.as_ref()),
        ("rule", reply.rule.as_ref()),
        ("detail", Some(&reply.detail).filter(|d| !d.is_empty())),
    ];
    for (label, value) in lines {
        if let Some(value) = value {
            text.push_str(&format!("{label:<9} {value}\n"));
        }
    }
    text.push_str(&format!("{:<9} {}\n", "revision", reply.revision));
    if !reply.hops.is_empty() {
        let mut rows = Table::new(look, &["NODE", "ZONE", "PLACE", "VERDICT", "REASON"]);
        for hop in &reply.hops {
            rows.row([
                hop.node.as_str().into(),
                Cell::maybe(hop.zone.as_ref()),
                hop.place.as_str().into(),
                Cell::word(&hop.verdict),
                hop.reason.as_str().into(),
            ]);
        }
        text.push('\n');
        text.push_str(&rows.finish());
    }
    text
}

#[cfg(test)]
mod tests {
    use selvedge_node::api::types::Hop;

    use super::*;

    #[test]
    fn a_verdict_reads_with_its_reason_and_hops() {
        let reply = ExplainReply {
            verdict: "deny".into(),
            contract: None,
            rule: None,
            reason: "no-contract".into(),
            revision: 4,
            hops: vec![Hop {
                node: "aws-1".into(),
                zone: Some("aws".into()),
                place: "source".into(),
                verdict: "deny".into(),
                reason: "no-contract".into(),
            }],
            detail: String::new(),
        };
        let expected = "\
deny  a@b → c@d tcp/80
reason    no-contract
revision  4

NODE   ZONE  PLACE   VERDICT  REASON
aws-1  aws   source  deny     no-contract
";
        assert_eq!(text("a@b → c@d tcp/80", &reply, Look::PLAIN), expected);
    }
}
