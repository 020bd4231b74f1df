//! `selvedge drill`: breaks a running playground on purpose and measures how the fabric takes it.

use std::{
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::bail;
use serde_json::json;

pub(crate) mod cloud_loss;
pub(crate) mod probe_write;
pub(crate) mod report;

use crate::playground::{
    CHECK_FAILED, driver::Selvedge, emit, plain_table, progress::Progress, state::State,
};
use cloud_loss::Scene;

/// Every drill with what it does.
const SCENARIOS: [(&str, &str); 1] = [(
    "cloud-loss",
    "kills every process of one cloud; writes must go on and DNS forget the dead within 5 s",
)];

/// Break a running playground on purpose and measure what happens.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DrillArgs {
    #[command(subcommand)]
    command: DrillCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum DrillCommand {
    /// List the drills
    #[command(after_help = "Example: selvedge drill list")]
    List,
    /// Run one on a playground; exits 0 when it passes, 5 otherwise
    #[command(after_help = "Example: selvedge drill run cloud-loss --cloud aws")]
    Run(RunArgs),
}

#[derive(Debug, Clone, clap::Args)]
struct RunArgs {
    /// The drill
    #[command(subcommand)]
    scenario: Scenario,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum Scenario {
    /// Kill every process of one cloud
    CloudLoss {
        /// The cloud
        #[arg(long)]
        cloud: String,
        /// Directory of the playground [default: the one of this user that was ready last]
        #[arg(long, value_name = "D")]
        dir: Option<PathBuf>,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Runs a drill command.
pub(crate) async fn run(args: DrillArgs, json: bool) -> anyhow::Result<ExitCode> {
    match args.command {
        DrillCommand::List => {
            emit(&list(json));
            Ok(ExitCode::SUCCESS)
        }
        DrillCommand::Run(RunArgs { scenario: Scenario::CloudLoss { cloud, dir, yes } }) => {
            let state = State::find(dir.as_deref())?;
            if !yes && !confirmed(&cloud, &state)? {
                return Ok(ExitCode::FAILURE);
            }
            let selvedge = Selvedge::this()?;
            let progress = Progress::start();
            let loss = Scene::of_state(&selvedge, &state).lose(&cloud, &progress).await?;
            drop(progress);
            let report = loss.report()?;
            emit(&if json { serde_json::to_string_pretty(&report)? } else { report.text() });
            Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(CHECK_FAILED) })
        }
    }
}

fn list(json: bool) -> String {
    if json {
        let items: Vec<_> =
            SCENARIOS.iter().map(|(name, what)| json!({"scenario": name, "does": what})).collect();
        return json!(items).to_string();
    }
    let mut table = plain_table(&["SCENARIO", "DOES"]);
    for (name, what) in SCENARIOS {
        table.add_row([name, what]);
    }
    table.to_string()
}

/// Asks on the terminal.
fn confirmed(cloud: &str, state: &State) -> anyhow::Result<bool> {
    let doomed: Vec<_> = state.nodes.iter().filter(|n| n.cloud() == cloud).map(|n| n.name.as_str()).collect();
    if !io::stdin().is_terminal() {
        bail!("this kills {}; say --yes, as there is no terminal to ask on", doomed.join(", "));
    }
    let mut err = io::stderr();
    write!(err, "Kill {} of the playground in {}? [y/N] ", doomed.join(", "), state.dir.display())?;
    err.flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}
