//! `history` and `rollback`.

use clap::Args;
use selvedge_fabric::Revision;
use selvedge_node::api::types::{ApplyReply, HistoryItem, RollbackRequest};

use super::{
    DONE, ReadArgs,
    apply::{WaitArgs, finish},
};
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look,
        table::{Cell, Table},
    },
    progress,
};

/// What changed, when, and by whom.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge history --limit 5
  selvedge history --since 40 -o json    with every object before and after")]
pub(crate) struct HistoryArgs {
    /// Only revisions after this one
    #[arg(long, default_value_t = 0, value_name = "R")]
    since: Revision,
    /// At most so many, newest first
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    #[command(flatten)]
    read: ReadArgs,
}

pub(crate) async fn run(global: &Global, args: HistoryArgs) -> Outcome {
    let ask = Ask::get("/v1/history").query("since", args.since).query("limit", args.limit);
    let items: Vec<HistoryItem> = global.client()?.ask(ask.linearizable(args.read.linearizable)).await?;
    global.printer().show(&items, |look| table(&items, look))?;
    DONE
}

fn table(items: &[HistoryItem], look: Look) -> String {
    let mut rows = Table::new(look, &[">REVISION", "TIME", "WHO", "WHAT"]);
    for item in items {
        let cells: [Cell; 4] = [
            item.revision.to_string().into(),
            item.time.as_str().into(),
            item.actor.as_str().into(),
            item.summary.as_str().into(),
        ];
        rows.row(cells);
    }
    rows.or("no revision")
}

/// Make the objects what they were at a revision.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge rollback 41 --wait")]
pub(crate) struct RollbackArgs {
    /// The revision to return to
    revision: Revision,
    /// Refuse unless this is the present revision
    #[arg(long, value_name = "R")]
    if_revision: Option<Revision>,
    #[command(flatten)]
    wait: WaitArgs,
}

pub(crate) async fn rollback(global: &Global, args: RollbackArgs) -> Outcome {
    let client = global.client()?;
    let request = RollbackRequest { to: args.revision, if_revision: args.if_revision };
    let ask = Ask::post("/v1/rollback").json(&request)?;
    let reply: ApplyReply = progress::during("waiting for the fabric to agree", client.ask(ask)).await?;
    finish(global, &client, &reply, &args.wait).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_reads_as_a_log() {
        let item = HistoryItem {
            revision: 12,
            time: "2026-01-01T00:00:00Z".into(),
            actor: "local:0".into(),
            summary: "created Domain shop".into(),
            changes: Vec::new(),
        };
        let expected = "\
REVISION  TIME                  WHO      WHAT
      12  2026-01-01T00:00:00Z  local:0  created Domain shop
";
        assert_eq!(table(&[item], Look::PLAIN), expected);
    }
}
