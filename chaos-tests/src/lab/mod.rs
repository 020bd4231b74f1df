//! A fabric of real processes under the control of a test.
//!
//! `selvedge playground` brings it up; then the lab kills and restarts nodes by itself, which the
//! playground never does. Only one lab exists at a time in a process: tests share few cores, and what
//! they measure should not be each other.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError, mpsc},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde::Deserialize;
use serde_json::Value;

pub mod binary;
pub mod capture;
pub mod dns;
pub mod flood;
pub mod founder;
pub mod http;
pub mod islands;
pub mod kernel;
pub mod load;
mod newcomer;
mod node;
pub mod pins;
pub mod program;
mod shop;
pub mod voting;
pub mod workload;
pub mod world;

pub use newcomer::Newcomer;
pub use node::LabNode;
pub use shop::shop;

/// How long a fabric may take to come up.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// How long a playground may take to end everything.
const END_LIMIT: Duration = Duration::from_secs(20);
/// How long anything may take that a test waits for without having an own limit for it.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// By what the times of the acceptance are stretched unless `SELVEDGE_STRICT_TIMES=1`.
pub const SLACK: u32 = 6;

static TURN: Mutex<()> = Mutex::new(());

/// What to bring up.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The clouds, separated by commas; aws, azr and gcp when absent.
    pub clouds: Option<String>,
    /// Processors in each cloud; 2 when zero.
    pub processors: usize,
    /// Workload nodes in each cloud.
    pub workloads: usize,
    /// Manifests in place of the reference applications.
    pub graph: Option<String>,
    /// TOML to append to the configuration of every node.
    pub node_config: Option<String>,
    /// Where everything is kept; a temporary directory when absent.
    pub dir: Option<PathBuf>,
}

/// A fabric. Everything of it ends when this value is dropped.
#[derive(Debug)]
pub struct Lab {
    /// Its nodes. Declared first, so that nodes that the lab started end before their directory goes.
    pub nodes: Vec<LabNode>,
    /// Its DNS suffix.
    pub suffix: String,
    /// Names of its contracts, without the suffix.
    pub contracts: Vec<String>,
    playground: Playground,
    _inputs: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// How a command ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its exit code; -1 when a signal ended it.
    pub code: i32,
    /// What it printed.
    pub stdout: String,
    /// What it complained about.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

/// The line that a playground prints when it is ready.
#[derive(Deserialize)]
struct Ready {
    suffix: String,
    nodes: Vec<LabNode>,
    contracts: Vec<String>,
    dir: PathBuf,
}

#[derive(Debug)]
struct Playground(Child);

/// Waits until no other lab of this process exists. Some of what they have is the machine's: the root
/// cgroup, and time.
pub(crate) fn take_turn() -> MutexGuard<'static, ()> {
    // A test that failed poisons the lock; the others may go on all the same.
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Lab {
    /// Brings a fabric up.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let turn = take_turn();
        let inputs = tempfile::tempdir()?;
        let mut command = Command::new(binary::selvedge()?);
        // Nodes of the host's own network, so that the lab can start them again where they were.
        command.args(["playground", "--rootless", "-o", "json"]);
        command.args(["--workloads", &options.workloads.to_string()]);
        if options.processors > 0 {
            command.args(["--processors", &options.processors.to_string()]);
        }
        if let Some(clouds) = &options.clouds {
            command.args(["--clouds", clouds]);
        }
        if let Some(dir) = &options.dir {
            command.arg("--dir").arg(dir);
        }
        for (flag, text) in [("--graph", &options.graph), ("--node-config", &options.node_config)] {
            if let Some(text) = text {
                let file = inputs.path().join(flag.trim_start_matches('-'));
                std::fs::write(&file, text)?;
                command.arg(flag).arg(file);
            }
        }
        let (playground, ready) = Playground::start(&mut command)?;
        let mut nodes = ready.nodes;
        for node in &mut nodes {
            node.dir = ready.dir.join(&node.name);
        }
        Ok(Self {
            nodes,
            suffix: ready.suffix,
            contracts: ready.contracts,
            playground,
            _inputs: inputs,
            _turn: turn,
        })
    }

