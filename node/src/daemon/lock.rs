//! One daemon for one data directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};

use crate::identity::DataDir;

/// How long to wait for a predecessor to let go: a killed process takes a moment to close its files, and
/// whoever restarts it may be faster.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often to look.
const POLL: Duration = Duration::from_millis(20);

/// Holds the directory until it is dropped, also when the process is killed.
pub(super) fn exclusive(dir: &DataDir) -> anyhow::Result<File> {
    let path = dir.path().join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .with_context(|| format!("cannot open {}", path.display()))?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let place = dir.path().display();
                bail!("another selvedge runs on {place}: stop it, or use another data directory")
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
    }
}
