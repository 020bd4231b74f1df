//! A node process that the playground knows nothing of and that is expected to end by itself, with a
//! clear word.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, bail};

use super::{Finished, PATIENCE, binary, node::die_with_this_thread};

/// A process of `selvedge node run` that is expected to end by itself.
#[derive(Debug)]
pub struct Newcomer {
    child: Child,
    started: Instant,
    dir: tempfile::TempDir,
}

impl Newcomer {
    /// Starts a node of this name that joins with a token. `more` are further options.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn join(name: &str, token: &str, more: &[&str]) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("join.token");
        std::fs::write(&file, token)?;
        let mut command = Command::new(binary::selvedge()?);
        command.args(["node", "run", "--name", name, "--data-dir"]).arg(dir.path().join("data"));
        command.arg("--join-token-file").arg(file).args(more);
        for listener in ["fabric", "gossip", "api", "dns", "workload-api"] {
            command.args([&format!("--listen-{listener}"), "127.0.0.1:0"]);
        }
        command.arg("--socket").arg(dir.path().join("api.sock"));
        Self::spawn(command, dir)
    }

    /// Starts a node by its configuration file.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(config: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(binary::selvedge()?);
        command.args(["node", "run", "--config"]).arg(config);
        Self::spawn(command, tempfile::tempdir()?)
    }

    fn spawn(mut command: Command, dir: tempfile::TempDir) -> anyhow::Result<Self> {
        let log = std::fs::File::create(log_of(dir.path()))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        die_with_this_thread(&mut command);
        let child = command.spawn().context("cannot start a node")?;
        Ok(Self { child, started: Instant::now(), dir })
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// When it does not within [`PATIENCE`].
    pub fn ends(mut self) -> anyhow::Result<Finished> {
        while self.started.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait()? {
                let code = status.code().unwrap_or(-1);
                return Ok(Finished {
                    code,
                    stdout: String::new(),
                    stderr: self.log(),
                    took: self.started.elapsed(),
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        bail!("the node does not end within {PATIENCE:?}; it said:\n{}", self.log())
    }

    fn log(&self) -> String {
        let mut text = String::new();
        let read = std::fs::File::open(log_of(self.dir.path())).and_then(|mut f| f.read_to_string(&mut text));
        read.map_or_else(|e| e.to_string(), |_| text)
    }
}

impl Drop for Newcomer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn log_of(dir: &Path) -> PathBuf {
    dir.join("log")
}
