//! Settings of interfaces under /proc/sys/net, in the namespace of the calling thread.

use std::{io, path::PathBuf};

/// Which half of the network stack a setting is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why a setting could not be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {value} to {path}: {source}")]
pub struct SysctlError {
    path: PathBuf,
    value: &'static str,
    source: io::Error,
}

/// Sets `net.<family>.conf.<interface>.<key>`.
///
/// # Errors
/// When there is no such setting, or it may not be written.
pub fn set(family: Family, interface: &str, key: &str, value: &'static str) -> Result<(), SysctlError> {
    let path = path(family, interface, key);
    // Writing what is there already would fail for nothing where /proc/sys is mounted read-only.
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(());
    }
    std::fs::write(&path, value).map_err(|source| SysctlError { path, value, source })
}

/// Whether this kernel has a setting.
#[must_use]
pub fn exists(family: Family, interface: &str, key: &str) -> bool {
    path(family, interface, key).exists()
}

fn path(family: Family, interface: &str, key: &str) -> PathBuf {
    let family = match family {
        Family::V4 => "ipv4",
        Family::V6 => "ipv6",
    };
    PathBuf::from(format!("/proc/sys/net/{family}/conf/{interface}/{key}"))
}
