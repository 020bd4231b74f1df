//! The composition root: the only place where the subsystems meet.
//!
//! `run` opens what is on disk, starts transport, replica, membership, DNS and API in the order in
//! which they need each other, wires their snapshots together, and takes everything down in reverse.
//! No start-time step needs another node: a node with an identity on disk starts alone.

mod admission;
mod lock;
mod overlay;
mod parts;
mod ports;
mod release;
mod rollouts;
mod serve;
mod tasks;
mod tls;
mod tun;
mod workloads;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use selvedge_consensus::{Proposal, Replica};
use selvedge_dns::Dns;
use selvedge_fabric::{command::Command, key::CommandId};
use selvedge_membership::Membership;
use selvedge_transport::Transport;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::overlay::OverlayCell;
use self::{
    admission::Admitted,
    overlay::Circuit,
    parts::{Parts, Reached},
    ports::Held,
    workloads::Snapshots,
};
use crate::{
    backend::Node,
    config::NodeConfig,
    endpoints::Endpoints,
    files,
    follow::PolicySource,
    identity::DataDir,
    reconcile::{Judges, Planner},
    renew::CertificateClock,
    watchdog::{Looking, Watchdog},
};

/// Runs a node until `stop`.
///
/// # Errors
/// When it cannot start, with what stands in the way and what to do.
pub async fn run(config: NodeConfig, stop: CancellationToken) -> anyhow::Result<()> {
    config.check()?;
    tracing::info!("configuration:\n{}", config.to_toml().trim_end());
    let dir = DataDir::open(&config.data_dir)?;
    let _lock = lock::exclusive(&dir)?;
    let (held, reached) = (Held::take(&config.listen)?, Reached::new(&config));
    let admitted = admission::identify(&config, &dir, &reached.fabric).await?;
    let node = Daemon::start(config, dir, admitted, reached, held).await?;
    let lost = tokio::select! {
        () = stop.cancelled() => None,
        lost = node.watchdog.lost() => Some(lost),
    };
    match lost {
        None => node.stop().await,
        // What is left of it may not be able to.
        Some(_) => _ = tokio::time::timeout(STOP_LIMIT, node.stop()).await,
    }
    lost.map_or(Ok(()), |lost| bail!("{lost}. Start the node again, and report it with its log"))
}

/// Time for a daemon that lost one of its tasks to take down the others.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Everything that runs, for as long as it runs.
struct Daemon {
    transport: Transport,
    source: PolicySource,
    membership: Membership,
    dns: Arc<Dns>,
    overlay: OverlayCell,
    tasks: TaskTracker,
    stop: CancellationToken,
    watchdog: Watchdog,
    _looking: Looking,
}

impl Daemon {
    async fn start(
        config: NodeConfig,
        dir: DataDir,
        admitted: Admitted,
        reached: Reached,
        held: Held,
    ) -> anyhow::Result<Self> {
        let Admitted { identity, key, sealing } = admitted;
        let started = Instant::now();
        let parts = Parts::new(config, dir, (identity, Arc::new(key)), reached);
        let _looking = parts.watchdog.look().context("watchdog")?;

        drop(held.fabric);
        let bound = parts.bind()?;
        let (liveness, liveness_rx) = parts::liveness_channel();
        let source = parts.open_policy(&bound, liveness_rx).await?;
        let revocations = parts.open_revocations(&bound, &source)?;
        drop(held.gossip);
        let membership = parts.start_membership(&bound.transport, &source, &revocations).await?;
        let endpoints = Endpoints::open(&parts.dir)?;

        let (local, local_rx) = watch::channel(parts.recall(&endpoints, &membership).await?);
        let mut planner =
            Planner::new(source.policy(), revocations.known(), membership.view(), source.status(), local_rx);
        let (plan, plan_rx) = watch::channel(Arc::new(planner.plan()));
        let (packets, dns) = (parts.packets(plan_rx.clone()), parts.start_dns(plan_rx.clone()).await?);
        parts.enforce_first(&packets, &plan_rx, &local).await?;
        let overlay = OverlayCell::default();
        let (routing, routing_rx) = watch::channel(Arc::clone(&plan_rx.borrow().routing));
        let judges = Judges { routing, overlay: overlay.clone(), packets: packets.clone() };
        parts.start_reconcile(planner, plan, judges, &membership);

        let (ways, gates) = (overlay.clone(), packets.clone());
        let circuit = Circuit { plan: plan_rx.clone(), routing: routing_rx, overlay: ways, packets: gates };
        parts.start_overlay(&bound, &source, &membership, &sealing, circuit, local.clone());
        parts.start_roles(&bound, &source, &membership, sealing, liveness);
        parts.start_carriers(&bound, revocations.enforced(), &membership, &endpoints);

        let snapshots = Snapshots { policy: source.policy(), plan: plan_rx.clone(), local };
        let workloads = parts.start_workloads(&packets, &dns, &endpoints, snapshots).await?;
        let credentials = bound.credentials.subscribe();
        let node = Arc::new(Node {
            identity: parts.identity.clone(),
            source: source.clone(),
            revocations,
            membership: membership.clone(),
            plan: plan_rx.clone(),
            endpoints,
            attachments: workloads.attachments.clone(),
            packets,
            flows: workloads.flows.clone(),
            events: parts.events.clone(),
            started,
            isolation: parts.start_isolation(&bound, &source),
            listening: serve::listening(&parts.config, &bound.transport, &dns),
            certificate: CertificateClock::new(credentials.clone()),
            advertised: parts.reached.fabric.clone(),
            watches: parts.start_watches(plan_rx, &membership),
            metrics: serve::metrics(&bound.transport, &membership, &dns, &overlay),
            overlay: overlay.clone(),
            watchdog: parts.watchdog.clone(),
        });
        parts.start_api(node, &workloads, credentials).await?;
        if let Some(replica) = source.replica() {
            bootstrap(&parts.dir, replica).await?;
        }
        tracing::info!(node = %parts.identity.node, "started");
        let (Parts { tasks, stop, watchdog, .. }, transport) = (parts, bound.transport);
        Ok(Self { transport, source, membership, dns, overlay, tasks, stop, watchdog, _looking })
    }

    /// Takes everything down, in the reverse order of starting.
    async fn stop(self) {
        tracing::info!("stopping");
        if let Some(replica) = self.source.replica() {
            replica.retire().await;
        }
        self.stop.cancel();
        self.tasks.close();
        self.dns.shutdown().await;
        if let Some(overlay) = self.overlay.get() {
            overlay.shutdown().await;
        }
        self.membership.shutdown().await;
        self.source.shutdown().await;
        self.transport.close().await;
        self.tasks.wait().await;
    }
}

/// Commits the first command of a fabric that `fabric init` prepared.
async fn bootstrap(dir: &DataDir, replica: &Replica) -> anyhow::Result<()> {
    let path = dir.bootstrap();
    let Some(bytes) = files::read_optional(&path)? else { return Ok(()) };
    let command: Command = serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?;
    if replica.policy().borrow().params.is_none() {
        let proposal = Proposal { id: CommandId(rand::random()), actor: "init".to_owned(), command };
        replica.bootstrap(proposal).await.context("the first command of the fabric")?;
    }
    Ok(files::remove_if_there(&path)?)
}
