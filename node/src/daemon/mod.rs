//! The composition root: the only place where the subsystems meet.
//!
//! `run` opens what is on disk, starts transport, replica, membership, DNS and API in the order in
//! which they need each other, wires their snapshots together, and takes everything down in reverse.
//! No start-time step needs another node: a node with an identity on disk starts alone.

mod admission;
mod lock;
mod release;
mod serve;
mod tasks;
mod tls;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use anyhow::Context;
use selvedge_consensus::{Proposal, Replica};
use selvedge_dns::Dns;
use selvedge_fabric::{
    command::{Command, Role},
    key::{CommandId, Signer},
    planner::Local,
    record::Presence,
};
use selvedge_membership::Membership;
use selvedge_transport::{Alpn, Transport};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::admission::Admitted;
use crate::{
    backend::{Node, Watches},
    config::{self, NodeConfig},
    endpoints::Endpoints,
    enroll::server::{Enroller, JoinHandler, RenewHandler},
    events::Events,
    files,
    gate::PolicyGate,
    identity::{Contact, DataDir},
    issuer::IssuerSource,
    reconcile::{self, Planner},
    renew::{CertificateClock, Renewal},
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
    let reached = Reached::new(&config);
    let admitted = admission::identify(&config, &dir, &reached.fabric).await?;
    let node = Daemon::start(config, dir, admitted, reached).await?;
    stop.cancelled().await;
    node.stop().await;
    Ok(())
}

/// Where others reach this node.
struct Reached {
    fabric: Vec<SocketAddr>,
    gossip: Vec<SocketAddr>,
    api: Vec<SocketAddr>,
}

impl Reached {
    fn new(config: &NodeConfig) -> Self {
        let outward = serve::outward_address(&config.seeds);
        let (listen, own) = (&config.listen, &config.advertise);
        Self {
            fabric: config::advertised(&own.fabric, listen.fabric, outward),
            gossip: config::advertised(&own.gossip, listen.gossip, outward),
            api: config::advertised(&own.api, listen.api, outward),
        }
    }
}

