//! `selvedge playground`: a whole fabric on one machine.
//!
//! Three clouds of real `selvedge node` processes, each with its own directory, joined by seed list and
//! token; the reference applications applied; for every service real HTTP servers. A playground drives its
//! nodes by the same commands that people type, so what it shows is what they get.
//!
//! As root every node and every endpoint has a network of its own, the clouds are joined by a wide area, and
//! packets are real ([`networks`]). Otherwise everything shares the loopback device, each endpoint with an
//! address of its own there, and nothing is enforced.
//!
//! It leaves nothing behind: nodes cannot outlive it ([`process`]), its directory goes with it
//! ([`home`]), and its ports are held by a lock that the kernel releases ([`ports`]). A node that dies stays
//! dead; only what a drill broke is mended when that drill ends ([`control`]).

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use selvedge_fabric::id::ZoneName;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod bringup;
mod catalog;
mod check;
mod cloud_loss;
mod config;
pub(crate) mod control;
mod doors;
pub(crate) mod driver;
mod endpoint;
mod exec;
pub(crate) mod fabric;
mod home;
mod layout;
mod means;
mod networks;
mod picture;
mod placement;
mod ports;
pub(crate) mod process;
pub(crate) mod progress;
mod proof;
mod serving;
pub(crate) mod state;

pub(crate) use picture::plain_table;

use bringup::{Blueprint, Up, bring_up};
use catalog::Catalog;
use driver::Selvedge;
use fabric::{Fabric, info_of};
use home::Home;
use layout::{Network, Shape, lay_out, sockets_fit};
use means::Means;
use ports::PortBlock;
use progress::Progress;
use state::State;

/// Exit code when `--check` fails.
pub(crate) const CHECK_FAILED: u8 = 5;

/// Exit code when it is stopped before it was ready or had proved itself; as of shells for SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Run a whole fabric on this machine.
#[derive(Debug, Clone, clap::Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:
  selvedge playground                          three clouds, until Ctrl-C
  sudo selvedge playground                     the same with real packets, decided by eBPF
  selvedge playground --check                  prove that it works, then exit
  selvedge playground --clouds a,b,c,d --workloads 2
  selvedge drill run cloud-loss --cloud aws    in another terminal
  sudo selvedge playground exec http-proxy@voting-app -- \\
      curl http://voting-frontend.voting-app.fabric.internal"
)]
pub(crate) struct PlaygroundArgs {
    #[command(subcommand)]
    then: Option<Then>,
    /// The clouds, as cloud or cloud/region
    #[arg(long, value_delimiter = ',', default_value = "aws,azr,gcp")]
    clouds: Vec<ZoneName>,
    /// Processors in each cloud
    #[arg(long, value_name = "N", default_value_t = 2)]
    processors: usize,
    /// Workload nodes in each cloud
    #[arg(long, value_name = "N", default_value_t = 0)]
    workloads: usize,
    /// Keep everything in this directory while running [default: a temporary one]
    #[arg(long, value_name = "D")]
    dir: Option<PathBuf>,
    /// Apply these manifests in place of the two reference applications
    #[arg(long, value_name = "F")]
    graph: Vec<PathBuf>,
    /// Prove that everything works, lose a cloud, and exit: 0 when all is well, 5 otherwise
    #[arg(long)]
    check: bool,
    /// No real packets, even as root
    #[arg(long)]
    rootless: bool,
    /// Append this TOML to the configuration of every node
    #[arg(long, value_name = "F", hide_short_help = true)]
    node_config: Option<PathBuf>,
}

/// What is done in a playground that runs.
#[derive(Debug, Clone, clap::Subcommand)]
enum Then {
    /// Run a program as an endpoint: in its network, under its service; needs root
    Exec {
        /// An endpoint, or a service whose first endpoint it is
        endpoint: String,
        /// The program and its arguments
        #[arg(last = true, required = true, value_name = "PROGRAM")]
        program: Vec<OsString>,
        /// Directory of the playground [default: the one of this user that was ready last]
        #[arg(long, value_name = "D")]
        dir: Option<PathBuf>,
    },
}

/// Runs a playground until it is told to stop. `json` prints one JSON line when it is ready.
pub(crate) async fn run(args: PlaygroundArgs, json: bool) -> anyhow::Result<ExitCode> {
    if let Some(Then::Exec { endpoint, program, dir }) = args.then {
        return exec::exec(&State::find(dir.as_deref())?, &endpoint, &program);
    }
    let mut stop = Stop::listen()?;
    let mut ground = Ground::prepare(&args)?;
    let outcome = tokio::select! {
        outcome = ground.live(&args, json) => outcome,
        () = stop.asked() => Ok(ExitCode::from(INTERRUPTED)),
    };
    // Being stopped is how a playground ends, once it is up and has nothing to prove.
    let outcome = outcome.map(|code| if ground.idle { ExitCode::SUCCESS } else { code });
    ground.close().await;
    outcome
}

/// A playground with all that must be given back.
struct Ground {
    selvedge: Selvedge,
    ports: PortBlock,
    blueprint: Blueprint,
    fabric: Fabric,
    home: Home,
    /// What it does without, and why.
    without: Option<String>,
    /// It is up and only waits to be stopped.
    idle: bool,
}

