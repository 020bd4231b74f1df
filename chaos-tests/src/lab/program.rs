//! Programs as a host runs them: in a workload's namespace, with no privileges, ended with the value.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};

use super::workload::Workload;

/// How long a program may take to end when it is asked to.
const END_LIMIT: Duration = Duration::from_secs(10);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// A program that runs.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `words` as `user` in a workload, with the workload's name resolution. What it says goes to a
    /// log in `dir`, as which it also gets a directory of its own: its working directory.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(
        workload: &Workload,
        user: &str,
        dir: &Path,
        name: &str,
        words: &[&str],
    ) -> anyhow::Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let mut command = command(workload, user, &own_dir(user, dir, name)?);
        let file = File::create(&log)?;
        command.args(words).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child, log })
    }

    /// That it still runs.
    ///
    /// # Errors
    /// What it said before it ended.
    pub fn runs(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} has ended: {ended:?}\n{}", self.name, self.said());
        Ok(())
    }

    /// What it said so far.
    #[must_use]
    pub fn said(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        format!("the log of {}:\n{}", self.name, String::from_utf8_lossy(&log))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + END_LIMIT;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LOOK);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs `words` as `user` in a workload to their end, and returns what they print.
///
/// # Errors
/// What they complain about, when they fail.
pub fn run_in(workload: &Workload, user: &str, dir: &Path, words: &[&str]) -> anyhow::Result<String> {
    let output = command(workload, user, dir).args(words).stdin(Stdio::null()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", words.join(" "), said.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A directory of this name in `dir` that belongs to `user`.
///
/// # Errors
/// When it cannot be made.
pub fn own_dir(user: &str, dir: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let own = dir.join(name);
    fs::create_dir_all(&own)?;
    super::kernel::run("chown", &[user, &own.to_string_lossy()])?;
    Ok(own)
}

/// `ip` and `setpriv` replace themselves by what they run, so the process is the program's own. It dies
/// with the thread that started it, and all groups and privileges are those of its user.
fn command(workload: &Workload, user: &str, dir: &Path) -> Command {
    let (uid, gid) = (format!("--reuid={user}"), format!("--regid={user}"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &workload.name, "setpriv", &uid, &gid, "--init-groups"]);
    command.args(["--no-new-privs", "--pdeathsig", "KILL", "--"]).current_dir(dir);
    command
}