/// Everything that runs, for as long as it runs.
struct Daemon {
    transport: Transport,
    replica: Replica,
    membership: Membership,
    dns: Arc<Dns>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Daemon {
    async fn start(
        config: NodeConfig,
        dir: DataDir,
        admitted: Admitted,
        reached: Reached,
    ) -> anyhow::Result<Self> {
        let Admitted { identity, key, sealing } = admitted;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (events, started, key) = (Events::default(), Instant::now(), Arc::new(key));
        let me = identity.node.clone();
        let spawn = |task| tasks.spawn(stop.clone().run_until_cancelled_owned(task));

        let gate = Arc::new(PolicyGate::new(identity.contacts.clone()));
        let (credentials, credentials_rx) = watch::channel(Arc::new(identity.credentials(&key)));
        let transport = Transport::bind(selvedge_transport::Options {
            listen: config.listen.fabric,
            fabric: identity.fabric.clone(),
            me: Some(me.clone()),
            credentials: credentials_rx.clone(),
            gate: gate.clone(),
            events: Arc::new(events.clone()),
        })
        .with_context(|| format!("fabric port {}", config.listen.fabric))?;
        for contact in &identity.contacts {
            transport.book().set(&contact.name, contact.fabric.clone());
        }

        let (liveness, liveness_rx) = watch::channel(Arc::new(BTreeMap::new()));
        let replica = Replica::open(selvedge_consensus::Options {
            dir: dir.raft(),
            me: me.clone(),
            signer: key.clone(),
            transport: transport.clone(),
            liveness: liveness_rx,
            timers: serve::raft_timers(config.timers.profile),
            events: Arc::new(events.clone()),
        })
        .await
        .context("policy replica")?;
        let policy = replica.policy();
        gate.follow(policy.clone());
        transport.recheck();
        let issuer = Arc::new(IssuerSource::new(me.clone(), sealing));
        issuer.follow(policy.clone());

        let membership = Membership::start(selvedge_membership::Options {
            dir: dir.facts(),
            me: me.clone(),
            signer: key.clone(),
            fabric: identity.fabric_id,
            epoch: replica.status().borrow().fence_epoch,
            gossip_listen: config.listen.gossip,
            node_key_seed: key.seed(),
            transport: transport.clone(),
            policy: policy.clone(),
            timers: serve::membership_timers(config.timers.profile),
            events: Arc::new(events.clone()),
        })
        .await
        .context("membership")?;
        membership
            .set_gossip_seeds(identity.contacts.iter().map(|c| (c.name.clone(), c.gossip.clone())).collect());
        let view = membership.view();

        let endpoints = Endpoints::open(&dir)?;
        // No TUN and nothing attached yet: an endpoint asks from its own loopback address.
        let local = Local { me: Some(me.clone()), ..Local::default() };
        let mut planner = Planner::new(policy.clone(), view.clone(), replica.status(), local);
        let (plan, plan_rx) = watch::channel(Arc::new(planner.plan()));
        let options = serve::dns_options(&config.dns, &config.listen.dns, plan_rx.clone(), &events);
        let dns = Arc::new(Dns::start(options).await.context("DNS")?);

        let certificate = CertificateClock::new(credentials_rx.clone());
        let renewal = Renewal {
            dir: dir.clone(),
            identity: identity.clone(),
            key: key.clone(),
            issuer: issuer.clone(),
            lifetime: config.certificates.lifetime,
            credentials,
            transport: transport.clone(),
            view: view.clone(),
            events: events.clone(),
        };
        tasks.spawn(renewal.run(stop.clone()));
        if identity.role == Role::Processor {
            let enroller = Arc::new(Enroller {
                replica: replica.clone(),
                view: view.clone(),
                issuer,
                events: events.clone(),
                lifetime: config.certificates.lifetime,
                gate,
                me: Contact {
                    name: me.clone(),
                    key: key.public_key(),
                    role: identity.role,
                    fabric: reached.fabric.clone(),
                    gossip: reached.gossip.clone(),
                },
                transport: transport.clone(),
            });
            transport.handle(Alpn::Join, Arc::new(JoinHandler(enroller.clone())));
            transport.handle(Alpn::Renew, Arc::new(RenewHandler(enroller)));
        }
        tasks.spawn(reconcile::run(planner, plan, membership.clone(), stop.clone()));
        endpoints.start_checks(&tasks, stop.clone());
        spawn(Box::pin(tasks::recheck_connections(policy.clone(), transport.clone())) as Carrier);
        spawn(Box::pin(tasks::feed_liveness(view.clone(), policy.clone(), liveness)));
        spawn(Box::pin(release::run(replica.clone(), view.clone(), me.clone())));
        spawn(Box::pin(tasks::announce_endpoints(endpoints.facts(), membership.clone())));
        let presence = Presence {
            addresses: reached.fabric.clone(),
            gossip: reached.gossip,
            api: reached.api,
            leaving: false,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        spawn(Box::pin(tasks::announce_self(presence, membership.clone())));
        let (revision, revision_rx) = watch::channel(0);
        let (members, members_rx) = watch::channel(0);
        spawn(Box::pin(tasks::feed_watches(plan_rx.clone(), view.clone(), revision, members)));

        let node = Arc::new(Node {
            identity,
            replica: replica.clone(),
            membership: membership.clone(),
            plan: plan_rx,
            endpoints,
            events: events.clone(),
            started,
            listening: serve::listening(&config, &transport, &dns),
            certificate,
            advertised: reached.fabric,
            watches: Watches { revision: revision_rx, members: members_rx },
            metrics: serve::metrics(&transport, &membership, &dns),
        });
        serve::start_api(node, &config.listen, credentials_rx, &tasks, &stop).await?;
        bootstrap(&dir, &replica).await?;
        tracing::info!(node = %me, "started");
        Ok(Self { transport, replica, membership, dns, tasks, stop })
    }

    /// Takes everything down, in the reverse order of starting.
    async fn stop(self) {
        tracing::info!("stopping");
        self.stop.cancel();
        self.tasks.close();
        self.dns.shutdown().await;
        self.membership.shutdown().await;
        self.replica.shutdown().await;
        self.transport.close().await;
        self.tasks.wait().await;
    }
}

/// A task that carries snapshots.
type Carrier = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

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
