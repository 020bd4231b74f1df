//! The running nodes and endpoints of a playground.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_node::api::types::TokenCreated;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    config::{Entry, node_toml},
    doors::Doors,
    driver::Selvedge,
    home::{Home, write_private},
    layout::NodePlan,
    networks::Networks,
    placement::Placed,
    process::{NodeProcess, ended, log_tail},
    serving::{Served, Server},
    state::NodeInfo,
};

/// Name of a playground's fabric.
pub(crate) const FABRIC: &str = "playground";
/// Loopback addresses, of which anybody may bind any: endpoints need no root.
const LOOPBACK_POOL: &str = "127.64.0.0/10";
/// How long a join token is good for; every node joins within the first minute.
const JOIN_TTL: &str = "1h";
/// How long the tasks of endpoints may take to end once they are cancelled; they only have to be polled.
const TASKS_END_LIMIT: Duration = Duration::from_secs(3);

/// How long a daemon may take to end in good order before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(15);
/// Where Debian and others put the library by which a node's clock is set wrong.
const FAKETIME: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib64/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];

/// How a node is started again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Launch {
    /// With another program.
    pub(crate) binary: Option<PathBuf>,
    /// With a clock that is wrong by this, `+10m`.
    pub(crate) clock: Option<String>,
}

impl Launch {
    /// The library that sets clocks wrong, if it is installed.
    pub(crate) fn clock_library() -> Option<&'static Path> {
        FAKETIME.iter().map(Path::new).find(|path| path.exists())
    }

    fn equip(&self, command: &mut std::process::Command) -> anyhow::Result<()> {
        let Some(clock) = &self.clock else { return Ok(()) };
        let clock: selvedge_fabric::drill::Clock = clock.parse().map_err(anyhow::Error::msg)?;
        let library = Self::clock_library()
            .context("a clock can be set wrong only with libfaketime: apt install libfaketime")?;
        let sign = if clock.ahead { '+' } else { '-' };
        command.env("LD_PRELOAD", library);
        command.env("FAKETIME", format!("{sign}{:.3}", clock.by.ms() as f64 / 1e3));
        // Only what the date is: timers go on as they should.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        Ok(())
    }
}

/// What a node does, as far as the playground meant it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Runs,
    Paused,
    Killed,
}

/// How the end of a process is taken.
#[derive(Debug, Default)]
struct Fate {
    /// It was meant to end.
    meant: AtomicBool,
    /// Only the daemon ends; its host, and the workloads on it, stay.
    host_stays: AtomicBool,
}

/// A node that was started.
struct Running {
    plan: NodePlan,
    process: NodeProcess,
    fate: Arc<Fate>,
    condition: Condition,
    /// Cancelled when the process has ended: the host of its endpoints is dead.
    host: CancellationToken,
    /// How its API and DNS are reached from the host, when it has a network of its own.
    _doors: Option<Doors>,
}

/// Everything of a playground that runs.
pub(crate) struct Fabric {
    selvedge: Selvedge,
    /// Appended to every node's configuration.
    extra_config: String,
    nodes: Vec<Running>,
    endpoints: Vec<Served>,
    tasks: TaskTracker,
    /// Deaths are told from now on.
    telling: Arc<AtomicBool>,
    /// Real packets, when there are any. The last to go.
    networks: Option<Networks>,
}

impl Fabric {
    /// A fabric without nodes, in networks of their own or all on this host.
    pub(crate) fn new(selvedge: Selvedge, extra_config: String, networks: Option<Networks>) -> Self {
        let (nodes, endpoints) = (Vec::new(), Vec::new());
        let (tasks, telling) = (TaskTracker::new(), Arc::default());
        Self { selvedge, extra_config, nodes, endpoints, tasks, telling, networks }
    }

    /// Creates the fabric on its first node and starts that.
    pub(crate) async fn found(&mut self, plan: &NodePlan, home: &Home) -> anyhow::Result<()> {
        home.make_dir(&plan.dir)?;
        let (zone, data) = (plan.slot.zone.to_string(), plan.data_dir());
        let data = data.to_string_lossy();
        let mut args = vec!["fabric", "init", "--name", FABRIC, "--node", plan.name(), "--zone", &zone];
        args.extend(["--data-dir", &data]);
        if self.networks.is_none() {
            args.extend(["--ipv4-pool", LOOPBACK_POOL]);
        }
        let _: serde_json::Value = self.selvedge.json(&args).await?;
        self.start(plan, Entry::Founder).await
    }

    /// Gets a token for another node from the first one, and starts it.
    pub(crate) async fn join(&mut self, plan: &NodePlan, home: &Home) -> anyhow::Result<()> {
        let first = self.first()?;
        let (seed, socket) = (first.plan.seed(), first.plan.socket.clone());
        let (zone, role) = (plan.slot.zone.to_string(), plan.slot.role.as_str());
        let args = ["token", "join", "--role", role, "--zone", &zone, "--uses", "1", "--ttl", JOIN_TTL];
        let created: TokenCreated = self.selvedge.ask(&socket, &args).await?;
        home.make_dir(&plan.dir)?;
        write_private(&plan.join_token_file(), &created.token)?;
        self.start(plan, Entry::Joins(seed)).await
    }

