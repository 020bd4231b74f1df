//! `quorum status`, and `quorum lost`.

use clap::Subcommand;
use selvedge_fabric::id::NodeName;
use selvedge_node::api::types::{LostChange, QuorumReport, Replica, TransferRequest};

use super::{
    DONE,
    recover::{self, RecoverArgs},
};
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

/// The quorum: who votes, and what to do when a majority is lost.
#[derive(Debug, Subcommand)]
pub(crate) enum QuorumCommand {
    /// Leader, voters, and what their placement survives
    #[command(after_help = "Examples:
  selvedge quorum status
  selvedge quorum status -o json | jq .survives")]
    Status,
    /// Go on without a majority that is lost for good, under a new fence epoch
    Recover(RecoverArgs),
    /// Have a voter of your choice lead, for instance before the leader's host is stopped
    #[command(after_help = "Example:
  selvedge quorum transfer azr-1")]
    Transfer {
        /// The voter
        node: NodeName,
    },
    /// Changes that a recovery left behind, on all processors that answer
    #[command(after_help = "Example:
  selvedge quorum lost -o json | jq '.[] | select(.committed)'")]
    Lost,
}

pub(crate) async fn run(global: &Global, command: QuorumCommand) -> Outcome {
    match command {
        QuorumCommand::Status => status(global).await,
        QuorumCommand::Recover(args) => recover::run(global, args).await,
        QuorumCommand::Transfer { node } => transfer(global, &node).await,
        QuorumCommand::Lost => lost(global).await,
    }
}

async fn transfer(global: &Global, node: &NodeName) -> Outcome {
    let ask = Ask::post("/v1/quorum/transfer").json(&TransferRequest { node: node.to_string() })?;
    let report: QuorumReport = global.client()?.ask(ask).await?;
    global.printer().show(&report, |_| format!("{node} leads (term {})\n", report.term))?;
    DONE
}

async fn lost(global: &Global) -> Outcome {
    let changes: Vec<LostChange> = global.client()?.ask(Ask::get("/v1/quorum/lost")).await?;
    global.printer().show(&changes, |look| {
        let columns = [">EPOCH", ">REVISION", "TIME", "WHO", "WHAT", "COMMITTED", "ON"];
        let mut rows = Table::new(look, &columns);
        for change in &changes {
            rows.row([
                change.ended_epoch.to_string().into(),
                Cell::maybe(change.revision.map(|r| r.to_string())),
                change.time.as_str().into(),
                change.actor.as_str().into(),
                change.summary.as_str().into(),
                if change.committed { "yes" } else { "no" }.into(),
                change.nodes.join(", ").into(),
            ]);
        }
        rows.or("nothing was left behind by a recovery")
    })?;
    DONE
}

async fn status(global: &Global) -> Outcome {
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
    text.push_str(&troubles(report, look));
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

/// A lost majority, and what recoveries left.
fn troubles(report: &QuorumReport, look: Look) -> String {
    let mut text = String::new();
    if let Some(lost) = &report.lost_majority {
        let silent: Vec<_> = lost
            .missing
            .iter()
            .map(|m| match &m.heard {
                Some(heard) => format!("{} (last heard {heard})", m.name),
                None => format!("{} (never heard)", m.name),
            })
            .collect();
        let head =
            format!("{} of {} voters, without a majority since {}", silent.len(), lost.voters, lost.since);
        text.push_str(&format!(
            "lost      {}\n          not heard by {}: {}\n          {}\nremedy    {}\n",
            paint(&head, Tone::Bad, look.colour),
            lost.seen_by,
            silent.join(", "),
            lost.works,
            lost.remedy
        ));
    }
    if let Some(recovery) = &report.recovery {
        text.push_str(&format!(
            "recovered {} by the recovery key, from revision {}\n",
            recovery.at, recovery.base_revision
        ));
    }
    if report.lost_entries > 0 {
        text.push_str(&format!(
            "left      {} changes of this node did not survive a recovery: selvedge quorum lost\n",
            report.lost_entries
        ));
    }
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
