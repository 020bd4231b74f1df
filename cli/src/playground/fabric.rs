//! The running nodes and endpoints of a playground.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use selvedge_node::api::types::TokenCreated;
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

/// A node that was started.
struct Running {
    plan: NodePlan,
    process: NodeProcess,
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
    /// Real packets, when there are any. The last to go.
    networks: Option<Networks>,
}

impl Fabric {
    /// A fabric without nodes, in networks of their own or all on this host.
    pub(crate) fn new(selvedge: Selvedge, extra_config: String, networks: Option<Networks>) -> Self {
        let (nodes, endpoints) = (Vec::new(), Vec::new());
        Self { selvedge, extra_config, nodes, endpoints, tasks: TaskTracker::new(), networks }
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
        let mut command = self.selvedge.node_run(&plan.config_file());
        let mut doors = None;
        if let Some(networks) = &self.networks {
            networks.of(plan)?.enter(&mut command);
            doors = Some(networks.doors(plan).await?);
        }
        let started = NodeProcess::spawn(command, &plan.log_file()).await;
        let process = started.with_context(|| format!("node {}", plan.name()))?;
        let host = CancellationToken::new();
        let (exit, dead) = (process.exit(), host.clone());
        self.tasks.spawn(async move {
            ended(exit).await;
            dead.cancel();
        });
        self.nodes.push(Running { plan: plan.clone(), process, host, _doors: doors });
        Ok(())
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
