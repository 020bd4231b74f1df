//! `observe`: the flow log.

use std::time::Duration;

use clap::{Args, ValueEnum};
use selvedge_fabric::id::ServiceRef;
use selvedge_node::api::types::{FlowItem, FlowPage};

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Format, Look,
        table::{Cell, Table},
    },
};

/// How long a node waits for something new before it answers.
const WAIT: Duration = Duration::from_secs(20);

/// Flows that this node opened, refused and cut.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge observe
  selvedge observe --verdict deny --follow
  selvedge observe --from voting-svc@voting-app --to voting-db@voting-app -o json
With -o json there is one object a line.")]
pub(crate) struct ObserveArgs {
    /// Only those from this service
    #[arg(long, value_name = "S")]
    from: Option<ServiceRef>,
    /// Only those to this service
    #[arg(long, value_name = "S")]
    to: Option<ServiceRef>,
    /// Only those with this verdict
    #[arg(long, value_enum)]
    verdict: Option<Verdict>,
    /// Go on as they happen, until interrupted
    #[arg(long, short = 'F')]
    follow: bool,
    /// At most so many of the past, the newest
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Verdict {
    Allow,
    Deny,
}

pub(crate) async fn run(global: &Global, args: ObserveArgs) -> Outcome {
    let client = global.client()?;
    let page = async |since: u64, wait: Duration| -> Outcome<FlowPage> {
        let verdict = args.verdict.map(|verdict| match verdict {
            Verdict::Allow => "allow",
            Verdict::Deny => "deny",
        });
        let ask = Ask::get("/v1/flows")
            .query("since", since)
            .query("limit", args.limit)
            .query("wait_ms", wait.as_millis())
            .maybe("from", args.from.as_ref())
            .maybe("to", args.to.as_ref())
            .maybe("verdict", verdict);
        client.ask(ask).await
    };
    let mut seen = page(0, Duration::ZERO).await?;
    show(global, &seen.flows, true)?;
    if !args.follow {
        return DONE;
    }
    loop {
        seen = page(seen.newest, WAIT).await?;
        show(global, &seen.flows, false)?;
    }
}

/// JSON is one object a line, so that programs can read it as it comes.
fn show(global: &Global, flows: &[FlowItem], first: bool) -> Outcome<()> {
    if global.output == Some(Format::Json) {
        for flow in flows {
            println!("{}", serde_json::to_string(flow).unwrap_or_default());
        }
        return Ok(());
    }
    if first || !flows.is_empty() {
        global.printer().show(&flows, |look| table(flows, look))?;
    }
    Ok(())
}

fn table(flows: &[FlowItem], look: Look) -> String {
    const NARROW: [&str; 8] = ["TIME", "FROM", "TO", "PORT", "VERDICT", "REASON", "CONTRACT", ">PACKETS"];
    const MORE: [&str; 6] = ["EVENT", "DIRECTION", "SOURCE", "DESTINATION", ">BYTES", ">REVISION"];
    let mut rows = if look.wide {
        Table::new(look, &[&NARROW[..], &MORE[..]].concat())
    } else {
        Table::new(look, &NARROW)
    };
    for flow in flows {
        rows.row([
            flow.time.as_str().into(),
            flow.from.as_str().into(),
            flow.to.as_str().into(),
            flow.port.as_str().into(),
            Cell::word(&flow.verdict),
            flow.reason.as_str().into(),
            Cell::maybe(flow.contract.as_ref()),
            flow.packets.to_string().into(),
            flow.event.as_str().into(),
            flow.direction.as_str().into(),
            flow.source.as_str().into(),
            flow.destination.as_str().into(),
            flow.bytes.to_string().into(),
            flow.revision.to_string().into(),
        ]);
    }
    rows.or("no flow")
}
