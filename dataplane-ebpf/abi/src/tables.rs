//! What `decide` looks things up in. The layouts are those of the BPF maps.

use crate::{
    Identity,
    verdict::{Mode, Reason, Verdict},
};

/// Most disjoint port ranges of one edge. The bound of the scan in the BPF program, and the number of
/// ports that one contract role may list.
pub const MAX_RANGES: usize = 64;

/// Protocols as verdicts tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Class {
    /// TCP.
    Tcp = 1,
    /// UDP.
    Udp = 2,
    /// ICMP and ICMPv6, which have no ports here.
    Icmp = 3,
    /// Every other protocol; only `any` speaks of it. Has no ports here.
    Other = 4,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 4] = [Self::Tcp, Self::Udp, Self::Icmp, Self::Other];

    /// The class of an IP protocol number.
    #[must_use]
    #[inline(always)]
    pub const fn of(protocol: u8) -> Self {
        match protocol {
            6 => Self::Tcp,
            17 => Self::Udp,
            1 | 58 => Self::Icmp,
            _ => Self::Other,
        }
    }

    /// An IP protocol number of this class.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Icmp => 1,
            Self::Other => 255,
        }
    }

    /// Whether it has ports.
    #[must_use]
    #[inline(always)]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }
}

/// The key of an edge: between services for contracts, between groups for guardrails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct EdgeKey {
    /// Identity or group of the source.
    pub source: u32,
    /// Identity or group of the destination.
    pub destination: u32,
    /// [`Class`] as a number; as wide as the others so that the key has no padding.
    pub class: u32,
}

impl EdgeKey {
    /// A key.
    #[must_use]
    #[inline(always)]
    pub const fn new(source: u32, destination: u32, class: Class) -> Self {
        Self { source, destination, class: class as u32 }
    }
}

/// What holds for an inclusive range of ports of an edge. All zero means: the array ended before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Range {
    /// First port.
    pub low: u16,
    /// Last port.
    pub high: u16,
    reason: u8,
    mode: u8,
    zero: u16,
    /// Number of the rule.
    pub rule: u32,
}

impl Range {
    /// A range.
    #[must_use]
    pub const fn new(low: u16, high: u16, reason: Reason, mode: Mode, rule: u32) -> Self {
        Self { low, high, reason: reason as u8, mode: mode as u8, zero: 0, rule }
    }

    /// The same for other ports.
    #[must_use]
    pub const fn with_ports(self, low: u16, high: u16) -> Self {
        Self { low, high, ..self }
    }

    /// The verdict for ports in this range.
    #[must_use]
    #[inline(always)]
    pub fn verdict(&self) -> Verdict {
        let reason = Reason::from_code(self.reason);
        Verdict { allow: reason.allows(), reason, mode: Mode::from_code(self.mode), rule: self.rule }
    }

    /// Whether this is the end of an array that is not full.
    #[inline(always)]
    pub(crate) const fn is_end(&self) -> bool {
        self.reason == 0
    }
}

/// How the guardrails see a service. Services with equal groups are alike to every guardrail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct Groups {
    /// As the source of a flow; 0 when no guardrail selects it so.
    pub source: u32,
    /// As the destination of a flow; 0 when no guardrail selects it so.
    pub destination: u32,
}

/// The tables of one revision of the policy. Maps in the kernel, ordered maps in userspace.
pub trait Tables {
    /// The groups of a service; `None` when there is no such service.
    fn groups(&self, identity: Identity) -> Option<Groups>;
    /// What guardrails say between two groups.
    fn guardrail(&self, key: &EdgeKey) -> Option<&[Range]>;
    /// What contracts say between two services.
    fn contract(&self, key: &EdgeKey) -> Option<&[Range]>;
}
