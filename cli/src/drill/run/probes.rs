//! Asking all the time.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    net::{IpAddr, SocketAddr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use hickory_proto::rr::RecordType;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use selvedge_fabric::drill::{Probe, ProbeKind};
use tokio::{net::TcpStream, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{names, notebook::Notebook};
use crate::{
    drill::{
        ground::{Ground, Site},
        probe_write::ProbeWriter,
        record::Attempt,
    },
    playground::{
        driver::Selvedge,
        state::{EndpointInfo, Use},
    },
    probe::{
        dns::{self, Wire},
        http,
    },
};

/// How long a client waits for one address before it goes on to the next.
const ADDRESS_LIMIT: Duration = Duration::from_secs(1);
/// How many addresses a client tries.
const MAX_ADDRESSES: usize = 4;
/// How long a write may take before it counts as failed and another node is asked; times the slack.
const WRITE_LIMIT: Duration = Duration::from_secs(3);
/// How long a forbidden connection is waited for.
const SILENCE: Duration = Duration::from_secs(1);
/// Forbidden connections that are tried at once.
const KNOCKS: usize = 16;
/// Pause of a probe whose node cannot answer because of the drill.
const IDLE: Duration = Duration::from_millis(50);

/// What every probe knows.
pub(super) struct Prober {
    pub(super) selvedge: Selvedge,
    pub(super) ground: Ground,
    pub(super) book: Arc<Notebook>,
    pub(super) stop: CancellationToken,
    /// How many times as long as usual things may take.
    pub(super) slack: u32,
}

impl Prober {
    /// Starts one probe that asks these nodes.
    pub(super) fn start(
        self: &Arc<Self>,
        number: usize,
        probe: &Probe,
        nodes: Vec<Site>,
        tasks: &TaskTracker,
    ) -> anyhow::Result<()> {
        let contracts = self.contracts(probe)?;
        let asking = Asking {
            prober: Arc::clone(self),
            number,
            every: Duration::from_millis(probe.every.ms()),
            contracts,
        };
        let asking = Arc::new(asking);
        match probe.kind {
            ProbeKind::Dns => {
                for node in nodes {
                    tasks.spawn(Arc::clone(&asking).dns(node));
                }
            }
            ProbeKind::Http if !self.ground.has_packets => {
                for node in nodes {
                    tasks.spawn(Arc::clone(&asking).http_by_node(node));
                }
            }
            ProbeKind::Http => {
                let inside = |endpoint: &&EndpointInfo| nodes.iter().any(|node| node.name == endpoint.node);
                for client in self.ground.endpoints.iter().filter(inside) {
                    tasks.spawn(Arc::clone(&asking).http_by_client(client.clone()));
                }
            }
            ProbeKind::Write => {
                let through: Vec<_> = nodes.into_iter().filter(Site::is_processor).collect();
                ensure!(!through.is_empty(), "probe {} writes through no processor", probe.name);
                tasks.spawn(asking.write(through));
            }
            ProbeKind::Forbidden => {
                tasks.spawn(asking.forbidden());
            }
        }
        Ok(())
    }

    /// The contracts that a probe asks for.
    fn contracts(&self, probe: &Probe) -> anyhow::Result<Vec<Use>> {
        let Some(wanted) = &probe.contract else { return Ok(self.ground.uses.clone()) };
        let name = format!("{}.{}", wanted.name, wanted.domain);
        let found: Vec<_> = self.ground.uses.iter().filter(|u| u.contract == name).cloned().collect();
        ensure!(
            !found.is_empty(),
            "there is no contract {wanted}; there are {}",
            self.ground.uses.iter().map(|u| u.contract.as_str()).collect::<Vec<_>>().join(", ")
        );
        Ok(found)
    }
}

/// One probe at work.
struct Asking {
    prober: Arc<Prober>,
    number: usize,
    every: Duration,
    contracts: Vec<Use>,
}

impl Asking {
    fn book(&self) -> &Notebook {
        &self.prober.book
    }

    fn is_over(&self) -> bool {
        self.prober.stop.is_cancelled()
    }

    async fn pause(&self, pause: Duration) {
        self.prober.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
    }

    fn name_of(&self, contract: &Use) -> String {
        format!("{}.{}", contract.contract, self.prober.ground.suffix)
    }

    /// Asks once, and writes down what came of it; nothing when the drill ended meanwhile.
    async fn ask(
        &self,
        subject: &str,
        node: &str,
        question: impl Future<Output = anyhow::Result<BTreeSet<String>>>,
    ) -> bool {
        let from_ms = self.book().now_ms();
        let Some(answer) = self.prober.stop.run_until_cancelled(question).await else { return false };
        let to_ms = self.book().now_ms();
        let (outcome, named) = match answer {
            Ok(named) => (Ok(()), named.into_iter().collect()),
            Err(error) => (Err(format!("{error:#}")), Vec::new()),
        };
        let good = outcome.is_ok();
        let (subject, node) = (subject.to_owned(), node.to_owned());
        self.book().attempt(Attempt { probe: self.number, subject, node, from_ms, to_ms, outcome, named });
        good
    }

    async fn dns(self: Arc<Self>, node: Site) {
        let endpoints = &self.prober.ground.endpoints;
        let addresses: BTreeMap<IpAddr, &str> =
            endpoints.iter().flat_map(|e| e.addresses.iter().map(|a| (*a, e.node.as_str()))).collect();
        let ids: BTreeMap<&str, &str> = endpoints.iter().map(|e| (e.id.as_str(), e.node.as_str())).collect();
        while !self.is_over() {
            if !self.book().is_alive(&node.name) {
                self.pause(IDLE).await;
                continue;
            }
            let round = async {
                let mut named = BTreeSet::new();
                for contract in &self.contracts {
                    let name = self.name_of(contract);
                    for kind in [RecordType::A, RecordType::SRV] {
                        let answer = names::ask(&node, &name, kind).await?;
                        let hosts = answer.addresses.iter().filter_map(|a| addresses.get(a));
                        named.extend(hosts.map(|node| (*node).to_owned()));
                        let targets = answer.hosts.iter().filter_map(|host| ids.get(host.split('.').next()?));
                        named.extend(targets.map(|node| (*node).to_owned()));
                    }
                }
                Ok(named)
            };
            self.ask(&node.name, &node.name, round).await;
            self.pause(self.every).await;
        }
    }

    async fn http_by_node(self: Arc<Self>, node: Site) {
        while !self.is_over() {
            if !self.book().is_alive(&node.name) {
                self.pause(IDLE).await;
                continue;
            }
            for contract in &self.contracts {
                let name = self.name_of(contract);
                let met = async {
                    let server = node.dns.context("its DNS cannot be asked from here")?;
                    let srv = dns::ask(server, &name, RecordType::SRV, Wire::Udp).await?;
                    let mut servers = Vec::new();
                    for target in dns::targets(&srv).into_iter().take(MAX_ADDRESSES) {
                        let answer = dns::ask(server, &target.host, RecordType::A, Wire::Udp).await?;
                        servers.extend(
                            dns::addresses_of(&answer).into_iter().map(|ip| SocketAddr::new(ip, target.port)),
                        );
                    }
                    first_to_answer(&servers).await
                };
                self.ask(&format!("{} → {}", node.name, contract.contract), &node.name, met).await;
            }
            self.pause(self.every).await;
        }
    }

    /// From inside the network of a client.
    async fn http_by_client(self: Arc<Self>, client: EndpointInfo) {
        let uses: Vec<_> =
            self.contracts.iter().filter(|u| u.clients.contains(&client.service)).cloned().collect();
        let Some(network) = client.network.clone().filter(|_| !uses.is_empty()) else { return };
        let (asking, who) = (Arc::clone(&self), client.id.clone());
        let inside = async move {
            let resolver = resolver(&network.resolv_conf)?;
            while !asking.is_over() {
                if !asking.book().is_alive(&client.node) {
                    asking.pause(IDLE).await;
                    continue;
                }
                for contract in &uses {
                    let name = asking.name_of(contract);
                    let met = async {
                        let answer = dns::ask(resolver, &name, RecordType::A, Wire::Udp).await?;
                        let port =
                            contract.ports.first().copied().context("a contract without a TCP port")?;
                        let servers: Vec<_> = dns::addresses_of(&answer)
                            .into_iter()
                            .map(|ip| SocketAddr::new(ip, port))
                            .collect();
                        first_to_answer(&servers).await
                    };
                    asking.ask(&format!("{} → {}", client.id, contract.contract), &client.node, met).await;
                }
                asking.pause(asking.every).await;
            }
            Ok(())
        };
        let netns = network_of(&self.prober.ground, &who);
        if let Err(error) = within(netns, inside).await {
            self.ask(&who, "", std::future::ready(Err(error))).await;
        }
    }

    /// Through one node after another: the next when one fails.
    async fn write(self: Arc<Self>, through: Vec<Site>) {
        let mut writer = match ProbeWriter::new(&self.prober.selvedge) {
            Ok(writer) => writer,
            // A probe that cannot ask has failed.
            Err(error) => {
                self.ask("writes", "", std::future::ready(Err(error))).await;
                return;
            }
        };
        let (mut turn, limit) = (0, WRITE_LIMIT * self.prober.slack);
        while !self.is_over() {
            let alive: Vec<_> = through.iter().filter(|node| self.book().is_alive(&node.name)).collect();
            let Some(node) = alive.get(turn % alive.len().max(1)) else {
                self.pause(IDLE).await;
                continue;
            };
            let write = async {
                let written = timeout(limit, writer.write(&node.door)).await;
                written.with_context(|| format!("not within {limit:?}"))?.map(|()| BTreeSet::new())
            };
            let write = async { write.await.with_context(|| format!("through {}", node.name)) };
            if !self.ask("writes", &node.name, write).await {
                turn += 1;
            }
            self.pause(self.every).await;
        }
    }

    /// From one endpoint of each service in turn.
    async fn forbidden(self: Arc<Self>) {
        let ground = &self.prober.ground;
        let mut seen = BTreeSet::new();
        let sources: Vec<_> =
            ground.endpoints.iter().filter(|e| seen.insert(e.service.clone())).cloned().collect();
        let mut turn = 0;
        while !self.is_over() && !sources.is_empty() {
            let source = &sources[turn % sources.len()];
            let targets = forbidden_to(source, ground);
            // Another part of them in each turn.
            let first = (turn / sources.len()) * KNOCKS;
            let some: Vec<_> = targets
                .iter()
                .cycle()
                .skip(first % targets.len().max(1))
                .take(KNOCKS.min(targets.len()))
                .copied()
                .collect();
            turn += 1;
            let netns = network_of(ground, &source.id);
            let knocks = async {
                within(netns, knock(some)).await?;
                Ok(BTreeSet::new())
            };
            // Of no node: nothing excuses a packet that should not have passed.
            self.ask(&source.id, "", knocks).await;
            self.pause(self.every).await;
        }
    }
}

/// Asks one after the other, as clients do, until one answers.
async fn first_to_answer(servers: &[SocketAddr]) -> anyhow::Result<BTreeSet<String>> {
    let mut last = None;
    for server in servers.iter().take(MAX_ADDRESSES) {
        match timeout(ADDRESS_LIMIT, http::get::<serde_json::Value>(*server, "/")).await {
            Ok(Ok(_)) => return Ok(BTreeSet::new()),
            Ok(Err(error)) => last = Some(error),
            Err(_) => last = Some(anyhow::anyhow!("{server} does not answer within {ADDRESS_LIMIT:?}")),
        }
    }
    Err(last.unwrap_or_else(|| anyhow::anyhow!("the name has no address")))
}

/// None of them may answer; a refusal comes from the other end just as well.
async fn knock(targets: Vec<SocketAddr>) -> anyhow::Result<()> {
    let tries = targets.iter().map(|target| async move {
        let answered = match timeout(SILENCE, TcpStream::connect(target)).await {
            Ok(Ok(_)) => true,
            Ok(Err(error)) => error.kind() == std::io::ErrorKind::ConnectionRefused,
            Err(_) => false,
        };
        answered.then_some(*target)
    });
    match futures::future::join_all(tries).await.into_iter().flatten().next() {
        Some(target) => bail!("{target} answered, and no contract allows it"),
        None => Ok(()),
    }
}

/// Where an endpoint must not get to.
fn forbidden_to(source: &EndpointInfo, ground: &Ground) -> Vec<SocketAddr> {
    let plays = |service: &String, players: &Vec<String>| players.contains(service);
    let allowed = |target: &EndpointInfo, port: u16| {
        ground.uses.iter().any(|u| {
            // In some patterns those who serve also call each other.
            (plays(&source.service, &u.clients) || plays(&source.service, &u.servers))
                && plays(&target.service, &u.servers)
                && u.ports.contains(&port)
        })
    };
    let others = ground.endpoints.iter().filter(|target| target.service != source.service);
    let ports = others.flat_map(|target| target.ports.iter().map(move |port| (target, *port)));
    let forbidden = ports.filter(|(target, port)| !allowed(target, *port));
    forbidden
        .flat_map(|(target, port)| target.addresses.iter().map(move |ip| SocketAddr::new(*ip, port)))
        .collect()
}

fn network_of(ground: &Ground, endpoint: &str) -> PathBuf {
    let found = ground.endpoints.iter().find(|e| e.id == endpoint).and_then(|e| e.network.as_ref());
    found.map(|network| network.netns.clone()).unwrap_or_default()
}

fn resolver(resolv_conf: &Path) -> anyhow::Result<SocketAddr> {
    let text = std::fs::read_to_string(resolv_conf)
        .with_context(|| format!("cannot read {}", resolv_conf.display()))?;
    let first = text.lines().find_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<IpAddr>().ok());
    Ok(SocketAddr::new(first.with_context(|| format!("{} names no resolver", resolv_conf.display()))?, 53))
}

