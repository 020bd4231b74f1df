//! `reach` and `assert`.

use std::path::PathBuf;

use clap::Args;
use selvedge_fabric::id::ServiceRef;
use selvedge_node::api::types::{AssertReply, ReachItem};

use super::{DONE, check_failed};
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look, human,
        table::{Cell, Table},
    },
    sources,
};

/// Who can reach what. Exit code 5 when both ends are given and nothing leads from one to the other.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  selvedge reach
  selvedge reach --to voting-db@voting-app
  selvedge reach --from http-proxy@getaway-app --to voting-svc@voting-app    exit code 5: it must not")]
pub(crate) struct ReachArgs {
    /// Only what this service opens
    #[arg(long, value_name = "S")]
    from: Option<ServiceRef>,
    /// Only what this service accepts
    #[arg(long, value_name = "S")]
    to: Option<ServiceRef>,
}

pub(crate) async fn run(global: &Global, args: ReachArgs) -> Outcome {
    let ask = Ask::get("/v1/reach").maybe("from", args.from.as_ref()).maybe("to", args.to.as_ref());
    let pairs: Vec<ReachItem> = global.client()?.ask(ask).await?;
    global.printer().show(&pairs, |look| table(&pairs, look))?;
    let asked_for_one = args.from.is_some() && args.to.is_some();
    if asked_for_one && pairs.is_empty() { check_failed() } else { DONE }
}

fn table(pairs: &[ReachItem], look: Look) -> String {
    let mut rows = Table::new(look, &["FROM", "TO", "PORT", "CONTRACT", "NOTE"]);
    let mut plain = Table::new(look, &["FROM", "TO", "PORT", "CONTRACT"]);
    let noted = pairs.iter().any(|p| p.note.is_some());
    for pair in pairs {
        let cells = [
            pair.from.as_str().into(),
            pair.to.as_str().into(),
            pair.port.as_str().into(),
            Cell::maybe(pair.contract.as_ref()),
            Cell::maybe(pair.note.as_ref()),
        ];
        if noted { rows.row(cells) } else { plain.row(cells) }
    }
    if noted { rows.finish() } else { plain.or("nothing reaches anything here") }
}

/// Prove isolation: check assertions on who reaches whom. Exit code 5 when one fails.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  selvedge assert -f - <<EOF
  - deny:  {from: '*@getaway-app', to: '*@voting-app'}
  - allow: {from: voting-svc@voting-app, to: voting-db@voting-app, port: tcp/5432}
  EOF")]
pub(crate) struct AssertArgs {
    /// The assertions: a file, or - for standard input
    #[arg(short = 'f', long = "file", value_name = "F")]
    file: PathBuf,
}

pub(crate) async fn check(global: &Global, args: AssertArgs) -> Outcome {
    let ask = Ask::post("/v1/assert").text("application/yaml", sources::read_one(&args.file)?);
    let reply: AssertReply = global.client()?.ask(ask).await?;
    global.printer().show(&reply, |look| outcome(&reply, look))?;
    if reply.passed { DONE } else { check_failed() }
}

fn outcome(reply: &AssertReply, look: Look) -> String {
    let mut rows = Table::new(look, &["RESULT", "ASSERTION", "DETAIL"]);
    for result in &reply.results {
        let word = if result.passed { "ok" } else { "failed" };
        rows.row([Cell::word(word), result.assertion.as_str().into(), result.detail.as_str().into()]);
    }
    let failed = reply.results.iter().filter(|r| !r.passed).count();
    let summary = match failed {
        0 => format!("{} hold", human::count(reply.results.len(), "assertion")),
        n => format!("{n} of {} failed", human::count(reply.results.len(), "assertion")),
    };
    format!("{}{summary} at revision {}\n", rows.or("no assertion"), reply.revision)
}
