//! The loss of a cloud, as `selvedge playground --check` proves it: every process of one cloud is killed at the
//! same moment, and the survivors are watched from outside. Two things must be over within [`LIMIT`]: writes
//! through a survivor go on, and no survivor's DNS names an endpoint of the dead cloud. The drill `cloud-loss`
//! asks for more, and brings the cloud back; the check goes on with the survivors alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use hickory_proto::rr::RecordType;
use rustix::process::{Pid, Signal, kill_process};
use selvedge_node::api::types::Endpoint;

use super::{
    driver::Selvedge,
    progress::Progress,
    state::{NodeInfo, State, is_process},
};
use crate::{
    drill::probe_write::ProbeWriter,
    probe::dns::{self, Wire},
};

/// How long the fabric may take to get over the loss.
const LIMIT: Duration = Duration::from_secs(5);
/// Sets another limit, in seconds, for machines that are busy with something else: they measure their
/// own load, not the fabric.
const LIMIT_VARIABLE: &str = "SELVEDGE_DRILL_LIMIT_S";
/// How long it is watched before the drill gives up.
const WATCH_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two rounds of questions to one node.
const ROUND_PAUSE: Duration = Duration::from_millis(50);
/// Rounds without a dead endpoint after which DNS counts as clean; the first of them is the time.
const CLEAN_ROUNDS: u32 = 3;

/// The fabric that is drilled.
pub(crate) struct Scene<'a> {
    selvedge: &'a Selvedge,
    nodes: &'a [NodeInfo],
    /// Fully qualified names of contracts.
    names: Vec<String>,
    /// Holds a directory with the configuration of each node.
    dir: &'a Path,
}

/// What was measured. Times run from the kill; none when the watch ended first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Measurements {
    /// Endpoints that died with them.
    pub(crate) dead_endpoints: usize,
    /// Until the first accepted write through a survivor that was begun after the kill.
    pub(crate) write_gap_ms: Option<u64>,
    /// Writes that failed until then.
    pub(crate) writes_failed: u32,
    /// Until no survivor named a dead endpoint.
    pub(crate) dns_clean_ms: Option<u64>,
    /// The same for each survivor.
    pub(crate) dns_clean_ms_by_node: BTreeMap<String, Option<u64>>,
    /// Questions to survivors, and those that were not answered.
    pub(crate) dns_questions: u64,
    pub(crate) dns_unanswered: u64,
    /// What the fabric may take.
    pub(crate) limit_ms: u64,
}

/// What must not be named any more.
#[derive(Default)]
struct Dead {
    ids: BTreeSet<String>,
    addresses: BTreeSet<String>,
}

/// What the questions to one survivor showed.
#[derive(Default)]
struct DnsWatch {
    clean_ms: Option<u64>,
    questions: u64,
    unanswered: u64,
}

/// What the writes through a survivor showed.
#[derive(Default)]
struct WriteWatch {
    gap_ms: Option<u64>,
    failed: u32,
}

impl<'a> Scene<'a> {
    /// A running playground.
    pub(crate) fn of_state(selvedge: &'a Selvedge, state: &'a State) -> Self {
        let names = state.contracts.iter().map(|c| format!("{c}.{}", state.suffix)).collect();
        Self { selvedge, nodes: &state.nodes, names, dir: &state.dir }
    }

