//! `selvedge drill`: breaks a running playground, or a real fabric, on purpose and measures how that takes it.
//!
//! * [`selvedge_fabric::drill`]: what a drill is. [`shelf`]: those that are shipped, in `configs/drills`.
//! * [`ground`]: the fabric under drill; [`fabric`]: a real one, which is asked first and always heals.
//! * [`mod@run`]: does the steps and asks the probes; a shell that fills a [`record`].
//! * [`judge`], [`report`], [`page`]: from the record to figures, verdicts and a page for people. Pure.

use std::{
    ffi::OsString,
    io::{self, BufRead as _, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

mod fabric;
pub(crate) mod ground;
mod judge;
mod page;
pub(crate) mod probe_write;
mod record;
mod report;
mod run;
mod shelf;

use selvedge_fabric::drill::Drill;
use selvedge_node::api::types::IsolationReport;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    args::Global,
    client::Ask,
    failure::{Failure, Outcome},
    output,
    playground::{
        CHECK_FAILED, INTERRUPTED, Stop, control::Control, plain_table, progress::Progress, state::State,
    },
};
use fabric::leases::Leases;
use ground::Ground;
use report::Report;
use run::{Hand, Means, own::Own};

/// Break a running playground, or a real fabric, on purpose and measure what happens.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct DrillArgs {
    #[command(subcommand)]
    command: DrillCommand,
}

#[derive(Debug, Clone, clap::Subcommand)]
enum DrillCommand {
    /// List the drills that come with selvedge
    #[command(after_help = "Example: selvedge drill list")]
    List,
    /// Print the file of a drill, to be changed and run
    #[command(after_help = "Example: selvedge drill show cloud-loss > mine.yaml")]
    Show {
        /// The drill
        #[arg(value_name = "DRILL")]
        drill: OsString,
    },
    /// Check files of drills without running them
    #[command(after_help = "Example: selvedge drill check mine.yaml")]
    Check {
        /// The files
        #[arg(value_name = "F", required = true)]
        files: Vec<OsString>,
    },
    /// Run one on a playground or, with --fabric, on a real fabric; exits 0 when it passes, 5 when a bound is broken
    #[command(after_help = "Examples:
  selvedge drill run cloud-loss --cloud aws
  selvedge drill run ./mine.yaml --report reports/
  sudo selvedge drill run partition --fresh --report partition.html
  selvedge drill run cloud-loss --fabric --cloud aws --api https://p1.example.net --token-file t --ca-file ca.pem")]
    Run(RunArgs),
    /// End the drill that isolates the node, at once; whoever runs it mends all others
    #[command(after_help = "Example: selvedge drill stop")]
    Stop,
}

#[derive(Debug, Clone, clap::Args)]
struct RunArgs {
    /// A drill of `drill list`, or a file
    #[arg(value_name = "DRILL")]
    drill: OsString,
    /// Clouds that cloud#1, cloud#2, … stand for [default: in the order of names]
    #[arg(long, value_name = "CLOUD,…", value_delimiter = ',')]
    cloud: Vec<String>,
    /// Directory of the playground [default: the one of this user that was ready last]
    #[arg(long, value_name = "D", conflicts_with = "fresh")]
    dir: Option<PathBuf>,
    /// Start a playground for this drill, and end it afterwards
    #[arg(long)]
    fresh: bool,
    /// Run it on the fabric of --api: asks first, isolates nodes by their own gates, and always heals
    #[arg(long, conflicts_with_all = ["fresh", "dir", "binary", "leave"])]
    fabric: bool,
    /// With --fabric: how long nodes stay isolated when this program is gone, 1s to 10m
    #[arg(long, value_name = "SPAN", requires = "fabric", default_value = "5s", value_parser = lease)]
    lease: Duration,
    /// With --fresh: no real packets, even as root
    #[arg(long, requires = "fresh")]
    rootless: bool,
    /// The other program that drills like `upgrade` restart nodes with
    #[arg(long, value_name = "F")]
    binary: Option<PathBuf>,
    /// Write the report as a page and as JSON: FILE.html, or a directory
    #[arg(long, value_name = "DIR|FILE.html")]
    report: Option<PathBuf>,
    /// Allow this many times as long, on a machine that is busy with something else
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    slack: u32,
    /// Leave everything as broken as it is at the end
    #[arg(long, conflicts_with = "fresh")]
    leave: bool,
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
}

