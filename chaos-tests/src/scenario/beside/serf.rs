//! An agent of serf on each of several hosts, with its profile `lan`. Debian: `serf`.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    net::Ipv4Addr,
    process::Stdio,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_lab::Host;

use super::Process;
use crate::lab::{PATIENCE, eventually};

const PORT: u16 = 7946;
/// Only its own host reaches it.
const RPC: &str = "127.0.0.1:7373";

/// What one agent last said of each other, and when.
type Heard = Arc<Mutex<BTreeMap<String, (Told, Instant)>>>;

/// What an agent says of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Joined,
    Failed,
}

/// The agents. They end with this value.
#[derive(Debug, Default)]
pub struct Serf {
    agents: BTreeMap<String, Agent>,
}

#[derive(Debug)]
struct Agent {
    _process: Process,
    heard: Heard,
}

impl Serf {
    /// Starts the agent of a host, which joins by the agent of `seed`, another host.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn launch(&mut self, host: &Host, seed: Option<&Host>) -> anyhow::Result<()> {
        let public = host.public.context("a host of serf is public")?;
        let mut command = host.namespace.command("serf");
        command.args(["agent", &format!("-node={}", host.name), &format!("-bind=0.0.0.0:{PORT}")]);
        command.args([&format!("-advertise={public}:{PORT}"), &format!("-rpc-addr={RPC}"), "-profile=lan"]);
        if let Some(seed) = seed.and_then(|seed| seed.public) {
            command.arg(format!("-retry-join={seed}:{PORT}")).arg("-retry-interval=1s");
        }
        let started = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let mut process = Process(started.context("cannot run serf (Debian: serf)")?);
        let (heard, stdout) = (Heard::default(), process.0.stdout.take().context("no standard output")?);
        let mine = Arc::clone(&heard);
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some((name, told)) = read(&line) {
                    let mut heard = mine.lock().unwrap_or_else(PoisonError::into_inner);
                    heard.insert(name, (told, Instant::now()));
                }
            }
        });
        self.agents.insert(host.name.clone(), Agent { _process: process, heard });
        Ok(())
    }

    /// Kills the agent of a host (`kill -9`).
    pub fn kill(&mut self, name: &str) {
        self.agents.remove(name);
    }

    /// Waits until every agent takes every other for alive.
    ///
    /// # Errors
    /// When that does not happen.
    pub fn settle(&self) -> anyhow::Result<()> {
        eventually("the agents of serf do not agree", PATIENCE, || {
            for (name, agent) in &self.agents {
                let heard = agent.heard.lock().unwrap_or_else(PoisonError::into_inner);
                for other in self.agents.keys() {
                    let told = heard.get(other).map(|(told, _)| *told);
                    ensure!(told == Some(Told::Joined), "{name} holds {other} for {told:?}");
                }
            }
            Ok(())
        })
        .map(drop)
    }

    /// From `since` until all others took a host for failed.
    ///
    /// # Errors
    /// When they do not within `limit`.
    pub fn all_know(&self, lost: &str, since: Instant, limit: Duration) -> anyhow::Result<Duration> {
        let mut last = since;
        eventually(&format!("not all agents of serf know of {lost}"), limit, || {
            for (name, agent) in self.agents.iter().filter(|(name, _)| *name != lost) {
                let heard = agent.heard.lock().unwrap_or_else(PoisonError::into_inner);
                match heard.get(lost) {
                    Some((Told::Failed, at)) if *at >= since => last = last.max(*at),
                    other => anyhow::bail!("{name}: {other:?}"),
                }
            }
            Ok(())
        })?;
        Ok(last.duration_since(since))
    }
}

/// The event in a line such as `… [INFO] serf: EventMemberFailed: n5 10.0.0.5`.
fn read(line: &str) -> Option<(String, Told)> {
    let (_, event) = line.split_once("EventMember")?;
    let (kind, rest) = event.split_once(": ")?;
    let told = match kind {
        "Join" => Told::Joined,
        "Failed" => Told::Failed,
        _ => return None,
    };
    let mut words = rest.split_whitespace();
    let (name, address) = (words.next()?, words.next()?);
    address.parse::<Ipv4Addr>().ok()?;
    Some((name.to_owned(), told))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_events_are_read() {
        let line = "    2026/11/22 01:40:00 [INFO] serf: EventMemberFailed: n5 198.51.100.5";
        assert_eq!(read(line), Some(("n5".to_owned(), Told::Failed)));
        assert_eq!(
            read("2026/11/22 [INFO] serf: EventMemberJoin: n1 10.0.0.1").map(|e| e.1),
            Some(Told::Joined)
        );
        assert_eq!(read("2026/11/22 [INFO] serf: EventMemberUpdate: n1"), None);
    }
}
