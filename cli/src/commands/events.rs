//! `events`.

use clap::Args;
use selvedge_node::api::types::EventItem;

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look,
        table::{Cell, Table},
    },
};

/// What happened on this node: refusals above all.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge events
  selvedge events --since 120 -o json")]
pub(crate) struct EventsArgs {
    /// Only those after this sequence
    #[arg(long, default_value_t = 0, value_name = "N")]
    since: u64,
    /// At most so many, oldest first
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
}

pub(crate) async fn run(global: &Global, args: EventsArgs) -> Outcome {
    let ask = Ask::get("/v1/events").query("since", args.since).maybe("limit", args.limit);
    let events: Vec<EventItem> = global.client()?.ask(ask).await?;
    global.printer().show(&events, |look| table(&events, look))?;
    DONE
}

fn table(events: &[EventItem], look: Look) -> String {
    let mut rows = Table::new(look, &["TIME", "SEVERITY", "CODE", "SUBJECT", "MESSAGE"]);
    for event in events {
        rows.row([
            event.time.as_str().into(),
            Cell::word(&event.severity),
            event.code.as_str().into(),
            event.subject.as_str().into(),
            event.message.as_str().into(),
        ]);
    }
    rows.or("no event")
}