    /// The node of this name.
    ///
    /// # Errors
    /// When there is none.
    pub fn node(&mut self, name: &str) -> anyhow::Result<&mut LabNode> {
        self.nodes.iter_mut().find(|n| n.name == name).with_context(|| format!("no node {name}"))
    }

    /// The clouds, in order.
    #[must_use]
    pub fn clouds(&self) -> Vec<String> {
        let mut clouds: Vec<_> = self.nodes.iter().map(|n| n.cloud().to_owned()).collect();
        clouds.sort();
        clouds.dedup();
        clouds
    }

    /// Kills every process of a cloud.
    ///
    /// # Errors
    /// When one cannot be killed.
    pub fn kill_cloud(&mut self, cloud: &str) -> anyhow::Result<()> {
        self.nodes.iter_mut().filter(|n| n.cloud() == cloud).try_for_each(LabNode::kill)
    }

    /// Starts every node again that does not run.
    ///
    /// # Errors
    /// When one cannot be started.
    pub fn restart_all(&mut self) -> anyhow::Result<()> {
        self.nodes.iter_mut().filter(|n| !n.is_running()).try_for_each(LabNode::restart)
    }

    /// Nodes that run.
    pub fn running(&self) -> impl Iterator<Item = &LabNode> {
        self.nodes.iter().filter(|n| n.is_running())
    }

    /// The full name of a contract, given as `contract.domain`.
    #[must_use]
    pub fn fqdn(&self, name: &str) -> String {
        format!("{name}.{}", self.suffix)
    }

    /// Waits until every running node sees exactly the running nodes alive and has applied the same
    /// revision.
    ///
    /// # Errors
    /// When that does not happen within [`PATIENCE`].
    pub fn settle(&self) -> anyhow::Result<Duration> {
        let running: Vec<_> = self.running().collect();
        eventually("the nodes do not agree", PATIENCE, || {
            let mut revisions = Vec::new();
            for node in &running {
                let members = ask(node, &["members"])?;
                let state = |name: &str| {
                    let all = members.as_array().into_iter().flatten();
                    all.into_iter().find(|m| m["name"] == name).map(|m| m["state"].clone())
                };
                for other in &self.nodes {
                    let alive = state(&other.name).is_some_and(|s| s == "alive");
                    let runs = running.iter().any(|r| r.name == other.name);
                    ensure!(alive == runs, "{} sees {} as {:?}", node.name, other.name, state(&other.name));
                }
                revisions.push(ask(node, &["status"])?["revision"].clone());
            }
            ensure!(revisions.windows(2).all(|w| w[0] == w[1]), "revisions {revisions:?}");
            Ok(())
        })
    }

    /// Ends the playground, and returns whether it ended by itself, cleanly and in time.
    ///
    /// # Errors
    /// When it did not.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.nodes.clear();
        self.playground.end()
    }
}

impl Playground {
    fn start(command: &mut Command) -> anyhow::Result<(Self, Ready)> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut playground = Self(child.context("cannot start a playground")?);
        let stdout = playground.0.stdout.take().context("no standard output")?;
        let (send, line) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = String::new();
            let _ = BufReader::new(stdout).read_line(&mut text);
            let _ = send.send(text);
        });
        let line = line.recv_timeout(READY_LIMIT).context("the playground does not get ready")?;
        let ready: Ready = serde_json::from_str(&line)
            .with_context(|| format!("the playground did not get ready; it printed {line:?}"))?;
        Ok((playground, ready))
    }

    fn end(&mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.0);
        if self.0.try_wait()?.is_none() {
            kill_process(pid, Signal::TERM)?;
        }
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.0.try_wait()? {
                ensure!(status.success(), "the playground ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the playground does not end within {END_LIMIT:?}")
    }
}

