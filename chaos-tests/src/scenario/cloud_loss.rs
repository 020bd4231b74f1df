//! One cloud of three is killed, again and again: writes go on, DNS forgets the dead, and the cloud
//! catches up by itself when its nodes are started again.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

use super::Distribution;
use crate::lab::{self, Lab, LabNode, Options, ask, eventually, write_domain};

/// Within which writes go on and no survivor names a dead endpoint.
const ACCEPTED: Duration = Duration::from_secs(5);

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// From the kill to the first accepted write through a survivor.
    pub write_gap: Distribution,
    /// From the kill until no survivor names an endpoint of the dead.
    pub dns_clean: Distribution,
    /// From the restart until all nodes agree again.
    pub catch_up: Distribution,
}

/// Kills one cloud after the other, `runs` times.
///
/// # Errors
/// When the fabric does not get over one of the losses.
pub fn run(runs: u32) -> anyhow::Result<Outcome> {
    let mut lab = Lab::start(&Options::default())?;
    let clouds = lab.clouds();
    let mut outcome = Outcome::default();
    for (number, cloud) in (1..=runs).zip(clouds.iter().cycle()) {
        once(&mut lab, cloud, number, &mut outcome)
            .with_context(|| format!("run {number}, without {cloud}"))?;
    }
    lab.close()?;
    Ok(outcome)
}

fn once(lab: &mut Lab, cloud: &str, number: u32, outcome: &mut Outcome) -> anyhow::Result<()> {
    let limit = lab::limit(ACCEPTED);
    let doomed = doomed_addresses(lab, cloud)?;
    lab.kill_cloud(cloud)?;
    let killed = Instant::now();
    let survivors: Vec<_> = lab.running().collect();
    let through = survivors.get(number as usize % survivors.len()).context("no survivor")?;
    // Both are watched at once: neither may wait for the other.
    let (write, clean) = std::thread::scope(|scope| {
        let write = scope.spawn(|| first_write(through, &format!("loss-{number}"), killed, limit));
        let clean = forgotten(lab, &survivors, &doomed, killed, limit);
        (write.join(), clean)
    });
    let write = write.map_err(|_| anyhow::anyhow!("the writing thread panicked"))??;
    let clean = clean?;
    println!("run {number}: {cloud} killed; write after {write:?}, DNS clean after {clean:?}");
    outcome.write_gap.add(write);
    outcome.dns_clean.add(clean);
    lab.restart_all()?;
    outcome.catch_up.add(lab.settle()?);
    Ok(())
}

fn doomed_addresses(lab: &Lab, cloud: &str) -> anyhow::Result<BTreeSet<String>> {
    let witness = lab.running().find(|n| n.cloud() != cloud).context("no survivor")?;
    let doomed: Vec<_> = lab.nodes.iter().filter(|n| n.cloud() == cloud).map(|n| n.name.as_str()).collect();
    let endpoints = ask(witness, &["endpoint", "list"])?;
    let of_doomed =
        endpoints.as_array().into_iter().flatten().filter(|e| doomed.iter().any(|n| e["node"] == *n));
    let addresses = of_doomed.flat_map(|e| e["addresses"].as_array().cloned().unwrap_or_default());
    Ok(addresses.filter_map(|a| a.as_str().map(str::to_owned)).collect())
}

fn first_write(node: &LabNode, name: &str, killed: Instant, limit: Duration) -> anyhow::Result<Duration> {
    eventually("no write is accepted", limit.saturating_sub(killed.elapsed()), || {
        let finished = write_domain(node, name)?;
        ensure!(finished.code == 0, "exit code {}: {}", finished.code, finished.stderr.trim());
        Ok(())
    })?;
    Ok(killed.elapsed())
}

fn forgotten(
    lab: &Lab,
    survivors: &[&LabNode],
    doomed: &BTreeSet<String>,
    killed: Instant,
    limit: Duration,
) -> anyhow::Result<Duration> {
    eventually("a dead endpoint is still named", limit.saturating_sub(killed.elapsed()), || {
        for node in survivors {
            for name in &lab.contracts {
                let named = lab::dns::addresses(node.dns, &lab.fqdn(name))?;
                let dead = named.iter().find(|a| doomed.contains(*a));
                ensure!(dead.is_none(), "{} names {dead:?} for {name}", node.name);
            }
        }
        Ok(())
    })?;
    Ok(killed.elapsed())
}
