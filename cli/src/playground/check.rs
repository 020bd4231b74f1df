//! `selvedge playground --check`: proves a playground from outside, as its users would meet it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hickory_proto::rr::RecordType;
use selvedge_node::api::types::Member;
use serde::Serialize;

use super::{
    bringup::not_alive,
    catalog::{Catalog, ContractNeed},
    cloud_loss,
    driver::Selvedge,
    endpoint::Card,
    progress::Progress,
    proof,
    serving::Served,
    state::{NodeInfo, State},
};
use crate::{
    drill::probe_write::ProbeWriter,
    probe::{
        dns::{self, Target, Wire},
        http,
    },
};

/// One thing that was looked at.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Check {
    pub(crate) check: String,
    pub(crate) ok: bool,
    /// Figures, or what is wrong.
    pub(crate) detail: String,
}

/// All of them.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) passed: bool,
    pub(crate) checks: Vec<Check>,
}

/// Looks at everything, in an order in which later checks rely on earlier ones: the first that fails is
/// the last.
pub(crate) async fn prove(
    selvedge: &Selvedge,
    state: &State,
    catalog: &Catalog,
    served: &[Served],
    progress: &Progress,
) -> Report {
    let prover = Prover { selvedge, state, catalog, served, progress };
    let mut checks = Vec::new();
    let passed = prover.all(&mut checks).await.is_some();
    Report { passed, checks }
}

struct Prover<'a> {
    selvedge: &'a Selvedge,
    state: &'a State,
    catalog: &'a Catalog,
    served: &'a [Served],
    progress: &'a Progress,
}