impl Drop for Playground {
    fn drop(&mut self) {
        if self.end().is_err() {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

/// Runs `selvedge` against a node, whatever comes of it.
///
/// # Errors
/// When it cannot be run at all.
pub fn run(node: &LabNode, args: &[&str]) -> anyhow::Result<Finished> {
    run_at(&node.socket, args)
}

fn run_at(socket: &Path, args: &[&str]) -> anyhow::Result<Finished> {
    let started = Instant::now();
    let output = Command::new(binary::selvedge()?)
        .args([Path::new("--socket"), socket])
        .args(args)
        .stdin(Stdio::null())
        .output()?;
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        took: started.elapsed(),
    })
}

/// Runs `selvedge … -o json` against a node; it must succeed.
///
/// # Errors
/// When it does not, or prints no JSON.
pub fn ask(node: &LabNode, args: &[&str]) -> anyhow::Result<Value> {
    ask_at(&node.socket, args)
}

fn ask_at(socket: &Path, args: &[&str]) -> anyhow::Result<Value> {
    let finished = run_at(socket, &[args, &["-o", "json"]].concat())?;
    let said = || format!("{} at {}: {}", args.join(" "), socket.display(), finished.stderr.trim());
    ensure!(finished.code == 0, "exit code {}: {}", finished.code, said());
    serde_json::from_str(&finished.stdout).with_context(said)
}

/// The metrics of the node behind `socket`, as text.
///
/// # Errors
/// When it does not answer.
pub fn metrics(socket: &Path) -> anyhow::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: local\r\nConnection: close\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    ensure!(text.starts_with("HTTP/1.1 200"), "{text}");
    Ok(text)
}

/// Waits until a node's events have one of this code whose subject or message contains all of `words`.
///
/// # Errors
/// When none comes within [`PATIENCE`].
pub fn event(node: &LabNode, code: &str, words: &[&str]) -> anyhow::Result<()> {
    eventually(&format!("{} shows no {code} with {words:?}", node.name), PATIENCE, || {
        let events = ask(node, &["events"])?;
        let texts = events.as_array().into_iter().flatten().filter(|e| e["code"] == code);
        let texts: Vec<_> = texts.map(|e| format!("{}: {}", e["subject"], e["message"])).collect();
        let found = texts.iter().any(|text| words.iter().all(|word| text.contains(word)));
        ensure!(found, "it shows {texts:?}");
        Ok(())
    })?;
    Ok(())
}

/// Applies a domain of this name through a node.
///
/// # Errors
/// When the command cannot be run at all.
pub fn write_domain(node: &LabNode, name: &str) -> anyhow::Result<Finished> {
    write_domain_at(&node.socket, name)
}

/// The same, through the node behind `socket`.
///
/// # Errors
/// When the command cannot be run at all.
pub fn write_domain_at(socket: &Path, name: &str) -> anyhow::Result<Finished> {
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    let text = format!("apiVersion: selvedge/v1\nkind: Domain\nmetadata: {{name: {name}}}\nspec: {{}}\n");
    std::fs::write(file.path(), text)?;
    run_at(socket, &["apply", "-f", &file.path().to_string_lossy(), "-o", "json"])
}

/// Tries until it succeeds; returns how long that took.
///
/// # Errors
/// `what` and the last failure, when the limit has passed.
pub fn eventually(
    what: &str,
    limit: Duration,
    mut attempt: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let started = Instant::now();
    loop {
        match attempt() {
            Ok(()) => return Ok(started.elapsed()),
            Err(last) if started.elapsed() > limit => bail!("{what} after {limit:?}: {last:#}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// The limit that a test asserts for a time of the acceptance.
#[must_use]
pub fn limit(acceptance: Duration) -> Duration {
    let strict = std::env::var("SELVEDGE_STRICT_TIMES").is_ok_and(|v| v == "1");
    if strict { acceptance } else { acceptance * SLACK }
}

/// A number from the environment.
#[must_use]
pub fn count(variable: &str, default: u32) -> u32 {
    std::env::var(variable).ok().and_then(|v| v.parse().ok()).unwrap_or(default)
}
