//! One daemon for one data directory.

use std::{
    fs::{File, OpenOptions, TryLockError},
    os::unix::fs::OpenOptionsExt,
};

use anyhow::{Context, bail};

use crate::identity::DataDir;

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
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            bail!("another selvedge runs on {}: stop it, or use another data directory", dir.path().display())
        }
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
    }
}