    async fn start(&mut self, plan: &NodePlan, entry: Entry) -> anyhow::Result<()> {
        write_private(&plan.config_file(), &node_toml(plan, entry, &self.extra_config))?;
        let host = CancellationToken::new();
        let (process, fate) = self.spawn(plan, &Launch::default(), &host).await?;
        let doors = match &self.networks {
            Some(networks) => Some(networks.doors(plan).await?),
            None => None,
        };
        let condition = Condition::Runs;
        self.nodes.push(Running { plan: plan.clone(), process, fate, condition, host, _doors: doors });
        Ok(())
    }

    /// Starts the process of a node. When it ends, `host` does, unless its fate is another.
    async fn spawn(
        &self,
        plan: &NodePlan,
        launch: &Launch,
        host: &CancellationToken,
    ) -> anyhow::Result<(NodeProcess, Arc<Fate>)> {
        let mut command = self.selvedge.node_run(launch.binary.as_deref(), &plan.config_file());
        launch.equip(&mut command)?;
        if let Some(networks) = &self.networks {
            networks.of(plan)?.enter(&mut command);
        }
        let started = NodeProcess::spawn(command, &plan.log_file()).await;
        let process = started.with_context(|| format!("node {}", plan.name()))?;
        let fate = Arc::new(Fate::default());
        let (exit, dead, name) = (process.exit(), host.clone(), plan.name().to_owned());
        let (telling, meant) = (Arc::clone(&self.telling), Arc::clone(&fate));
        self.tasks.spawn(async move {
            let how = ended(exit).await;
            if !meant.host_stays.load(Ordering::SeqCst) {
                dead.cancel();
            }
            if telling.load(Ordering::SeqCst) && !meant.meant.load(Ordering::SeqCst) {
                tell(&format!("node {name} is dead ({how}), and its endpoints with it"));
            }
        });
        Ok((process, fate))
    }

    /// Says from now on which nodes die.
    pub(crate) fn tell_deaths(&self) {
        self.telling.store(true, Ordering::SeqCst);
    }

    /// The networks of the nodes.
    pub(crate) fn networks(&self) -> anyhow::Result<&Networks> {
        self.networks.as_ref().context("this playground has no real packets: start it as root")
    }

    fn find(&mut self, name: &str) -> anyhow::Result<&mut Running> {
        let found = self.nodes.iter_mut().find(|node| node.plan.name() == name);
        found.with_context(|| format!("there is no node {name}"))
    }

