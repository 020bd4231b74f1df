//! The stages of starting, each a few lines: what every stage needs is in [`Parts`].

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use anyhow::{Context, bail};
use selvedge_consensus::{Peers, Replica};
use selvedge_dns::Dns;
use selvedge_fabric::{
    command::Role,
    event::{EventSink, Severity},
    key::Signer,
    plan::Plan,
    policy::PolicyState,
    record::Presence,
};
use selvedge_membership::Membership;
use selvedge_transport::{Alpn, Credentials, Transport};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{release, rollouts, serve, tasks};
use crate::{
    config::{self, NodeConfig},
    endpoints::Endpoints,
    enroll::server::{Enroller, JoinHandler, RenewHandler},
    events::Events,
    follow::{Follower, PolicySource, poll::Following, serve::FabricHandler},
    gate::PolicyGate,
    identity::{Contact, DataDir, Identity},
    isolation::Isolation,
    issuer::IssuerSource,
    pki::{NodeKey, SealingKey},
    reconcile::{self, Judges, Planner, Tell},
    renew::Renewal,
    revocations::EmergencyRevocations,
    watchdog::Watchdog,
};

/// Where others reach this node.
pub(super) struct Reached {
    pub(super) fabric: Vec<SocketAddr>,
    pub(super) gossip: Vec<SocketAddr>,
    pub(super) api: Vec<SocketAddr>,
}

impl Reached {
    pub(super) fn new(config: &NodeConfig) -> Self {
        let outward = serve::outward_address(&config.seeds);
        let (listen, own) = (&config.listen, &config.advertise);
        Self {
            fabric: config::advertised(&own.fabric, listen.fabric, outward),
            gossip: config::advertised(&own.gossip, listen.gossip, outward),
            api: config::advertised(&own.api, listen.api, outward),
        }
    }
}

/// What every stage needs.
pub(super) struct Parts {
    pub(super) config: NodeConfig,
    pub(super) dir: DataDir,
    pub(super) identity: Identity,
    pub(super) key: Arc<NodeKey>,
    pub(super) reached: Reached,
    pub(super) events: Events,
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) watchdog: Watchdog,
}

/// The network side of the node's identity.
pub(super) struct Bound {
    pub(super) transport: Transport,
    pub(super) gate: Arc<PolicyGate>,
    pub(super) credentials: watch::Sender<Arc<Credentials>>,
}

impl Parts {
    pub(super) fn new(
        config: NodeConfig,
        dir: DataDir,
        (identity, key): (Identity, Arc<NodeKey>),
        reached: Reached,
    ) -> Self {
        let (events, tasks, stop) = (Events::default(), TaskTracker::new(), CancellationToken::new());
        let watchdog = Watchdog::new(events.clone(), tasks.clone(), stop.clone());
        Self { config, dir, identity, key, reached, events, tasks, stop, watchdog }
    }

    /// Runs a task that the daemon cannot go without until that stops.
    pub(super) fn keep(&self, task: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.watchdog.keep(task, self.stop.clone().run_until_cancelled_owned(work));
    }

    /// Where the subsystems tell their events and signs of life.
    pub(super) fn sink(&self) -> Arc<dyn EventSink> {
        Arc::new(self.watchdog.clone())
    }

    /// The QUIC endpoint, which admits the contacts from joining until there is a policy.
    pub(super) fn bind(&self) -> anyhow::Result<Bound> {
        let listen = self.config.listen.fabric;
        let gate = Arc::new(PolicyGate::new(self.identity.contacts.clone()));
        let (credentials, shown) = watch::channel(Arc::new(self.identity.credentials(&self.key)));
        let transport = Transport::bind(selvedge_transport::Options {
            listen,
            fabric: self.identity.fabric.clone(),
            me: Some(self.identity.node.clone()),
            credentials: shown,
            gate: gate.clone(),
            events: self.sink(),
        })
        .with_context(|| format!("fabric port {listen}"))?;
        for contact in &self.identity.contacts {
            transport.book().set(&contact.name, contact.fabric.clone());
        }
        Ok(Bound { transport, gate, credentials })
    }

    /// Replica or follower, by the role of this node, with the policy of before already published.
    pub(super) async fn open_policy(
        &self,
        bound: &Bound,
        liveness: watch::Receiver<Arc<Peers>>,
    ) -> anyhow::Result<PolicySource> {
        let source = match self.identity.role {
            Role::Processor => PolicySource::Replica(self.open_replica(bound, liveness).await?),
            Role::Workload => PolicySource::Follower(Arc::new(self.open_follower()?)),
        };
        Ok(source)
    }

    /// The emergency revocations of before, which the gate follows from here on with the policy.
    pub(super) fn open_revocations(
        &self,
        bound: &Bound,
        source: &PolicySource,
    ) -> anyhow::Result<Arc<EmergencyRevocations>> {
        let path = self.dir.revocations();
        let (revocations, queue) = EmergencyRevocations::open(path, source.policy(), self.events.clone())?;
        bound.gate.follow(source.policy(), revocations.known());
        bound.transport.recheck();
        self.keep("emergency revocations", revocations.clone().run(queue));
        if let Some(replica) = source.replica() {
            let (agreeing, replica) = (revocations.clone(), replica.clone());
            let me = self.identity.node.clone();
            self.watchdog.again("emergency revocations agreed", move || {
                agreeing.clone().agree(replica.clone(), me.clone())
            });
        }
        Ok(revocations)
    }

