//! Networks of their own for the nodes and workloads of a playground, with real packets.
//!
//! Clouds that all use 10.0.0.0/16 inside, joined by a wide area ([`selvedge_lab`]). Nothing of it has a
//! name in the system, so that nothing is left behind, however the playground ends; and two playgrounds
//! never meet.

use std::{
    future::Future,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use selvedge_lab::{Clouds, Conditions, Host, Namespace, Reach};
use tokio::task::spawn_blocking;

use super::{
    doors::{Door, Doors, Kind},
    endpoint,
    layout::{Network, NodePlan, NodeSlot, Role},
};

/// What a playground's clouds have between them: 10 ms ± 1 ms one way, and now and then a packet that
/// overtakes another. Loss is for drills.
const BETWEEN: Conditions = Conditions {
    delay: Duration::from_millis(10),
    jitter: Duration::from_millis(1),
    loss: 0.0,
    reorder: 0.001,
    duplicate: 0.0,
    rate: None,
};
/// The same wide area every time.
const SEED: u64 = 7;

/// The clouds and the hosts of all nodes.
#[derive(Debug)]
pub(crate) struct Networks {
    hosts: Vec<Host>,
    names: Vec<String>,
    /// It ends with the relay.
    clouds: Clouds,
}

impl Networks {
    /// A host for each node, in its cloud.
    pub(crate) fn lay(slots: &[NodeSlot]) -> anyhow::Result<Self> {
        let mut names: Vec<&str> = slots.iter().map(|slot| slot.zone.cloud().as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let mut clouds = Clouds::new(&names, SEED, BETWEEN)?;
        let host = |slot: &NodeSlot| {
            // A workload node only calls out, as one behind NAT does.
            let reach = if slot.role == Role::Processor { Reach::Public } else { Reach::Behind };
            clouds.host(slot.zone.cloud().as_str(), slot.name.as_str(), reach)
        };
        let hosts = slots.iter().map(host).collect::<Result<_, _>>()?;
        let names = names.into_iter().map(str::to_owned).collect();
        Ok(Self { hosts, names, clouds })
    }

    /// Cuts one direction between two clouds.
    pub(crate) fn cut(&self, from: &str, to: &str) -> anyhow::Result<()> {
        Ok(self.clouds.cut_one_way(from, to, true)?)
    }

    /// Other conditions in one direction between two clouds.
    pub(crate) fn slow(
        &self,
        from: &str,
        to: &str,
        delay: Duration,
        jitter: Duration,
        loss: f64,
    ) -> anyhow::Result<()> {
        let conditions = Conditions { delay: BETWEEN.delay.max(delay), jitter, loss, ..BETWEEN };
        Ok(self.clouds.set_one_way(from, to, conditions)?)
    }

    /// Makes everything between clouds what it was at first.
    pub(crate) fn mend(&self) -> anyhow::Result<()> {
        for from in &self.names {
            for to in self.names.iter().filter(|to| *to != from) {
                self.clouds.cut_one_way(from, to, false)?;
                self.clouds.set_one_way(from, to, BETWEEN)?;
            }
        }
        Ok(())
    }

    /// What each node is known by.
    pub(crate) fn layout(&self) -> Vec<Network> {
        self.hosts.iter().map(|host| Network::Own(host.public.map(IpAddr::V4))).collect()
    }

    /// The network of a node.
    pub(crate) fn of(&self, plan: &NodePlan) -> anyhow::Result<&Namespace> {
        let host = self.hosts.iter().find(|host| host.name == plan.name());
        Ok(&host.with_context(|| format!("node {} has no network", plan.name()))?.namespace)
    }

    /// Opens the doors to the API and the DNS of a node.
    pub(crate) async fn doors(&self, plan: &NodePlan) -> anyhow::Result<Doors> {
        let namespace = self.of(plan)?.clone();
        let door = |kind, outside, inside| Door { kind, outside, inside };
        let doors = [
            door(Kind::Tcp, plan.api, plan.listen.api),
            door(Kind::Tcp, plan.dns, plan.listen.dns),
            door(Kind::Udp, plan.dns, plan.listen.dns),
        ];
        Doors::open(&doors, move |keep| namespace.run(keep)?).await
    }
}

/// A workload in a network of its own.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    namespace: Namespace,
    /// Where it finds DNS.
    resolver: Option<IpAddr>,
}

impl Workload {
    /// A network with nothing in it.
    pub(crate) async fn new() -> anyhow::Result<Self> {
        let namespace = spawn_blocking(Namespace::new).await??;
        Ok(Self { namespace, resolver: None })
    }

    /// A path to its network, for as long as this playground runs.
    pub(crate) fn path(&self) -> PathBuf {
        self.namespace.path()
    }

    /// Remembers where it finds DNS, and writes a resolv.conf(5) that says so.
    pub(crate) fn resolve_by(&mut self, gateways: &[String], file: &Path) -> anyhow::Result<()> {
        self.resolver = gateways.iter().find_map(|gateway| gateway.parse().ok());
        let text: String = gateways.iter().map(|gateway| format!("nameserver {gateway}\n")).collect();
        // Programs of any user read it.
        let mut options = std::fs::OpenOptions::new();
        let opened = options.write(true).create(true).truncate(true).mode(0o644).open(file);
        opened
            .and_then(|mut f| std::io::Write::write_all(&mut f, text.as_bytes()))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Listens at a port on every address of it.
    pub(crate) async fn listen(&self, port: u16) -> anyhow::Result<std::net::TcpListener> {
        let (namespace, any) = (self.namespace.clone(), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)));
        spawn_blocking(move || namespace.run(|| endpoint::listen(any))).await??
    }

    /// Where it finds DNS.
    pub(crate) fn resolver(&self) -> anyhow::Result<SocketAddr> {
        Ok(SocketAddr::new(self.resolver.context("it was given no resolver")?, 53))
    }

    /// Does something from inside: every socket that `act` makes is there.
    pub(crate) async fn within<T, F>(&self, act: F) -> anyhow::Result<T>
    where
        T: Send + 'static,
        F: Future<Output = anyhow::Result<T>> + Send + 'static,
    {
        let namespace = self.namespace.clone();
        let inside = move || {
            namespace.run(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.context("cannot start a runtime")?.block_on(act)
            })
        };
        spawn_blocking(inside).await??
    }
}