    /// Kills a node and its workloads.
    pub(crate) async fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.find(name)?;
        node.fate.meant.store(true, Ordering::SeqCst);
        node.condition = Condition::Killed;
        node.process.kill().await;
        Ok(())
    }

    /// Starts a dead node again, and its workloads.
    pub(crate) async fn revive(&mut self, name: &str, launch: &Launch) -> anyhow::Result<()> {
        let node = self.find(name)?;
        ensure!(node.process.has_ended(), "node {name} runs");
        let (plan, host) = (node.plan.clone(), CancellationToken::new());
        let (process, fate) = self.spawn(&plan, launch, &host).await?;
        let node = self.find(name)?;
        (node.process, node.fate, node.host) = (process, fate, host.clone());
        node.condition = Condition::Runs;
        for served in self.endpoints.iter().filter(|served| served.info.node == name) {
            served.again(&plan, &host, &self.tasks).await?;
        }
        Ok(())
    }

    /// Ends a daemon in good order and starts it again; its workloads stay.
    pub(crate) async fn restart(&mut self, name: &str, launch: &Launch) -> anyhow::Result<()> {
        let node = self.find(name)?;
        if node.process.has_ended() {
            bail!("node {name} is dead");
        }
        if node.condition == Condition::Paused {
            send(node, Signal::CONT)?;
        }
        node.fate.meant.store(true, Ordering::SeqCst);
        node.fate.host_stays.store(true, Ordering::SeqCst);
        send(node, Signal::TERM)?;
        if timeout(STOP_LIMIT, ended(node.process.exit())).await.is_err() {
            node.process.kill().await;
        }
        let (plan, host) = (node.plan.clone(), node.host.clone());
        let (process, fate) = self.spawn(&plan, launch, &host).await?;
        let node = self.find(name)?;
        (node.process, node.fate, node.condition) = (process, fate, Condition::Runs);
        Ok(())
    }

    /// Stops a node in its tracks.
    pub(crate) fn pause(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.find(name)?;
        ensure!(!node.process.has_ended(), "node {name} is dead");
        send(node, Signal::STOP)?;
        node.condition = Condition::Paused;
        Ok(())
    }

    /// Lets a paused node go on.
    pub(crate) fn resume(&mut self, name: &str) -> anyhow::Result<()> {
        let node = self.find(name)?;
        ensure!(!node.process.has_ended(), "node {name} is dead");
        send(node, Signal::CONT)?;
        node.condition = Condition::Runs;
        Ok(())
    }

    /// Mends everything that was broken on purpose; what cannot be is told.
    pub(crate) async fn heal(&mut self) {
        if let Some(Err(error)) = self.networks.as_ref().map(Networks::mend) {
            tell(&format!("the network cannot be mended: {error:#}"));
        }
        let broken: Vec<_> = self.nodes.iter().map(|n| (n.plan.name().to_owned(), n.condition)).collect();
        for (name, condition) in broken {
            let healed = match condition {
                Condition::Runs => Ok(()),
                Condition::Paused => self.resume(&name),
                Condition::Killed => self.revive(&name, &Launch::default()).await,
            };
            if let Err(error) = healed {
                tell(&format!("{error:#}"));
            }
        }
    }

    fn first(&self) -> anyhow::Result<&Running> {
        self.nodes.first().context("no node was started")
    }

    /// The endings of all nodes, for watching them while something else is awaited.
    pub(crate) fn watches(&self) -> Vec<Watch> {
        let watch = |n: &Running| Watch { plan: n.plan.clone(), exit: n.process.exit() };
        self.nodes.iter().map(watch).collect()
    }

    /// The nodes, for the ready line.
    pub(crate) fn infos(&self) -> Vec<NodeInfo> {
        let info = |n: &Running| info_of(&n.plan, n.process.pid());
        self.nodes.iter().map(info).collect()
    }

    /// Puts an endpoint onto its node. On the host its ports are at those of `local`.
    pub(crate) async fn serve(
        &self,
        placed: &Placed,
        local: &[SocketAddr],
        token_file: &str,
        home: &Home,
    ) -> anyhow::Result<Served> {
        let node = self.nodes.get(placed.node).context("an endpoint of a node that was not started")?;
        let (selvedge, tasks) = (&self.selvedge, &self.tasks);
        let server = Server { selvedge, home, plan: &node.plan, host: &node.host, tasks };
        match &self.networks {
            Some(_) => server.in_network(placed, token_file).await,
            None => server.on_loopback(placed, local, token_file).await,
        }
    }

    /// Keeps what is served.
    pub(crate) fn keep(&mut self, endpoints: Vec<Served>) {
        self.endpoints = endpoints;
    }

    /// What is served.
    pub(crate) fn endpoints(&self) -> &[Served] {
        &self.endpoints
    }

    /// Kills every node and ends every task.
    pub(crate) async fn shutdown(self) {
        self.telling.store(false, Ordering::SeqCst);
        for node in &self.nodes {
            node.process.kill().await;
            node.host.cancel();
        }
        self.tasks.close();
        if timeout(TASKS_END_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "endpoint tasks did not end in time");
        }
    }
}

fn send(node: &Running, signal: Signal) -> anyhow::Result<()> {
    let pid =
        i32::try_from(node.process.pid()).ok().and_then(Pid::from_raw).context("an impossible process id")?;
    kill_process(pid, signal).with_context(|| format!("cannot signal node {}", node.plan.name()))
}

/// A closed standard error is no reason to stop.
fn tell(what: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "{what}");
}

/// What the ready line says of a node.
pub(crate) fn info_of(plan: &NodePlan, pid: u32) -> NodeInfo {
    NodeInfo {
        name: plan.name().to_owned(),
        zone: plan.slot.zone.to_string(),
        role: plan.slot.role.as_str().to_owned(),
        pid,
        socket: plan.socket.clone(),
        api: format!("https://{}", plan.api),
        dns: plan.dns,
    }
}

/// Sees the end of a node.
pub(crate) struct Watch {
    plan: NodePlan,
    exit: tokio::sync::watch::Receiver<Option<String>>,
}

impl Watch {
    /// Waits until the node has ended; returns its name and how it ended.
    pub(crate) async fn ended(self) -> (NodePlan, String) {
        let how = ended(self.exit).await;
        (self.plan, how)
    }
}

/// Waits for the first of the nodes that ends, which none should, and explains it from its log.
pub(crate) async fn first_to_end(watches: Vec<Watch>) -> anyhow::Error {
    let mut ends = tokio::task::JoinSet::new();
    for watch in watches {
        ends.spawn(watch.ended());
    }
    match ends.join_next().await {
        Some(Ok((plan, how))) => anyhow::anyhow!(
            "node {} ended ({how}); the last lines of its log:\n{}",
            plan.name(),
            log_tail(&plan.log_file())
        ),
        Some(Err(error)) => error.into(),
        None => std::future::pending().await,
    }
}
