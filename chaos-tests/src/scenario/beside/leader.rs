//! The leader of three voters is killed: how long until a write is acknowledged again?

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{etcd::Etcd, first_success};
use crate::{
    lab::{
        Lab, Options, PATIENCE, ask, eventually,
        http::{self, Request, Server},
    },
    scenario::Distribution,
};

/// How long one write is waited for.
const ONE_WRITE: Duration = Duration::from_secs(10);
const GAP_LIMIT: Duration = Duration::from_secs(60);

/// Times from the kill of the leader to the first acknowledged write.
#[derive(Debug, Clone, Default)]
pub struct Gaps {
    /// Of Selvedge.
    pub ours: Distribution,
    /// Of etcd.
    pub etcd: Distribution,
}

/// Kills `count` leaders of each, in turns.
///
/// # Errors
/// When a fabric or a cluster does not come up, or does not get over a loss.
pub fn run(count: u32) -> anyhow::Result<Gaps> {
    let mut lab = Lab::start(&Options { processors: 1, ..Options::default() })?;
    let mut etcd = Etcd::start()?;
    let mut gaps = Gaps::default();
    for number in 1..=count {
        let (mut mine, mut theirs) = (None, None);
        // Who goes first changes, so that neither always finds what the other left.
        for turn in [number, number + 1] {
            if turn % 2 == 0 {
                mine = Some(ours(&mut lab, number).with_context(|| format!("kill {number}"))?);
            } else {
                theirs = Some(etcds(&mut etcd).with_context(|| format!("etcd, kill {number}"))?);
            }
        }
        let (mine, theirs) = (mine.unwrap_or_default(), theirs.unwrap_or_default());
        println!("kill {number}: write gap {} ms, etcd {} ms", mine.as_millis(), theirs.as_millis());
        gaps.ours.add(mine);
        gaps.etcd.add(theirs);
    }
    lab.close()?;
    Ok(gaps)
}

fn etcds(etcd: &mut Etcd) -> anyhow::Result<Duration> {
    let leader = etcd.leader()?;
    let others: Vec<_> = (0..3).filter(|member| *member != leader).collect();
    etcd.kill(leader);
    let gap = first_success(2, Instant::now(), GAP_LIMIT, |at| etcd.put(others[at], ONE_WRITE))?;
    etcd.heal()?;
    Ok(gap)
}

fn ours(lab: &mut Lab, number: u32) -> anyhow::Result<Duration> {
    let leader = leader(lab)?;
    let others: Vec<_> =
        lab.nodes.iter().filter(|node| node.name != leader).map(|node| node.socket.clone()).collect();
    lab.node(&leader)?.kill()?;
    let body = format!(
        "{{\"apiVersion\": \"selvedge/v1\", \"kind\": \"Domain\", \"metadata\": {{\"name\": \"gap\"}}, \
         \"spec\": {{\"description\": \"{number}\"}}}}"
    );
    let request = Request { method: "POST", path: "/v1/apply", headers: "", body: &body };
    let gap = first_success(others.len(), Instant::now(), GAP_LIMIT, |at| {
        http::ask(Server::Socket(&others[at]), request, ONE_WRITE).success().is_some()
    })?;
    lab.restart_all()?;
    lab.settle()?;
    Ok(gap)
}

/// Who leads, when all three vote and say the same.
fn leader(lab: &Lab) -> anyhow::Result<String> {
    let mut leader = None;
    eventually("no leader of three voters", PATIENCE, || {
        leader = None;
        for node in &lab.nodes {
            let quorum = ask(node, &["quorum", "status"])?;
            let live =
                quorum["voters"].as_array().into_iter().flatten().filter(|v| v["live"] == true).count();
            ensure!(live == 3, "{live} live voters");
            let said = quorum["leader"].as_str().context("nobody leads")?.to_owned();
            ensure!(leader.as_ref().is_none_or(|leader| *leader == said), "{leader:?} or {said}");
            leader = Some(said);
        }
        Ok(())
    })?;
    leader.context("there are no nodes")
}