    fn open_follower(&self) -> anyhow::Result<Follower> {
        let (follower, problem) = Follower::open(&self.identity, self.dir.policy()).context("policy")?;
        if let Some(problem) = problem {
            self.events.emit(Severity::Warning, "policy-copy-unusable", self.identity.node.as_str(), problem);
        }
        Ok(follower)
    }

    async fn open_replica(
        &self,
        bound: &Bound,
        liveness: watch::Receiver<Arc<Peers>>,
    ) -> anyhow::Result<Replica> {
        // Facts are kept only once a replica was opened: without it now, its votes are forgotten.
        let (raft, facts) = (self.dir.raft(), self.dir.facts());
        if facts.exists() && !raft.exists() {
            bail!(
                "{} is gone, although this node has run before ({} is there). A replica that may have forgotten \
                 its votes must not go on: restore the directory from the same disk, or remove this node \
                 (selvedge node remove) and let it join again with an empty data directory",
                raft.display(),
                facts.display()
            );
        }
        Replica::open(selvedge_consensus::Options {
            dir: self.dir.raft(),
            me: self.identity.node.clone(),
            signer: self.key.clone(),
            anchor: self.identity.recovery_key.map(|key| (self.identity.fabric_id, key)),
            transport: bound.transport.clone(),
            liveness,
            timers: serve::raft_timers(&self.config.timers),
            events: self.sink(),
        })
        .await
        .context("policy replica")
    }

    /// Failure detection and gossip, with the facts of before already published.
    pub(super) async fn start_membership(
        &self,
        transport: &Transport,
        source: &PolicySource,
        revocations: &EmergencyRevocations,
    ) -> anyhow::Result<Membership> {
        let (epoch_in, epoch) = watch::channel(source.status().borrow().fence_epoch);
        let status = source.status();
        self.watchdog.again("fence epoch", move || tasks::feed_epoch(status.clone(), epoch_in.clone()));
        let membership = Membership::start(selvedge_membership::Options {
            dir: self.dir.facts(),
            me: self.identity.node.clone(),
            signer: self.key.clone(),
            fabric: self.identity.fabric_id,
            epoch,
            gossip_listen: self.config.listen.gossip,
            node_key_seed: self.key.seed(),
            transport: transport.clone(),
            policy: revocations.enforced(),
            revocations: revocations.known(),
            revoked: revocations.incoming(),
            timers: serve::membership_timers(self.config.timers.profile),
            events: self.sink(),
        })
        .await
        .context("membership")?;
        let contacts = self.identity.contacts.iter();
        membership.set_gossip_seeds(contacts.map(|c| (c.name.clone(), c.gossip.clone())).collect());
        Ok(membership)
    }

    pub(super) async fn start_dns(&self, plan: watch::Receiver<Arc<Plan>>) -> anyhow::Result<Arc<Dns>> {
        let options = serve::dns_options(&self.config.dns, &self.config.listen.dns, plan, self.sink());
        Ok(Arc::new(Dns::start(options).await.context("DNS")?))
    }

    /// The one circuit: plans, and puts them in force.
    pub(super) fn start_reconcile(
        &self,
        planner: Planner,
        plan: watch::Sender<Arc<Plan>>,
        judges: Judges,
        membership: &Membership,
    ) {
        let tell = Tell { membership: membership.clone(), sink: self.sink() };
        self.watchdog.keep(reconcile::TASK, reconcile::run(planner, plan, judges, tell, self.stop.clone()));
    }

    /// What this node does by its role.
    pub(super) fn start_roles(
        &self,
        bound: &Bound,
        source: &PolicySource,
        membership: &Membership,
        sealing: SealingKey,
        liveness: watch::Sender<Arc<Peers>>,
    ) {
        let issuer = Arc::new(IssuerSource::new(self.identity.node.clone(), sealing));
        issuer.follow(source.policy());
        self.start_renewal(bound, membership, issuer.clone());
        match source {
            PolicySource::Replica(replica) => self.serve_fabric(bound, replica, membership, issuer, liveness),
            PolicySource::Follower(follower) => self.start_following(bound, follower, membership),
        }
    }

    /// Renewal of this node's certificate.
    fn start_renewal(&self, bound: &Bound, membership: &Membership, issuer: Arc<IssuerSource>) {
        let renewal = Renewal {
            dir: self.dir.clone(),
            identity: self.identity.clone(),
            key: self.key.clone(),
            issuer,
            lifetime: self.config.certificates.lifetime,
            credentials: bound.credentials.clone(),
            transport: bound.transport.clone(),
            view: membership.view(),
            events: self.events.clone(),
        };
        self.watchdog.keep("certificate renewal", renewal.run(self.stop.clone()));
    }

