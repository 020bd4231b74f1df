//! Node processes that cannot outlive the playground.
//!
//! Linux sends the parent-death signal when the *thread* that forked the child ends (prctl(2),
//! PR_SET_PDEATHSIG), and threads of an async runtime come and go. So each child has a keeper: a plain
//! thread that forks it, waits for it and reaps it, and lives exactly as long. If the playground is
//! killed, even by SIGKILL, its keepers go and the kernel kills the nodes.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    os::unix::process::CommandExt as _,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use anyhow::Context as _;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};
use tokio::{
    runtime::Handle,
    sync::{mpsc, oneshot, watch},
};

/// How much of the end of a log is read to show its last lines.
const LOG_TAIL_BYTES: u64 = 16 * 1024;
/// How many lines of a log are shown.
const LOG_TAIL_LINES: usize = 15;

/// A running child with its keeper.
#[derive(Debug)]
pub(crate) struct NodeProcess {
    pid: u32,
    kill: mpsc::Sender<()>,
    exit: watch::Receiver<Option<String>>,
}

impl NodeProcess {
    /// Starts `command` with its output going to the file `log`.
    pub(crate) async fn spawn(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        // A node that is started again goes on in the same log.
        let opened = File::options().append(true).create(true).open(log);
        let out = opened.with_context(|| format!("cannot open {}", log.display()))?;
        let err = out.try_clone().context("cannot duplicate the log's descriptor")?;
        // An own process group: Ctrl-C in a terminal must reach the playground alone, which then ends
        // its nodes itself.
        command.stdin(Stdio::null()).stdout(out).stderr(err).process_group(0);
        die_with_parent(&mut command);
        let (kill, kill_asked) = mpsc::channel(1);
        let (exit_seen, exit) = watch::channel(None);
        let (started, start) = oneshot::channel();
        let runtime = Handle::current();
        thread::Builder::new()
            .name("node-keeper".into())
            .spawn(move || keep(&runtime, command, started, kill_asked, &exit_seen))
            .context("cannot start a thread")?;
        let pid = start.await.context("the keeper thread ended")?.context("cannot start a node process")?;
        Ok(Self { pid, kill, exit })
    }

    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// How the process ended, once it has.
    pub(crate) fn exit(&self) -> watch::Receiver<Option<String>> {
        self.exit.clone()
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.exit.borrow().is_some()
    }

    /// Kills the process and waits until it is reaped. Nodes survive that by design, and what a
    /// playground's node has on disk is deleted next.
    pub(crate) async fn kill(&self) {
        // A full channel means that the kill was asked for already.
        let _ = self.kill.try_send(());
        let _ = self.exit.clone().wait_for(Option::is_some).await;
    }
}

/// Waits until the process behind `exit` has ended, and says how.
pub(crate) async fn ended(mut exit: watch::Receiver<Option<String>>) -> String {
    match exit.wait_for(Option::is_some).await {
        Ok(how) => how.clone().unwrap_or_default(),
        Err(_) => "its keeper is gone".to_owned(),
    }
}

/// The keeper: runs on its own thread for as long as the child lives.
fn keep(
    runtime: &Handle,
    command: Command,
    started: oneshot::Sender<io::Result<u32>>,
    mut kill_asked: mpsc::Receiver<()>,
    exit_seen: &watch::Sender<Option<String>>,
) {
    let _entered = runtime.enter();
    let mut command = tokio::process::Command::from(command);
    let mut child = match command.kill_on_drop(true).spawn() {
        Ok(child) => child,
        Err(error) => {
            let _ = started.send(Err(error));
            return;
        }
    };
    // The id is there until the child is reaped, which only happens below.
    let _ = started.send(child.id().ok_or_else(|| io::Error::other("ended at once")));
    let status = runtime.block_on(async {
        tokio::select! {
            status = child.wait() => status,
            // Also when the playground's side is dropped.
            _ = kill_asked.recv() => {
                let _ = child.start_kill();
                child.wait().await
            }
        }
    });
    let how = status.map_or_else(|e| format!("unknown: {e}"), |status| status.to_string());
    exit_seen.send_replace(Some(how));
}

#[allow(unsafe_code, reason = "Command offers no safe way to set the parent-death signal")]
fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let set = move || {
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died before the line above; then no signal would ever come.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. The closure makes two
    // system calls, prctl and getppid, without allocating or taking a lock; it captures a plain number,
    // and its errors are built from codes alone.
    unsafe { command.pre_exec(set) };
}

/// The last lines of a log file, or why there are none.
pub(crate) fn log_tail(log: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) if text.trim().is_empty() => "(it wrote nothing)".to_owned(),
        Ok(text) => {
            let lines: Vec<_> = text.lines().collect();
            lines[lines.len().saturating_sub(LOG_TAIL_LINES)..].join("\n")
        }
        Err(error) => format!("(cannot read {}: {error})", log.display()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const GENEROUS: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn an_end_is_seen_and_its_words_are_kept() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let child = NodeProcess::spawn(shell("echo out; echo err >&2; exit 3"), &log).await.expect("a child");
        let how = tokio::time::timeout(GENEROUS, ended(child.exit())).await.expect("it ends");
        assert!(how.contains('3'), "{how}");
        assert_eq!(log_tail(&log), "out\nerr");
    }

    #[tokio::test]
    async fn a_kill_is_waited_for() {
        let dir = tempfile::tempdir().expect("a directory");
        let child = NodeProcess::spawn(shell("sleep 600"), &dir.path().join("log")).await.expect("a child");
        tokio::time::timeout(GENEROUS, child.kill()).await.expect("it dies");
        assert!(child.exit().borrow().is_some());
        tokio::time::timeout(GENEROUS, child.kill()).await.expect("killing twice does no harm");
    }

    #[tokio::test]
    async fn a_missing_program_is_an_error() {
        let dir = tempfile::tempdir().expect("a directory");
        let spawned = NodeProcess::spawn(Command::new("/nonexistent/program"), &dir.path().join("log")).await;
        assert!(spawned.is_err());
    }

    #[test]
    fn only_the_end_of_a_long_log_is_shown() {
        let dir = tempfile::tempdir().expect("a directory");
        let log = dir.path().join("log");
        let text: String = (0..10_000).map(|n| format!("line {n}\n")).collect();
        std::fs::write(&log, text).expect("written");
        let tail = log_tail(&log);
        assert_eq!(tail.lines().count(), LOG_TAIL_LINES);
        assert!(tail.ends_with("line 9999"), "{tail}");
        assert!(log_tail(&dir.path().join("none")).starts_with("(cannot read"));
    }
}