impl Prover<'_> {
    /// Runs every check; nothing when one fails.
    async fn all(&self, checks: &mut Vec<Check>) -> Option<()> {
        let mut note = |check: &str, outcome: anyhow::Result<String>| {
            let ok = outcome.is_ok();
            let detail = outcome.unwrap_or_else(|e| format!("{e:#}"));
            self.progress.done(&format!("{} {check}", if ok { "ok:" } else { "FAILED:" }));
            checks.push(Check { check: check.to_owned(), ok, detail });
            ok.then_some(())
        };
        note("every node sees all nodes alive", self.members().await)?;
        note("a write is accepted through every processor", self.writes().await)?;
        for (kind, wire) in [
            (RecordType::A, Wire::Udp),
            (RecordType::A, Wire::Tcp),
            (RecordType::SRV, Wire::Udp),
            (RecordType::SRV, Wire::Tcp),
        ] {
            let transport = if wire == Wire::Udp { "UDP" } else { "TCP" };
            note(
                &format!("every name has {kind} on every node ({transport})"),
                self.names(kind, wire).await,
            )?;
        }
        if self.has_packets() {
            note("what contracts allow passes, by name", self.allowed(self.served).await)?;
            note("what no contract allows does not", proof::refused(self.catalog, self.served).await)?;
        } else {
            note("what SRV names answers over HTTP", self.answers(&self.state.nodes).await)?;
        }
        let doomed = self.state.nodes.first()?.cloud().to_owned();
        let cloud = cloud_loss::Scene::of_state(self.selvedge, self.state);
        let loss = match cloud.lose(&doomed, self.progress).await {
            Ok(loss) => loss,
            Err(error) => return note(&format!("{doomed} is killed"), Err(error)),
        };
        note(&format!("{doomed} is killed: writes go on"), loss.writes_verdict())?;
        note(&format!("{doomed} is killed: no survivor names its endpoints"), loss.dns_verdict())?;
        let survivors: Vec<_> = self.state.nodes.iter().filter(|n| n.cloud() != doomed).cloned().collect();
        if !self.has_packets() {
            return note("what the survivors name answers over HTTP", self.answers(&survivors).await);
        }
        let lives = |served: &&Served| survivors.iter().any(|node| node.name == served.info.node);
        let living: Vec<_> = self.served.iter().filter(lives).cloned().collect();
        note("survivors reach survivors, by name", self.allowed(&living).await)?;
        note("and what no contract allows does not pass", proof::refused(self.catalog, &living).await)
    }

    /// Whether endpoints have networks of their own.
    fn has_packets(&self) -> bool {
        self.state.without.is_none()
    }

    async fn allowed(&self, served: &[Served]) -> anyhow::Result<String> {
        proof::allowed(self.catalog, served, &self.state.suffix).await
    }

    async fn members(&self) -> anyhow::Result<String> {
        let nodes = &self.state.nodes;
        for node in nodes {
            let members: Vec<Member> = self.selvedge.ask(&node.socket, &["members"]).await?;
            let missing = not_alive(nodes, &members);
            ensure!(missing.is_empty(), "{} does not see alive: {}", node.name, missing.join(", "));
        }
        Ok(format!("{} nodes", nodes.len()))
    }

    async fn writes(&self) -> anyhow::Result<String> {
        let mut writer = ProbeWriter::new(self.selvedge)?;
        let mut slowest = Duration::ZERO;
        let processors: Vec<_> = self.state.nodes.iter().filter(|n| n.is_processor()).collect();
        for node in &processors {
            let started = Instant::now();
            writer.write(&node.door()).await.with_context(|| format!("through {}", node.name))?;
            slowest = slowest.max(started.elapsed());
        }
        if let Some(node) = processors.first() {
            writer.clean_up(&node.door()).await?;
        }
        Ok(format!("{} writes, the slowest in {} ms", processors.len(), slowest.as_millis()))
    }

    async fn names(&self, kind: RecordType, wire: Wire) -> anyhow::Result<String> {
        let mut slowest = Duration::ZERO;
        let mut asked = 0;
        for node in &self.state.nodes {
            for contract in &self.catalog.contracts {
                let started = Instant::now();
                let name = self.name_of(contract);
                let answer = dns::ask(node.dns, &name, kind, wire).await?;
                dns::ensure_positive(&answer).with_context(|| format!("{} on {}", name, node.name))?;
                let found = match kind {
                    RecordType::SRV => dns::targets(&answer).len(),
                    _ => dns::addresses(&answer).len(),
                };
                ensure!(found > 0, "{name} on {}: no {kind} among the answers", node.name);
                slowest = slowest.max(started.elapsed());
                asked += 1;
            }
        }
        Ok(format!("{asked} questions, the slowest answered in {:.1} ms", slowest.as_secs_f64() * 1e3))
    }

    /// Follows every name as a client would: SRV, the address of each target, HTTP at its port.
    async fn answers(&self, nodes: &[NodeInfo]) -> anyhow::Result<String> {
        let mut reached = BTreeSet::new();
        for node in nodes {
            for contract in &self.catalog.contracts {
                let name = self.name_of(contract);
                let srv = dns::ask(node.dns, &name, RecordType::SRV, Wire::Udp).await?;
                let targets = dns::targets(&srv);
                ensure!(!targets.is_empty(), "{name} has no SRV record on {}", node.name);
                for target in targets {
                    let server = self.address_of(node, &target).await?;
                    // Which server answers does not depend on who told its address.
                    if reached.insert((contract.contract.clone(), server)) {
                        self.meet(contract, server)
                            .await
                            .with_context(|| format!("{name} by {}", node.name))?;
                    }
                }
            }
        }
        let servers: BTreeSet<_> = reached.iter().map(|(_, server)| server).collect();
        Ok(format!("{} servers behind {} names", servers.len(), self.catalog.contracts.len()))
    }

    async fn address_of(&self, node: &NodeInfo, target: &Target) -> anyhow::Result<SocketAddr> {
        let answer = dns::ask(node.dns, &target.host, RecordType::A, Wire::Udp).await?;
        let Some(address) = dns::addresses(&answer).first().copied() else {
            bail!("{} names the target {}, which has no address there", node.name, target.host);
        };
        Ok(SocketAddr::new(IpAddr::V4(address), target.port))
    }

    async fn meet(&self, contract: &ContractNeed, server: SocketAddr) -> anyhow::Result<()> {
        let card: Card = http::get(server, "/").await?;
        let known = contract.servers.iter().any(|s| s.to_string() == card.service);
        ensure!(known, "{server} is of {}, which does not serve {}", card.service, contract.contract);
        Ok(())
    }

    fn name_of(&self, contract: &ContractNeed) -> String {
        format!("{}.{}.{}", contract.contract.name, contract.contract.domain, self.state.suffix)
    }
}
