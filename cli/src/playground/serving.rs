//! Puts an endpoint onto its node, and a tiny server behind it.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, bail};
use selvedge_node::api::types::{AttachReply, Registered};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    driver::Selvedge,
    endpoint::{self, Card},
    home::Home,
    layout::NodePlan,
    networks::Workload,
    placement::Placed,
    state::{EndpointInfo, NetworkInfo},
};

/// An endpoint that is there.
#[derive(Debug, Clone)]
pub(crate) struct Served {
    pub(crate) info: EndpointInfo,
    /// The ports that it serves.
    pub(crate) ports: Vec<u16>,
    /// Where it listens, when it shares the network of this host.
    local: Vec<SocketAddr>,
    /// Where it lives, with real packets.
    pub(crate) workload: Option<Workload>,
}

/// What serving takes.
pub(crate) struct Server<'a> {
    pub(crate) selvedge: &'a Selvedge,
    pub(crate) home: &'a Home,
    pub(crate) plan: &'a NodePlan,
    /// Cancelled when the host is dead.
    pub(crate) host: &'a CancellationToken,
    pub(crate) tasks: &'a TaskTracker,
}

impl Server<'_> {
    /// On a loopback address that its node gave it. Each of its ports is at the one of `local`.
    pub(crate) async fn on_loopback(
        &self,
        placed: &Placed,
        local: &[SocketAddr],
        token_file: &str,
    ) -> anyhow::Result<Served> {
        let service = placed.service.to_string();
        let ports: Vec<_> =
            placed.ports.iter().zip(local).map(|(p, l)| format!("tcp/{p}={}", l.port())).collect();
        let mut args = vec!["endpoint", "register", "--service", &service, "--token-file", token_file];
        let check = local.first().map(|l| format!("http:{}/healthz", l.port()));
        ports.iter().for_each(|p| args.extend(["--port", p]));
        check.iter().for_each(|c| args.extend(["--check", c]));
        let registered: Registered = self.selvedge.ask(&self.plan.socket, &args).await?;
        let endpoint = registered.endpoint;
        let addresses = parsed(&endpoint.addresses);
        let mut served = self.served(placed, endpoint.id, addresses, None);
        if local.is_empty() {
            return Ok(served);
        }
        let Some(address) = served.info.addresses.iter().copied().find(IpAddr::is_ipv4) else {
            bail!("node {} gave endpoint {} no IPv4 address", self.plan.name(), served.info.id);
        };
        served.local = local.iter().map(|port| SocketAddr::new(address, port.port())).collect();
        served.again(self.plan, self.host, self.tasks).await?;
        Ok(served)
    }

    /// In a network of its own, attached to its node.
    pub(crate) async fn in_network(&self, placed: &Placed, token_file: &str) -> anyhow::Result<Served> {
        let mut workload = Workload::new().await?;
        let (service, netns) = (placed.service.to_string(), workload.path());
        let path = netns.to_string_lossy();
        let mut args = vec!["attach", "--service", &service, "--token-file", token_file, "--netns", &path];
        // Programs find names by a file of the playground's, laid over theirs when they start.
        args.push("--keep-resolver");
        let ports: Vec<_> = placed.ports.iter().map(|port| format!("tcp/{port}")).collect();
        let check = placed.ports.first().map(|port| format!("http:{port}/healthz"));
        ports.iter().for_each(|p| args.extend(["--port", p]));
        check.iter().for_each(|c| args.extend(["--check", c]));
        // Before it is attached, so that it is healthy from its first check on.
        let mut listeners = Vec::new();
        for port in &placed.ports {
            listeners.push(workload.listen(*port).await?);
        }
        let reply: AttachReply = self.selvedge.ask(&self.plan.socket, &args).await?;
        let attached = reply.attachment;
        let resolv_conf = self.home.resolv_conf(&attached.endpoint);
        workload.resolve_by(&reply.gateways, &resolv_conf)?;
        let addresses = parsed(&attached.addresses);
        let network = NetworkInfo { netns: netns.clone(), resolv_conf };
        let mut served = self.served(placed, attached.endpoint, addresses, Some(network));
        served.workload = Some(workload);
        let card = served.card(self.plan);
        for listener in listeners {
            endpoint::serve(listener, &card, self.host.clone(), self.tasks)
                .with_context(|| format!("on {}", self.plan.name()))?;
        }
        Ok(served)
    }

    fn served(
        &self,
        placed: &Placed,
        id: String,
        addresses: Vec<IpAddr>,
        network: Option<NetworkInfo>,
    ) -> Served {
        let (service, node) = (placed.service.to_string(), self.plan.name().to_owned());
        let ports = placed.ports.clone();
        let info = EndpointInfo { id, service, node, addresses, ports: ports.clone(), network };
        Served { info, ports, local: Vec::new(), workload: None }
    }
}

impl Served {
    /// Puts its servers onto `host`, for the first time or again.
    pub(crate) async fn again(
        &self,
        plan: &NodePlan,
        host: &CancellationToken,
        tasks: &TaskTracker,
    ) -> anyhow::Result<()> {
        let mut listeners = Vec::new();
        for address in &self.local {
            listeners.push(endpoint::listen(*address)?);
        }
        if let Some(workload) = &self.workload {
            for port in &self.ports {
                listeners.push(workload.listen(*port).await?);
            }
        }
        let card = self.card(plan);
        listeners.into_iter().try_for_each(|l| endpoint::serve(l, &card, host.clone(), tasks))
    }

    fn card(&self, plan: &NodePlan) -> Card {
        Card {
            service: self.info.service.clone(),
            endpoint: self.info.id.clone(),
            node: plan.name().to_owned(),
            cloud: plan.slot.zone.cloud().to_string(),
        }
    }
}

fn parsed(addresses: &[String]) -> Vec<IpAddr> {
    addresses.iter().filter_map(|address| address.parse().ok()).collect()
}