impl Ground {
    /// Works out what is to be, and claims directory and ports. Starts nothing.
    fn prepare(args: &PlaygroundArgs) -> anyhow::Result<Self> {
        let shape =
            Shape { clouds: args.clouds.clone(), processors: args.processors, workloads: args.workloads };
        let slots = shape.slots()?;
        let graphs = catalog::load(&args.graph)?;
        let catalog = Catalog::of_graphs(&graphs)?;
        let placed = placement::place(&catalog.services, &slots);
        let extra_config = match &args.node_config {
            Some(file) => std::fs::read_to_string(file)
                .with_context(|| format!("cannot read node configuration {}", file.display()))?,
            None => String::new(),
        };
        let selvedge = Selvedge::this()?;
        let ports = PortBlock::claim(slots.len(), placed.iter().map(|p| p.ports.len()).sum())?;
        let Means { networks, without } = Means::of(&slots, args.rootless);
        let names = slots.iter().map(|s| s.name.to_string()).collect();
        let mut home = Home::claim(args.dir.as_deref(), names)?;
        let fits = sockets_fit(&slots, home.root());
        let short_dir = if fits { None } else { Some(home.short_dir()?.to_owned()) };
        let layout = networks.as_ref().map_or_else(|| vec![Network::Host; slots.len()], |n| n.layout());
        let slots = slots.into_iter().zip(layout).collect();
        let plans = lay_out(slots, home.root(), short_dir.as_deref(), &ports);
        let fabric = Fabric::new(selvedge.clone(), extra_config, networks);
        let blueprint = Blueprint { plans, graphs, catalog, placed };
        let ground = Self { selvedge, ports, blueprint, fabric, home, without, idle: false };
        // From now on a killed playground is recognized by its next one, which clears what it left.
        ground.state(None).save()?;
        Ok(ground)
    }

    /// What is to be told of the playground, ready or not.
    fn state(&self, up: Option<&Up>) -> State {
        let planned = || self.blueprint.plans.iter().map(|plan| info_of(plan, 0)).collect();
        State {
            ready: up.is_some(),
            suffix: up.map(|up| up.suffix.clone()).unwrap_or_default(),
            nodes: up.map_or_else(planned, |up| up.nodes.clone()),
            endpoints: self.fabric.endpoints().iter().map(|served| served.info.clone()).collect(),
            without: self.without.clone(),
            contracts: self.blueprint.catalog.dns_names(),
            uses: self.blueprint.catalog.uses(),
            control: PathBuf::new(),
            dir: self.home.root().to_owned(),
            pid: std::process::id(),
        }
    }

    /// Brings it up, tells so, and then checks it or lets it run.
    async fn live(&mut self, args: &PlaygroundArgs, json: bool) -> anyhow::Result<ExitCode> {
        let progress = Progress::start();
        if let Some(why) = &self.without {
            progress.done(&format!("no real packets: {why}"));
        }
        let (blueprint, home, ports) = (&self.blueprint, &self.home, &self.ports);
        let up = bring_up(blueprint, &mut self.fabric, &self.selvedge, home, ports, &progress).await?;
        let took = progress.elapsed();
        let mut state = self.state(Some(&up));
        let (control, socket) = control::listen(&self.control_dir()?)?;
        state.control = socket;
        self.home.publish(&state)?;
        if json {
            emit(&serde_json::to_string(&state)?);
        }
        if args.check {
            let served = self.fabric.endpoints();
            let report =
                check::prove(&self.selvedge, &state, &self.blueprint.catalog, served, &progress).await;
            drop(progress);
            emit(&if json { serde_json::to_string(&report)? } else { picture::report(&report) });
            return Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::from(CHECK_FAILED) });
        }
        drop(progress);
        if !json {
            emit(&picture::ready(&state, took));
        }
        self.idle = true;
        self.fabric.tell_deaths();
        control::serve(&control, &mut self.fabric, &mut state).await;
        Ok(ExitCode::SUCCESS)
    }

    /// Where the socket for drills can be.
    fn control_dir(&mut self) -> anyhow::Result<PathBuf> {
        let root = self.home.root().to_owned();
        let fits = layout::socket_fits(&root.join(control::SOCKET));
        Ok(if fits { root } else { self.home.short_dir()?.to_owned() })
    }

    /// Ends every process and task, then removes every file.
    async fn close(self) {
        let Self { fabric, home, .. } = self;
        fabric.shutdown().await;
        // Only now: a node that still ran could write into its directory while it is removed.
        drop(home);
    }
}

/// Prints to standard output; a reader that has gone is no error.
pub(crate) fn emit(text: &str) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// The signals that end a playground or a drill.
pub(crate) struct Stop([Signal; 3]);

impl Stop {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let on = |kind| signal(kind).context("cannot listen for signals");
        // SIGHUP: the terminal was closed.
        Ok(Self([on(SignalKind::interrupt())?, on(SignalKind::terminate())?, on(SignalKind::hangup())?]))
    }

    pub(crate) async fn asked(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
