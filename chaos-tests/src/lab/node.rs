//! One node of the lab: a process that can be killed and started again.

use std::{
    fs,
    net::SocketAddr,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::Deserialize;

use super::binary;

/// How long a killed process may take to vanish: its parent only has to reap it.
const VANISH_LIMIT: Duration = Duration::from_secs(20);
/// How many lines of a log an error shows.
const LOG_TAIL_LINES: usize = 25;

/// A node, running or not.
#[derive(Debug, Deserialize)]
pub struct LabNode {
    /// Its name.
    pub name: String,
    /// Its zone.
    pub zone: String,
    /// `processor` or `workload`.
    pub role: String,
    /// Its process, or the last it had.
    pub pid: u32,
    /// Where its API listens.
    pub socket: PathBuf,
    /// Where its DNS listens.
    pub dns: SocketAddr,
    /// Everything of the node lies there.
    #[serde(skip)]
    pub dir: PathBuf,
    /// Another binary than the one under test, from its next start on.
    #[serde(skip)]
    pub binary: Option<PathBuf>,
    /// Set when the lab has started it again; before, it is a child of the playground.
    #[serde(skip)]
    own: Option<Child>,
}

impl LabNode {
    /// A node that is to be started by the lab, from what lies in `dir`.
    #[must_use]
    pub fn new(name: &str, zone: &str, role: &str, dir: PathBuf, dns: SocketAddr) -> Self {
        let socket = dir.join("api.sock");
        let (name, zone, role) = (name.to_owned(), zone.to_owned(), role.to_owned());
        Self { name, zone, role, pid: 0, socket, dns, dir, binary: None, own: None }
    }

    /// The cloud it lies in.
    #[must_use]
    pub fn cloud(&self) -> &str {
        self.zone.split('/').next().unwrap_or_default()
    }

    /// Its configuration file.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    /// Its data directory.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// The end of its log, for errors: the log goes with the lab.
    #[must_use]
    pub fn log_tail(&self) -> String {
        let log = fs::read(self.dir.join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<_> = text.lines().collect();
        format!("its log ends so:\n{}", lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n"))
    }

    /// Whether its process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let line = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let config = self.config();
        line.split(|&b| b == 0).any(|word| Path::new(&*String::from_utf8_lossy(word)) == config)
    }

    /// Sends `signal` and waits until the process is gone.
    fn end(&mut self, signal: Signal) -> anyhow::Result<()> {
        if self.is_running() {
            let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("an impossible pid")?;
            kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))?;
        }
        let deadline = Instant::now() + VANISH_LIMIT;
        loop {
            let gone = match &mut self.own {
                Some(child) => child.try_wait()?.is_some(),
                None => has_ended(self.pid),
            };
            if gone {
                self.own = None;
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "{} ({}) does not go away", self.name, self.pid);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// When the process cannot be killed.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.end(Signal::KILL)
    }

    /// Asks it to stop.
    ///
    /// # Errors
    /// When it does not.
    pub fn stop(&mut self) -> anyhow::Result<()> {
        self.end(Signal::TERM)
    }

    /// Starts it again on what it has on disk. Its log is appended to.
    ///
    /// # Errors
    /// When it runs already, or the process cannot be started.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        if self.is_running() {
            bail!("{} runs already", self.name);
        }
        let log = fs::OpenOptions::new().append(true).create(true).open(self.dir.join("log"))?;
        let mut command = Command::new(self.binary.clone().map_or_else(binary::selvedge, Ok)?);
        command.args(["node", "run", "--config"]).arg(self.config());
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        die_with_this_thread(&mut command);
        let child = command.spawn().with_context(|| format!("cannot start {}", self.name))?;
        self.pid = child.id();
        self.own = Some(child);
        Ok(())
    }
}

/// Whether a process is over, reaped by its parent or not. Its memory goes, and its command line with
/// it, before its files are closed: only then it lets go of its ports and locks.
fn has_ended(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_none_or(|state| matches!(state, 'Z' | 'X'))
}

impl Drop for LabNode {
    fn drop(&mut self) {
        // What the playground started, it ends.
        if let Some(child) = &mut self.own {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A killed test must not leave nodes behind. Each test drives its nodes from one thread, which lives
/// as long as they should.
#[allow(unsafe_code, reason = "Command offers no safe way to set the parent-death signal")]
pub(super) fn die_with_this_thread(command: &mut Command) {
    let set = || Ok(set_parent_process_death_signal(Some(Signal::KILL))?);
    // SAFETY: the closure makes one system call, prctl, which is async-signal-safe, and neither
    // allocates nor takes a lock.
    unsafe { command.pre_exec(set) };
}
