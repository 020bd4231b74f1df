//! Checks of the host, each with a remedy.
//!
//! What a node cannot do without is *required*. The rest is noted: without kernel features the fabric
//! agrees, gossips and answers DNS all the same, it only does not touch packets.
//!
//! Everything is read from `/proc` and `/sys` or tried out; nothing is changed.

mod host;
mod kernel;
mod network;

use std::path::Path;

use serde::Serialize;

pub(crate) use kernel::lacks_for_packets;

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    /// What was checked.
    pub(crate) check: &'static str,
    /// It is as it should be.
    pub(crate) ok: bool,
    /// A node cannot do without it.
    pub(crate) required: bool,
    /// What was found.
    pub(crate) detail: String,
    /// What to do; empty when nothing needs to be done.
    pub(crate) remedy: String,
}

impl Check {
    /// A finding; its remedy is given only when it is not well.
    fn new(check: &'static str, ok: bool, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        let remedy = if ok { String::new() } else { remedy.into() };
        Self { check, ok, required: false, detail: detail.into(), remedy }
    }

    /// Marks what a node cannot do without.
    fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

/// Checks this host, for a node with this data directory.
pub(crate) fn examine(data_dir: &Path) -> Vec<Check> {
    let kernel = [kernel::version(), kernel::bpf(), kernel::btf(), kernel::bpffs(), kernel::cgroup2()];
    let network = [kernel::tun(), network::mtu(), network::udp_buffers(), network::low_ports()];
    let host = [host::clock(), host::resolver(), host::open_files(), host::data_dir(data_dir)];
    kernel.into_iter().chain(network).chain(network::ports()).chain(host).collect()
}

/// A file of `/proc` or `/sys`, trimmed; empty when it is not there.
fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_finding_has_a_detail_and_every_failure_a_remedy() {
        let checks = examine(Path::new("/nonexistent/selvedge"));
        assert!(checks.len() >= 15, "{}", checks.len());
        for check in checks {
            assert!(!check.detail.is_empty(), "{check:?}");
            assert_eq!(check.ok, check.remedy.is_empty(), "{check:?}");
        }
    }
}
