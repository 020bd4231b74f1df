//! The data plane: packets of attached workloads are judged in the kernel, by identity.
//!
//! * [`TableImage`] is what the tables hold at one revision: a pure function of the plan.
//! * [`Dataplane`] loads the eBPF programs, puts images into the kernel, attaches workloads, tells what
//!   happens to their packets. All of it is pinned: when this process ends, the last tables stay in
//!   force, and the next process adopts them.
//! * [`Twin`] judges in userspace, with the very same code ([`selvedge_abi::judge`]).
//!
//! The programs are in `programs/`; the object built from them is committed and embedded here, so that
//! building this crate takes no BPF toolchain. `cargo xtask ebpf build` makes it anew.
#![warn(missing_docs)]

mod error;
mod image;
mod kernel;
mod telemetry;
mod twin;

pub use error::{DataplaneError, ImageError};
pub use image::{MAX_LISTS, MAX_TABLE_ENTRIES, TableImage};
pub use kernel::{Attached, Change, Dataplane, Options, Place, Probe};
pub use selvedge_abi as abi;
pub use telemetry::{Counters, EndpointTraffic, Events, FlowEvent};
pub use twin::Twin;

use std::net::{Ipv4Addr, Ipv6Addr};

use selvedge_abi::{
    Address, Attachment, Identity,
    attachment::{GROUP, PROBES},
};

/// The TCP port of the workload API at the gateway, unless configured otherwise.
pub const DEFAULT_API_PORT: u16 = 5500;

/// What is attached: a workload, its addresses, and those under which it reaches its node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Workload {
    /// The service it is.
    pub identity: Identity,
    /// Its IPv4 address.
    pub ipv4: Option<Ipv4Addr>,
    /// Its IPv6 address.
    pub ipv6: Option<Ipv6Addr>,
    /// The IPv4 address at which the node offers it DNS and the workload API.
    pub gateway_ipv4: Option<Ipv4Addr>,
    /// The same for IPv6; link-local is fine.
    pub gateway_ipv6: Option<Ipv6Addr>,
    /// The TCP port of the workload API; 0 for none.
    pub api_port: u16,
    /// Whether the node may open flows to it from the gateway address, as health checks do.
    pub probes: bool,
}

impl Workload {
    /// As the programs see it, with its place in the tables that exist once per attachment.
    #[must_use]
    pub fn attachment(&self, slot: u32) -> Attachment {
        self.with_flags(slot, 0)
    }

    /// The same for a process tree.
    #[must_use]
    pub fn group_attachment(&self, slot: u32) -> Attachment {
        self.with_flags(slot, GROUP)
    }

    fn with_flags(&self, slot: u32, flags: u16) -> Attachment {
        let pair = |v4: Option<Ipv4Addr>, v6: Option<Ipv6Addr>| {
            [
                v4.map_or(Address::NONE, |a| Address::ipv4(a.octets())),
                v6.map_or(Address::NONE, |a| Address::ipv6(a.octets())),
            ]
        };
        Attachment {
            addresses: pair(self.ipv4, self.ipv6),
            gateways: pair(self.gateway_ipv4, self.gateway_ipv6),
            identity: self.identity,
            slot,
            api_port: self.api_port,
            flags: flags | if self.probes { PROBES } else { 0 },
        }
    }
}

impl From<&Attachment> for Workload {
    fn from(attachment: &Attachment) -> Self {
        let ipv4 = |a: &Address| a.is_ipv4().then(|| Ipv4Addr::from_octets(a.0[3].to_ne_bytes()));
        let ipv6 = |a: &Address| (!a.is_none()).then(|| Ipv6Addr::from_octets(a.bytes()));
        Self {
            identity: attachment.identity,
            ipv4: ipv4(&attachment.addresses[0]),
            ipv6: ipv6(&attachment.addresses[1]),
            gateway_ipv4: ipv4(&attachment.gateways[0]),
            gateway_ipv6: ipv6(&attachment.gateways[1]),
            api_port: attachment.api_port,
            probes: attachment.has(PROBES),
        }
    }
}