/// Runs a drill command.
pub(crate) async fn run(global: &Global, args: DrillArgs) -> Outcome {
    match args.command {
        DrillCommand::List => {
            let list = shelf::list()?;
            global.printer().show(&list, |_| {
                let mut table = plain_table(&["SCENARIO", "NEEDS", "DOES"]);
                for drill in &list {
                    table.add_row([&drill.scenario, &drill.needs.join(", "), &drill.does]);
                }
                format!("{table}\n")
            })?;
        }
        DrillCommand::Show { drill } => output::write(&shelf::find(&drill)?.text)?,
        DrillCommand::Check { files } => {
            for file in files {
                let found = shelf::find(&file)?;
                output::write(&format!("{}: drill {} is sound\n", file.display(), found.drill.name))?;
            }
        }
        DrillCommand::Run(args) => return perform(global, args).await,
        DrillCommand::Stop => {
            let report: IsolationReport = global.client()?.ask(Ask::delete("/v1/isolation")).await?;
            global.printer().show(&report, |_| format!("{} is in the hands of no drill\n", report.node))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn lease(text: &str) -> Result<Duration, String> {
    let lease = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    let bounds = fabric::MIN_LEASE..=fabric::MAX_LEASE;
    if bounds.contains(&lease) { Ok(lease) } else { Err("a lease lasts 1s to 10m".to_owned()) }
}

async fn perform(global: &Global, args: RunArgs) -> Outcome {
    let mut drill = shelf::find(&args.drill)?.drill;
    drill.spec = drill.spec.with_slack(args.slack);
    if args.fabric {
        return on_fabric(global, &args, &drill).await;
    }
    if drill.spec.needs_own_playground() && !args.fresh {
        let what = format!("{} needs nodes with a configuration of its own", drill.name);
        return Err(Failure::new(what).remedy("have a playground started for it: --fresh"));
    }
    if let Some(binary) = args.binary.as_ref().filter(|binary| !binary.is_file()) {
        return Err(Failure::usage(format!("--binary {} is no file", binary.display())));
    }
    let mut stop = Stop::listen().map_err(failed)?;
    let (own, state) = match args.fresh {
        true => {
            let progress = Progress::start();
            progress.doing("starting a playground");
            let started = tokio::select! {
                started = Own::start(&drill.spec.playground, args.rootless) => started.map_err(failed)?,
                () = stop.asked() => return Ok(ExitCode::from(INTERRUPTED)),
            };
            progress.done("a playground is up");
            (Some(started.0), started.1)
        }
        false => (None, State::find(args.dir.as_deref()).map_err(failed)?),
    };
    let outcome = on_playground(global, &args, &drill, state, &mut stop).await;
    if let Some(own) = own {
        own.close().await;
    }
    outcome
}

fn failed(error: anyhow::Error) -> Failure {
    Failure::new(format!("{error:#}"))
}

/// On a real fabric: everything that can be in the way is looked for before anything is broken.
async fn on_fabric(global: &Global, args: &RunArgs, drill: &Drill) -> Outcome {
    let mut found = fabric::find(global).await?;
    let clouds = found.ground.clouds(&args.cloud).map_err(failed)?;
    run::enough(&drill.spec, &found.ground, &clouds).map_err(failed)?;
    let prepared = fabric::prepare(drill, &mut found, &clouds, args.lease).await.map_err(failed)?;
    if !prepared.confirmed(&found.name, args.yes)? {
        return Err(Failure::new("nothing was done: that is not the name of the fabric"));
    }
    // From here on, whoever stops this program stops the drill.
    let mut stop = Stop::listen().map_err(failed)?;
    let held: Vec<_> = prepared.held.iter().collect();
    let leases = Leases::take(drill.name.as_str(), args.lease, &held).await.map_err(failed)?;
    let (ground, hand) = (found.ground, Hand::Fabric(leases));
    let means = Means { ground, clouds, other_binary: None, leave: false, slack: args.slack };
    carry_out(global, args, &prepared.drill, means, hand, &mut stop).await
}

async fn on_playground(
    global: &Global,
    args: &RunArgs,
    drill: &Drill,
    state: State,
    stop: &mut Stop,
) -> Outcome {
    let other_binary =
        args.binary.as_ref().map(|binary| binary.canonicalize().unwrap_or_else(|_| binary.clone()));
    let ground = Ground::of_playground(state.clone());
    let clouds = ground.clouds(&args.cloud).map_err(failed)?;
    let means = Means { ground, clouds, other_binary, leave: args.leave, slack: args.slack };
    run::preflight(&drill.spec, &means).map_err(failed)?;
    if !args.fresh && !args.yes && !confirmed(drill, &state)? {
        return Ok(ExitCode::FAILURE);
    }
    let hand = Hand::Playground(Control::connect(&state).await.map_err(failed)?);
    carry_out(global, args, drill, means, hand, stop).await
}

/// Runs a drill, and reports.
async fn carry_out(
    global: &Global,
    args: &RunArgs,
    drill: &Drill,
    means: Means,
    hand: Hand,
    stop: &mut Stop,
) -> Outcome {
    let started = OffsetDateTime::now_utc().replace_nanosecond(0).unwrap_or(OffsetDateTime::UNIX_EPOCH);
    let started = started.format(&Rfc3339).unwrap_or_default();
    let shown = means.ground.shown.clone();
    let record = run::run(drill, means, hand, stop).await.map_err(failed)?;
    let report = Report::of(drill, &record, started, shown);
    if let Some(target) = &args.report {
        let page = write_report(target, &report).map_err(failed)?;
        let _ = writeln!(io::stderr(), "report: {}", page.display());
    }
    global.printer().show(&report, |_| report.text() + "\n")?;
    Ok(match report.end {
        _ if report.passed => ExitCode::SUCCESS,
        "interrupted" => ExitCode::from(INTERRUPTED),
        _ => ExitCode::from(CHECK_FAILED),
    })
}

/// Writes the page, and the JSON beside it. Returns where the page is.
fn write_report(target: &Path, report: &Report) -> anyhow::Result<PathBuf> {
    use anyhow::Context as _;
    let page = match target.extension().is_some_and(|x| x == "html") {
        true => target.to_owned(),
        false => target.join(format!("{}.html", report.scenario)),
    };
    if let Some(dir) = page.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir)
            .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    }
    let json = page.with_extension("json");
    std::fs::write(&page, page::html(report)).with_context(|| format!("cannot write {}", page.display()))?;
    let text = serde_json::to_vec_pretty(report)?;
    std::fs::write(&json, text).with_context(|| format!("cannot write {}", json.display()))?;
    Ok(page)
}

/// Asks on the terminal.
fn confirmed(drill: &Drill, state: &State) -> Outcome<bool> {
    let what = format!(
        "{} breaks the playground in {} ({} nodes) and mends it afterwards",
        drill.name,
        state.dir.display(),
        state.nodes.len()
    );
    if !io::stdin().is_terminal() {
        return Err(Failure::new(what).remedy("say --yes, as there is no terminal to ask on"));
    }
    let cannot = |error: io::Error| Failure::new(format!("cannot ask: {error}"));
    let mut err = io::stderr();
    write!(err, "{what}. Go on? [y/N] ").and_then(|()| err.flush()).map_err(cannot)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(cannot)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_goes_where_it_is_wanted() {
        let dir = tempfile::tempdir().expect("a directory");
        let report = report::tests::sample();
        let page = write_report(&dir.path().join("a/b"), &report).expect("written");
        assert_eq!(page, dir.path().join("a/b/sample.html"));
        assert!(dir.path().join("a/b/sample.json").exists());
        let page = write_report(&dir.path().join("c.html"), &report).expect("written");
        assert!(page.exists() && dir.path().join("c.json").exists());
    }
}