    /// Kills `cloud` and watches the others.
    pub(crate) async fn lose(&self, cloud: &str, progress: &Progress) -> anyhow::Result<Measurements> {
        let (doomed, survivors) = self.split(cloud)?;
        let mut processors = survivors.iter().filter(|node| node.is_processor());
        let witness = processors.next().context("no processor survives")?;
        let dead = self.endpoints_of(&doomed, &witness.socket).await?;
        let mut writer = ProbeWriter::new(self.selvedge)?;
        let healthy = writer.write(&witness.door()).await;
        healthy.with_context(|| format!("before the drill, through {}", witness.name))?;

        progress.doing(&format!("killing {cloud}"));
        for node in &doomed {
            self.kill(node)?;
        }
        let killed = Instant::now();
        progress.doing("watching the survivors");
        let watches = survivors.iter().map(|node| self.watch_dns(node, &dead, killed));
        let (writes, dns) =
            tokio::join!(watch_writes(&mut writer, witness, killed), futures::future::join_all(watches));
        let writes = writes?;
        if writes.gap_ms.is_some() {
            writer.clean_up(&witness.door()).await?;
        }
        let dns: Vec<_> = survivors.iter().map(|n| n.name.clone()).zip(dns).collect();
        Ok(Measurements {
            dead_endpoints: dead.ids.len(),
            write_gap_ms: writes.gap_ms,
            writes_failed: writes.failed,
            // The slowest; none as soon as one of them never got clean.
            dns_clean_ms: dns.iter().try_fold(0, |slowest, (_, w)| Some(slowest.max(w.clean_ms?))),
            dns_clean_ms_by_node: dns.iter().map(|(n, w)| (n.clone(), w.clean_ms)).collect(),
            dns_questions: dns.iter().map(|(_, w)| w.questions).sum(),
            dns_unanswered: dns.iter().map(|(_, w)| w.unanswered).sum(),
            limit_ms: millis(limit()),
        })
    }

    /// The living nodes of `cloud`, and those of all others.
    fn split(&self, cloud: &str) -> anyhow::Result<(Vec<&NodeInfo>, Vec<&NodeInfo>)> {
        let clouds: BTreeSet<_> = self.nodes.iter().map(NodeInfo::cloud).collect();
        ensure!(clouds.contains(cloud), "no cloud {cloud:?}; there are {}", list(&clouds));
        let living = self.nodes.iter().filter(|n| self.is_alive(n));
        let (doomed, survivors): (Vec<_>, Vec<_>) = living.partition(|n| n.cloud() == cloud);
        ensure!(!doomed.is_empty(), "cloud {cloud} is dead already");
        ensure!(!survivors.is_empty(), "nothing would survive the loss of {cloud}");
        Ok((doomed, survivors))
    }

    fn is_alive(&self, node: &NodeInfo) -> bool {
        let config = self.dir.join(&node.name).join("node.toml");
        is_process(node.pid, &config.to_string_lossy())
    }

    fn kill(&self, node: &NodeInfo) -> anyhow::Result<()> {
        let pid = i32::try_from(node.pid).ok().and_then(Pid::from_raw);
        let Some(pid) = pid.filter(|_| self.is_alive(node)) else {
            bail!("process {} is not node {} any more", node.pid, node.name);
        };
        kill_process(pid, Signal::KILL)
            .with_context(|| format!("cannot kill node {} ({})", node.name, node.pid))
    }

    async fn endpoints_of(&self, doomed: &[&NodeInfo], witness: &Path) -> anyhow::Result<Dead> {
        let known: Vec<Endpoint> = self.selvedge.ask(witness, &["endpoint", "list"]).await?;
        let of_doomed = known.into_iter().filter(|e| doomed.iter().any(|n| n.name == e.node));
        let mut dead = Dead::default();
        for endpoint in of_doomed {
            dead.ids.insert(endpoint.id);
            dead.addresses.extend(endpoint.addresses);
        }
        Ok(dead)
    }

    /// Asks one survivor for every name, over and over, until it names nothing dead any more.
    async fn watch_dns(&self, node: &NodeInfo, dead: &Dead, killed: Instant) -> DnsWatch {
        let mut watch = DnsWatch::default();
        let mut clean_rounds = 0;
        while killed.elapsed() < WATCH_LIMIT && clean_rounds < CLEAN_ROUNDS {
            if self.round_is_clean(node, dead, &mut watch).await {
                clean_rounds += 1;
                watch.clean_ms.get_or_insert(millis(killed.elapsed()));
            } else {
                (clean_rounds, watch.clean_ms) = (0, None);
            }
            tokio::time::sleep(ROUND_PAUSE).await;
        }
        watch
    }

