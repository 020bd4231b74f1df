//! Drives nodes as a person would: by running `selvedge` itself. A playground then proves the very
//! commands that its users type, and nothing here is hot.

use std::{path::Path, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use serde::de::DeserializeOwned;
use tokio::{process::Command, time::timeout};

use crate::drill::ground::Door;

/// Longest a command may take. Every command has shorter limits of its own; this one only keeps a
/// hanging one from hanging us.
const CALL_LIMIT: Duration = Duration::from_secs(60);
/// Would redirect a command to another node or token.
const AMBIENT: [&str; 3] = ["SELVEDGE_SOCKET", "SELVEDGE_API", "SELVEDGE_TOKEN_FILE"];

/// How a command ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// Its exit code; -1 when a signal ended it.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs `selvedge` commands.
#[derive(Debug, Clone)]
pub(crate) struct Selvedge {
    program: PathBuf,
}

impl Selvedge {
    /// The program that is running now.
    pub(crate) fn this() -> anyhow::Result<Self> {
        Ok(Self { program: std::env::current_exe().context("cannot tell which program this is")? })
    }

    /// A command that runs a node, by this program unless another is named.
    pub(crate) fn node_run(&self, program: Option<&Path>, config: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program.unwrap_or(&self.program));
        command.args(["node", "run", "--config"]).arg(config);
        AMBIENT.iter().for_each(|name| {
            command.env_remove(name);
        });
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> anyhow::Result<Finished> {
        let mut command = Command::new(&self.program);
        command.args(args).stdin(Stdio::null()).kill_on_drop(true);
        AMBIENT.iter().for_each(|name| {
            command.env_remove(name);
        });
        let shown = || {
            let words: Vec<_> = args.iter().map(|a| a.as_ref().to_string_lossy()).collect();
            format!("selvedge {}", words.join(" "))
        };
        let output = timeout(CALL_LIMIT, command.output())
            .await
            .with_context(|| format!("{} did not end within {CALL_LIMIT:?}", shown()))?
            .with_context(|| format!("cannot run {}", shown()))?;
        Ok(Finished {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Runs a command that must succeed and print JSON.
    pub(crate) async fn json<T: DeserializeOwned>(&self, args: &[&str]) -> anyhow::Result<T> {
        let args = [args, &["-o", "json"]].concat();
        let finished = self.run(&args).await?;
        if finished.code != 0 {
            bail!("selvedge {} failed ({}): {}", args.join(" "), finished.code, finished.stderr.trim());
        }
        serde_json::from_str(&finished.stdout).with_context(|| {
            format!("selvedge {} printed something unexpected: {}", args.join(" "), finished.stdout.trim())
        })
    }

    /// Runs a command against the node behind a door.
    pub(crate) async fn through(&self, door: &Door, args: &[&str]) -> anyhow::Result<Finished> {
        let all: Vec<_> = door.options().into_iter().chain(args.iter().map(|a| (*a).to_owned())).collect();
        self.run(&all).await
    }

    /// Runs a command against the node behind `socket` that must succeed and print JSON.
    pub(crate) async fn ask<T: DeserializeOwned>(&self, socket: &Path, args: &[&str]) -> anyhow::Result<T> {
        let args = on_socket(socket, args);
        self.json(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    }
}

fn on_socket(socket: &Path, args: &[&str]) -> Vec<String> {
    let to = ["--socket".to_owned(), socket.to_string_lossy().into_owned()];
    to.into_iter().chain(args.iter().map(|a| (*a).to_owned())).collect()
}