    /// What a processor does for others: it admits them, renews their certificates, hands them policy,
    /// and vouches for workload nodes.
    fn serve_fabric(
        &self,
        bound: &Bound,
        replica: &Replica,
        membership: &Membership,
        issuer: Arc<IssuerSource>,
        liveness: watch::Sender<Arc<Peers>>,
    ) {
        self.serve_enrollment(bound, replica, membership, issuer);

        let handler = FabricHandler {
            replica: replica.clone(),
            membership: membership.clone(),
            gate: bound.gate.clone(),
        };
        bound.transport.handle(Alpn::Fabric, Arc::new(handler));
        let (policy, view, me) = (replica.policy(), membership.view(), self.identity.node.clone());
        let seen = view.clone();
        self.watchdog.again("liveness for voter placement", move || {
            tasks::feed_liveness(seen.clone(), policy.clone(), liveness.clone())
        });
        let (leading, by, named, sink) = (replica.clone(), view.clone(), me.clone(), self.sink());
        self.watchdog.again("rollouts", move || {
            rollouts::run(leading.clone(), by.clone(), named.clone(), sink.clone())
        });
        let replica = replica.clone();
        self.watchdog.again("address blocks released", move || {
            release::run(replica.clone(), view.clone(), me.clone())
        });
    }

    /// What a workload node does instead: it follows the policy and has itself vouched for.
    fn start_following(&self, bound: &Bound, follower: &Arc<Follower>, membership: &Membership) {
        let following = Arc::new(Following {
            follower: follower.clone(),
            zone: self.identity.zone.clone(),
            transport: bound.transport.clone(),
            view: membership.view(),
            events: self.events.clone(),
        });
        self.watchdog.keep("policy followed", following.clone().run(self.stop.clone()));
        self.watchdog.keep("heartbeats to processors", following.run_heartbeat(self.stop.clone()));
    }

    /// Admission of other nodes and renewal of their certificates.
    fn serve_enrollment(
        &self,
        bound: &Bound,
        replica: &Replica,
        membership: &Membership,
        issuer: Arc<IssuerSource>,
    ) {
        let enroller = Arc::new(Enroller {
            replica: replica.clone(),
            view: membership.view(),
            issuer,
            events: self.events.clone(),
            lifetime: self.config.certificates.lifetime,
            gate: bound.gate.clone(),
            me: Contact {
                name: self.identity.node.clone(),
                key: self.key.public_key(),
                role: self.identity.role,
                fabric: self.reached.fabric.clone(),
                gossip: self.reached.gossip.clone(),
            },
            transport: bound.transport.clone(),
        });
        bound.transport.handle(Alpn::Join, Arc::new(JoinHandler::new(enroller.clone())));
        bound.transport.handle(Alpn::Renew, Arc::new(RenewHandler(enroller)));
    }

    /// The tasks that carry snapshots between the subsystems.
    pub(super) fn start_carriers(
        &self,
        bound: &Bound,
        policy: watch::Receiver<Arc<PolicyState>>,
        membership: &Membership,
        endpoints: &Endpoints,
    ) {
        let transport = bound.transport.clone();
        self.watchdog.again("connections rechecked", move || {
            tasks::recheck_connections(policy.clone(), transport.clone())
        });
        let (facts, said) = (endpoints.facts(), membership.clone());
        self.watchdog
            .again("endpoints announced", move || tasks::announce_endpoints(facts.clone(), said.clone()));
        let presence = Presence {
            addresses: self.reached.fabric.clone(),
            gossip: self.reached.gossip.clone(),
            api: self.reached.api.clone(),
            leaving: false,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let said = membership.clone();
        self.watchdog.again("node announced", move || tasks::announce_self(presence.clone(), said.clone()));
        let checked = endpoints.clone();
        self.watchdog.again("health checks", move || checked.clone().check_forever());
    }

    /// What drills may do to this node.
    pub(super) fn start_isolation(&self, bound: &Bound, source: &PolicySource) -> Arc<Isolation> {
        let (me, allowed) = (self.identity.node.clone(), self.config.drills.allow);
        let (transport, policy) = (bound.transport.clone(), source.policy());
        let isolation = Arc::new(Isolation::new(me, allowed, transport, policy, self.events.clone()));
        self.keep("drill isolation", isolation.clone().run());
        isolation
    }

    /// Numbers that move with plan and view.
    pub(super) fn start_watches(
        &self,
        plan: watch::Receiver<Arc<Plan>>,
        membership: &Membership,
    ) -> crate::backend::Watches {
        let (revision_out, revision) = watch::channel(0);
        let (members_out, members) = watch::channel(0);
        let view = membership.view();
        self.watchdog.again("watches", move || {
            tasks::feed_watches(plan.clone(), view.clone(), revision_out.clone(), members_out.clone())
        });
        crate::backend::Watches { revision, members }
    }
}

/// Liveness as voter placement follows it; empty until facts arrive.
pub(super) fn liveness_channel() -> (watch::Sender<Arc<Peers>>, watch::Receiver<Arc<Peers>>) {
    watch::channel(Arc::new(BTreeMap::new()))
}