/// Does something in a network namespace, on a thread of its own: namespaces belong to threads.
async fn within<T: Send + 'static>(
    netns: PathBuf,
    act: impl Future<Output = anyhow::Result<T>> + Send + 'static,
) -> anyhow::Result<T> {
    let (done, outcome) = tokio::sync::oneshot::channel();
    let inside = move || {
        let run = || {
            let file = File::open(&netns).with_context(|| format!("cannot open {}", netns.display()))?;
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                .context("cannot enter the network of an endpoint: be root")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.context("cannot start a runtime")?.block_on(act)
        };
        // Nobody waits any more when the drill is over.
        let _ = done.send(run());
    };
    std::thread::Builder::new().name("probe".to_owned()).spawn(inside).context("cannot start a thread")?;
    outcome.await.context("a probe ended early")?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_contracts_allow_is_not_forbidden() {
        let endpoint = |service: &str, address: &str| EndpointInfo {
            id: service.into(),
            service: service.into(),
            node: "n".into(),
            addresses: vec![address.parse().expect("an address")],
            ports: vec![80],
            network: None,
        };
        let endpoints =
            vec![endpoint("web@a", "10.0.0.1"), endpoint("db@a", "10.0.0.2"), endpoint("x@b", "10.0.0.3")];
        let uses = vec![Use {
            contract: "c.a".into(),
            clients: vec!["web@a".into()],
            servers: vec!["db@a".into()],
            ports: vec![80],
        }];
        let ground = Ground {
            nodes: Vec::new(),
            endpoints,
            uses,
            suffix: "s".into(),
            has_packets: true,
            shown: String::new(),
            playground: None,
        };
        let to = |source: usize| forbidden_to(&ground.endpoints[source], &ground);
        assert_eq!(to(0), ["10.0.0.3:80".parse().expect("an address")]);
        assert_eq!(to(2).len(), 2);
    }
}
