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

/// Sets `net.<family>.conf.<interface>.<key>`. `false` when it was so already.
///
/// # Errors
/// When there is no such setting, or it may not be written.
pub fn set(family: Family, interface: &str, key: &str, value: &'static str) -> Result<bool, SysctlError> {
    let path = path(family, interface, key);
    // Writing what is there already would fail for nothing where /proc/sys is mounted read-only.
    if std::fs::read_to_string(&path).is_ok_and(|now| now.trim() == value) {
        return Ok(false);
    }
    std::fs::write(&path, value).map_err(|source| SysctlError { path, value, source })?;
    Ok(true)
}

/// Lets the kernel pass on what arrives by an interface of ours. Everything that may pass was decided
/// before; the reverse path filter would ask a second time, and wrongly. `false` when it does so already.
///
/// # Errors
/// When a setting cannot be made.
pub fn forward_from(interface: &str) -> Result<bool, SysctlError> {
    let mut changed = set(Family::V4, interface, "forwarding", "1")?;
    changed |= set(Family::V4, interface, "rp_filter", "0")?;
    changed |= quiet(interface)?;
    // Since Linux 6.17 one interface can forward IPv6 without all others doing so too.
    let one = exists(Family::V6, interface, "force_forwarding");
    let (name, key) = if one { (interface, "force_forwarding") } else { ("all", "forwarding") };
    if exists(Family::V6, name, key) {
        changed |= set(Family::V6, name, key, "1")?;
    }
    Ok(changed)
}

/// No link-local addresses and no router advertisements: nothing on our interfaces is found by asking.
/// `false` when it was so already.
///
/// # Errors
/// When a setting cannot be made.
pub fn quiet(interface: &str) -> Result<bool, SysctlError> {
    let mut changed = false;
    let settings = [("disable_ipv6", "0"), ("addr_gen_mode", "1"), ("accept_ra", "0"), ("accept_dad", "0")];
    for (key, value) in settings {
        // Where IPv6 is switched off there is none of them, and nothing to switch off.
        if exists(Family::V6, interface, key) {
            changed |= set(Family::V6, interface, key, value)?;
        }
    }
    Ok(changed)
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
