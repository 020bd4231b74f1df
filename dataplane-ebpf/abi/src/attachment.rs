//! Where a workload meets the fabric.

use crate::{Address, Identity};

/// A workload and what it may call its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(C)]
pub struct Attachment {
    /// Its addresses, at most one of each family; the other is [`Address::NONE`].
    pub addresses: [Address; 2],
    /// The addresses under which it reaches its node: DNS and workload API. Likewise.
    pub gateways: [Address; 2],
    /// The service it is.
    pub identity: Identity,
    /// Its place in the tables that exist once per attachment, below [`crate::layout::MAX_ATTACHMENTS`].
    pub slot: u32,
    /// The TCP port of the workload API at the gateway.
    pub api_port: u16,
    /// [`PROBES`], [`GROUP`].
    pub flags: u16,
}

/// The node may open flows to the workload from the gateway address: health checks.
pub const PROBES: u16 = 1;
/// The attachment is a process tree: what it says to itself passes the hooks as well, and is its own
/// affair.
pub const GROUP: u16 = 2;

/// The port of the DNS.
const DNS_PORT: u16 = 53;

impl Attachment {
    /// Whether an address is its own.
    #[must_use]
    #[inline(always)]
    pub const fn owns(&self, address: &Address) -> bool {
        is_one_of(&self.addresses, address)
    }

    /// Whether an address is that of its gateway.
    #[must_use]
    #[inline(always)]
    pub const fn is_gateway(&self, address: &Address) -> bool {
        is_one_of(&self.gateways, address)
    }

    /// Whether a flag is set.
    #[must_use]
    #[inline(always)]
    pub const fn has(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether the gateway offers something on this port.
    #[must_use]
    #[inline(always)]
    pub const fn offers(&self, protocol: u8, port: u16) -> bool {
        match protocol {
            6 => port == DNS_PORT || port == self.api_port && port != 0,
            17 => port == DNS_PORT,
            _ => false,
        }
    }
}

#[inline(always)]
const fn is_one_of(addresses: &[Address; 2], address: &Address) -> bool {
    !address.is_none() && (address.same(&addresses[0]) || address.same(&addresses[1]))
}
