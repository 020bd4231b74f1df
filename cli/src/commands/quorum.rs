//! `quorum status`.

use clap::Subcommand;
use selvedge_node::api::types::{QuorumReport, Replica};

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::Outcome,
    output::{
        Look,
        style::{Tone, paint},
        table::{Cell, Table},
    },
};

/// Leader, voters, and what their placement survives.
#[derive(Debug, Subcommand)]
pub(crate) enum QuorumCommand {
    /// Leader, voters, and what their placement survives
    #[command(after_help = "Examples:
  selvedge quorum status
  selvedge quorum status -o json | jq .survives")]
    Status,
}

pub(crate) async fn run(global: &Global, command: QuorumCommand) -> Outcome {
    let QuorumCommand::Status = command;
    let report: QuorumReport = global.client()?.ask(Ask::get("/v1/quorum")).await?;
    global.printer().show(&report, |look| text(&report, look))?;
    DONE
}

fn text(report: &QuorumReport, look: Look) -> String {
    let paint = |words: &str, tone| paint(words, tone, look.colour);
    let live = report.voters.iter().filter(|v| v.live).count();
    let quorum = match report.quorum {
        true => paint("yes", Tone::Good),
        false => format!("{}: changes are refused until a majority is back", paint("no", Tone::Bad)),
    };
    let survives = match report.survives.as_slice() {
        [] => paint("the loss of nothing", Tone::Warn),
        list => format!("the loss of {}", list.join(" or of ")),
    };
    let mut text = format!("quorum    {quorum} ({live} of {} voters live)\n", report.voters.len());
    text.push_str(&format!(
        "leader    {} (term {}, fence epoch {}, log index {})\nsurvives  {survives}\n",
        report.leader.as_deref().unwrap_or("none"),
        report.term,
        report.fence_epoch,
        report.last_index,
    ));
    if let Some(warning) = &report.warning {
        text.push_str(&format!("warning   {}\n", paint(warning, Tone::Warn)));
    }
    let mut rows = Table::new(look, &["NODE", "ZONE", "REPLICA", "LIVE"]);
    let mut add = |replicas: &[Replica], part: &str| {
        for replica in replicas {
            let leads = report.leader.as_deref() == Some(&replica.name);
            let part = if leads { "leader" } else { part };
            let live = Cell::word(if replica.live { "yes" } else { "no" });
            rows.row([replica.name.as_str().into(), replica.zone.as_str().into(), part.into(), live]);
        }
    };
    add(&report.voters, "voter");
    add(&report.learners, "learner");
    text.push('\n');
    text.push_str(&rows.or("no replica"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_placement_reads_at_a_glance() {
        let replica = |name: &str, zone: &str, live| Replica { name: name.into(), zone: zone.into(), live };
        let report = QuorumReport {
            leader: Some("aws-1".into()),
            term: 3,
            voters: vec![replica("aws-1", "aws", true), replica("gcp-1", "gcp", false)],
            learners: vec![replica("aws-2", "aws", true)],
            survives: vec!["any one of aws, azr, gcp".into()],
            quorum: true,
            last_index: 40,
            ..QuorumReport::default()
        };
        let expected = "\
quorum    yes (1 of 2 voters live)
leader    aws-1 (term 3, fence epoch 0, log index 40)
survives  the loss of any one of aws, azr, gcp

NODE   ZONE  REPLICA  LIVE
aws-1  aws   leader   yes
gcp-1  gcp   voter    no
aws-2  aws   learner  yes
";
        assert_eq!(text(&report, Look::PLAIN), expected);
    }
}
