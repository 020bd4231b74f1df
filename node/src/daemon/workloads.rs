//! What a node does for the workloads on it.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use selvedge_dns::Dns;
use selvedge_fabric::{plan::Plan, planner::Local, policy::PolicyState, record::Body};
use selvedge_membership::Membership;
use selvedge_transport::Credentials;
use tokio::sync::watch;

use super::{parts::Parts, serve};
use crate::{
    attach::{self, Attachments},
    backend::Node,
    endpoints::Endpoints,
    flows::Flows,
    gateway::Gateway,
    packets::Packets,
};

/// Everything about workloads that runs.
pub(super) struct Workloads {
    pub(super) flows: Flows,
    pub(super) gateway: Gateway,
    pub(super) attachments: Arc<Attachments>,
}

/// The snapshots that they follow, and the one that they publish.
pub(super) struct Snapshots {
    pub(super) policy: watch::Receiver<Arc<PolicyState>>,
    pub(super) plan: watch::Receiver<Arc<Plan>>,
    pub(super) local: watch::Sender<Local>,
}

/// How long the first plan waits for what this node says of its own endpoints to be known to itself.
const RECALL_LIMIT: Duration = Duration::from_secs(5);

impl Parts {
    /// Puts the first plan in force on packets.
    ///
    /// # Errors
    /// When the configuration requires a data plane and it cannot be had.
    pub(super) async fn enforce_first(
        &self,
        packets: &Packets,
        plan: &watch::Receiver<Arc<Plan>>,
        local: &watch::Sender<Local>,
    ) -> anyhow::Result<()> {
        let first = plan.borrow().clone();
        packets.apply(first).await.context("data plane")?;
        if !packets.is_on() {
            // Nothing is attached then: an endpoint asks from its own loopback address.
            local.send_replace(Local { me: Some(self.identity.node.clone()), ..Local::default() });
        }
        Ok(())
    }

    /// What the first plan must know of the life before: what is pinned goes on deciding packets by an
    /// earlier plan until then, and one without this node's endpoints would cut all that is established.
    ///
    /// # Errors
    /// When the attachments of before cannot be read.
    pub(super) async fn recall(
        &self,
        endpoints: &Endpoints,
        membership: &Membership,
    ) -> anyhow::Result<Local> {
        let me = self.identity.node.clone();
        let attached = Attachments::addresses_of_before(&self.dir)?;
        let facts = endpoints.facts().borrow().clone();
        if !facts.is_empty() {
            membership.announce(Body::Endpoints(facts.to_vec()));
            let mut view = membership.view();
            let known = view.wait_for(|view| {
                let mine = view.nodes.get(&me).map(|node| &node.endpoints);
                mine.is_some_and(|mine| facts.iter().all(|fact| mine.contains_key(&fact.id)))
            });
            if tokio::time::timeout(RECALL_LIMIT, known).await.is_err() {
                tracing::warn!("starting without the endpoints of before: what they do is interrupted");
            }
        }
        let (tun, attached) = if attached.is_empty() { (false, None) } else { (true, Some(attached)) };
        Ok(Local { me: Some(me), tun, attached, ..Local::default() })
    }

    /// What decides packets, from the first plan on.
    pub(super) fn packets(&self, plan: watch::Receiver<Arc<Plan>>) -> Packets {
        let (config, api) = (&self.config.packets, self.config.listen.workload_api.port());
        Packets::new(&self.identity.node, config.mode, self.config.overlay.mtu.into(), api, plan)
    }

    /// Takes up what was attached before, and serves what is attached from here on.
    pub(super) async fn start_workloads(
        &self,
        packets: &Packets,
        dns: &Arc<Dns>,
        endpoints: &Endpoints,
        snapshots: Snapshots,
    ) -> anyhow::Result<Workloads> {
        let (dns_port, api_port) = (self.config.packets.dns_port, self.config.listen.workload_api.port());
        let gateway = Gateway::new(dns.clone(), dns_port, api_port);
        let attachments = attach::Parts {
            me: self.identity.node.clone(),
            fabric: self.identity.fabric_id,
            endpoints: endpoints.clone(),
            packets: packets.clone(),
            gateway: gateway.clone(),
            policy: snapshots.policy,
            local: snapshots.local,
            events: self.events.clone(),
        };
        let attachments = Arc::new(Attachments::open(&self.dir, attachments).await?);
        self.watchdog.keep("attachments", attachments.clone().run(self.stop.clone()));
        Ok(Workloads { flows: self.start_flows(packets, snapshots.plan), gateway, attachments })
    }

    /// Starts the API, for people and for workloads.
    pub(super) async fn start_api(
        &self,
        node: Arc<Node>,
        workloads: &Workloads,
        credentials: watch::Receiver<Arc<Credentials>>,
    ) -> anyhow::Result<()> {
        let listen = &self.config.listen;
        serve::start_api(node, listen, &workloads.gateway, credentials, &self.watchdog, &self.stop).await
    }

    /// The flow log.
    fn start_flows(&self, packets: &Packets, plan: watch::Receiver<Arc<Plan>>) -> Flows {
        let flows = Flows::default();
        let (log, packets, me) = (flows.clone(), packets.clone(), self.identity.node.clone());
        let stop = self.stop.clone();
        // Where there is no data plane there is nothing to log.
        self.watchdog.keep_to_end(
            "flow log",
            self.stop.clone().run_until_cancelled_owned(async move {
                if let Some(events) = packets.events().await {
                    log.run(events, me, plan, stop).await;
                }
            }),
        );
        flows
    }
}
