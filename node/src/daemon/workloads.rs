//! What a node does for the workloads on it.

use std::sync::Arc;

use selvedge_dns::Dns;
use selvedge_fabric::{plan::Plan, planner::Local, policy::PolicyState};
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

impl Parts {
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
            endpoints: endpoints.clone(),
            packets: packets.clone(),
            gateway: gateway.clone(),
            policy: snapshots.policy,
            local: snapshots.local,
            events: self.events.clone(),
        };
        let attachments = Arc::new(Attachments::open(&self.dir, attachments).await?);
        self.tasks.spawn(attachments.clone().run(self.stop.clone()));
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
        serve::start_api(node, listen, &workloads.gateway, credentials, &self.tasks, &self.stop).await
    }

    /// The flow log.
    fn start_flows(&self, packets: &Packets, plan: watch::Receiver<Arc<Plan>>) -> Flows {
        let flows = Flows::default();
        let (log, packets, me) = (flows.clone(), packets.clone(), self.identity.node.clone());
        let stop = self.stop.clone();
        self.spawn(Box::pin(async move {
            if let Some(events) = packets.events().await {
                log.run(events, me, plan, stop).await;
            }
        }));
        flows
    }
}