    /// Whether `node` names nothing dead. A question that is not answered is not clean either.
    async fn round_is_clean(&self, node: &NodeInfo, dead: &Dead, watch: &mut DnsWatch) -> bool {
        let mut clean = true;
        for name in &self.names {
            for kind in [RecordType::A, RecordType::SRV] {
                watch.questions += 1;
                let Ok(answer) = dns::ask(node.dns, name, kind, Wire::Udp).await else {
                    watch.unanswered += 1;
                    clean = false;
                    continue;
                };
                let named = dns::addresses(&answer).iter().any(|a| dead.addresses.contains(&a.to_string()));
                let targets = dns::targets(&answer);
                let targeted =
                    targets.iter().any(|t| dead.ids.contains(t.host.split('.').next().unwrap_or("")));
                clean &= !named && !targeted;
            }
        }
        clean
    }
}

/// Writes through one survivor, one write after the other, until one is accepted.
async fn watch_writes(
    writer: &mut ProbeWriter<'_>,
    witness: &NodeInfo,
    killed: Instant,
) -> anyhow::Result<WriteWatch> {
    let mut watch = WriteWatch::default();
    while killed.elapsed() < WATCH_LIMIT {
        if writer.attempt(&witness.door()).await?.code == 0 {
            watch.gap_ms = Some(millis(killed.elapsed()));
            break;
        }
        watch.failed += 1;
    }
    Ok(watch)
}

fn limit() -> Duration {
    let seconds = std::env::var(LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok());
    seconds.map_or(LIMIT, Duration::from_secs)
}

impl Measurements {
    /// Whether writes went on in time, with the figure.
    pub(crate) fn writes_verdict(&self) -> anyhow::Result<String> {
        let Some(gap_ms) = self.write_gap_ms else {
            bail!("no write was accepted within {WATCH_LIMIT:?}");
        };
        let figure = format!("first accepted after {gap_ms} ms, {} refused before", self.writes_failed);
        ensure!(gap_ms <= self.limit_ms, "{figure}; it may take {} ms", self.limit_ms);
        Ok(figure)
    }

    /// Whether DNS got clean in time without a gap in its answers, with the figures.
    pub(crate) fn dns_verdict(&self) -> anyhow::Result<String> {
        let Some(clean_ms) = self.dns_clean_ms else {
            bail!("a dead endpoint is still named after {WATCH_LIMIT:?}: {:?}", self.dns_clean_ms_by_node);
        };
        let figure = format!(
            "{} endpoints gone everywhere after {clean_ms} ms; {} of {} questions unanswered",
            self.dead_endpoints, self.dns_unanswered, self.dns_questions
        );
        ensure!(clean_ms <= self.limit_ms, "{figure}; it may take {} ms", self.limit_ms);
        ensure!(self.dns_unanswered == 0, "{figure}");
        Ok(figure)
    }
}

fn list(clouds: &BTreeSet<&str>) -> String {
    clouds.iter().copied().collect::<Vec<_>>().join(", ")
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(write_gap_ms: Option<u64>, dns: &[(&str, Option<u64>)], unanswered: u64) -> Measurements {
        let by_node: BTreeMap<_, _> = dns.iter().map(|(n, ms)| ((*n).to_owned(), *ms)).collect();
        Measurements {
            write_gap_ms,
            dns_clean_ms: by_node.values().try_fold(0, |slowest, ms| Some(slowest.max((*ms)?))),
            dns_clean_ms_by_node: by_node,
            dns_questions: 100,
            dns_unanswered: unanswered,
            limit_ms: 5_000,
            ..Measurements::default()
        }
    }

    fn passes(loss: &Measurements) -> bool {
        loss.writes_verdict().is_ok() && loss.dns_verdict().is_ok()
    }

    #[test]
    fn a_quick_recovery_passes() {
        assert!(passes(&loss(Some(900), &[("azr-p1", Some(400)), ("gcp-p1", Some(1_200))], 0)));
    }

    #[test]
    fn slow_or_missing_recovery_fails() {
        let clean = [("azr-p1", Some(400))];
        for bad in [
            loss(None, &clean, 0),
            loss(Some(5_001), &clean, 0),
            loss(Some(100), &[("azr-p1", None), ("gcp-p1", Some(1))], 0),
            loss(Some(100), &[("azr-p1", Some(6_000))], 0),
            loss(Some(100), &clean, 1),
        ] {
            assert!(!passes(&bad), "{bad:?}");
        }
    }
}
