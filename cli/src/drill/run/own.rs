//! A playground for one drill alone.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_fabric::drill::PlaygroundSpec;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

use crate::playground::{
    process::{NodeProcess, ended, log_tail},
    state::State,
};

/// How long it may take to come up.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// Pause between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(200);
/// How long it may take to end by itself.
const END_LIMIT: Duration = Duration::from_secs(30);

/// It ends with this value; [`Own::close`] waits for that.
pub(crate) struct Own {
    process: NodeProcess,
    dir: TempDir,
}

impl Own {
    /// Starts one of this shape.
    ///
    /// # Errors
    /// When it does not come up.
    pub(crate) async fn start(spec: &PlaygroundSpec, rootless: bool) -> anyhow::Result<(Self, State)> {
        let dir = tempfile::Builder::new()
            .prefix("drill-")
            .tempdir_in("/tmp")
            .context("cannot make a directory")?;
        let mut command = Command::new(std::env::current_exe().context("cannot tell which program this is")?);
        let clouds: Vec<_> = spec.clouds.iter().map(ToString::to_string).collect();
        command.args(["playground", "-o", "json", "--clouds", &clouds.join(",")]);
        command.args([
            "--processors",
            &spec.processors.to_string(),
            "--workloads",
            &spec.workloads.to_string(),
        ]);
        command.arg("--dir").arg(home(dir.path()));
        if rootless {
            command.arg("--rootless");
        }
        if !spec.node_config.is_empty() {
            let file = dir.path().join("node-config.toml");
            std::fs::write(&file, &spec.node_config)
                .with_context(|| format!("cannot write {}", file.display()))?;
            command.arg("--node-config").arg(file);
        }
        let process = NodeProcess::spawn(command, &dir.path().join("log")).await.context("a playground")?;
        let own = Self { process, dir };
        let state = own.ready().await?;
        Ok((own, state))
    }

    async fn ready(&self) -> anyhow::Result<State> {
        let (started, log) = (Instant::now(), self.dir.path().join("log"));
        while started.elapsed() < READY_LIMIT {
            ensure!(!self.process.has_ended(), "the playground ended:\n{}", log_tail(&log));
            if let Ok(Some(state)) = State::load(&home(self.dir.path()))
                && state.ready
            {
                return Ok(state);
            }
            sleep(LOOK_PAUSE).await;
        }
        bail!("the playground is not ready after {READY_LIMIT:?}:\n{}", log_tail(&log))
    }

    /// Ends it and waits until everything of it is gone.
    pub(crate) async fn close(self) {
        if let Some(pid) = i32::try_from(self.process.pid()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if timeout(END_LIMIT, ended(self.process.exit())).await.is_err() {
            self.process.kill().await;
        }
    }
}

fn home(dir: &Path) -> std::path::PathBuf {
    dir.join("p")
}
