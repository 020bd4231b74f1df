//! What was decided, and why.

/// Reason codes from here on belong to checks on packets: source address, fragments, flow table.
pub const FIRST_PACKET_REASON: u8 = 64;

/// Why a verdict is what it is. Codes and names are stable: flow logs and metrics hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Reason {
    /// A contract states this flow.
    Contract = 1,
    /// A guardrail allows it, contract or not.
    GuardrailAllow = 2,
    /// A contract in audit mode does not state it and lets its members' flows pass.
    Audited = 3,
    /// A contract in learn mode does not state it and lets its members' flows pass.
    Learned = 4,
    /// A guardrail refuses it.
    GuardrailDeny = 32,
    /// Nothing allows it.
    NoContract = 33,
    /// The source is no service of this policy.
    UnknownSource = 34,
    /// The destination is no service of this policy.
    UnknownDestination = 35,
    /// The table holds a code that this program does not know: it was written by another version.
    UnknownCode = 36,
    /// The packet belongs to a flow that was allowed.
    Flow = 64,
    /// It is for what the node offers its attachments: DNS, workload API, ARP and neighbour discovery.
    Gateway = 65,
    /// An ICMP error about a flow that was allowed.
    IcmpError = 66,
    /// A process tree speaks to itself.
    Own = 67,
    /// It passed an interface or group that is attached to nothing.
    NotAttached = 96,
    /// Its source address is not that of the attachment it came from.
    Spoofed = 97,
    /// Its destination is not an address of the attachment it came to.
    Misdelivered = 98,
    /// It ends before what its headers announce, or before the ports.
    Truncated = 99,
    /// Its headers contradict themselves or the standards.
    Malformed = 100,
    /// A later fragment: its ports are in another packet.
    Fragment = 101,
    /// Too many IPv6 extension headers, or a source route.
    ExtensionHeaders = 102,
    /// It is neither IP nor ARP, or carries a VLAN tag.
    NotIp = 103,
    /// An ICMP error about no flow that is known.
    UntrackedError = 104,
    /// Link or routing control that is not with the gateway.
    LinkControl = 105,
    /// The node offers nothing on this port.
    GatewayPort = 106,
    /// No policy has been installed yet.
    NoTables = 107,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 25] = [
        Self::Contract,
        Self::GuardrailAllow,
        Self::Audited,
        Self::Learned,
        Self::GuardrailDeny,
        Self::NoContract,
        Self::UnknownSource,
        Self::UnknownDestination,
        Self::UnknownCode,
        Self::Flow,
        Self::Gateway,
        Self::IcmpError,
        Self::Own,
        Self::NotAttached,
        Self::Spoofed,
        Self::Misdelivered,
        Self::Truncated,
        Self::Malformed,
        Self::Fragment,
        Self::ExtensionHeaders,
        Self::NotIp,
        Self::UntrackedError,
        Self::LinkControl,
        Self::GatewayPort,
        Self::NoTables,
    ];

    /// The reason with this code. An unknown code refuses.
    #[must_use]
    #[inline(always)]
    pub fn from_code(code: u8) -> Self {
        // The box keeps the bound of the index in the program: the compiler might prove it needless, but
        // the verifier cannot.
        BY_CODE[core::hint::black_box(code) as usize]
    }

    /// The name that people and scripts see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Contract => "contract",
            Self::GuardrailAllow => "guardrail-allow",
            Self::Audited => "audited",
            Self::Learned => "learned",
            Self::GuardrailDeny => "guardrail-deny",
            Self::NoContract => "no-contract",
            Self::UnknownSource => "unknown-source",
            Self::UnknownDestination => "unknown-destination",
            Self::UnknownCode => "unknown-code",
            Self::Flow => "flow",
            Self::Gateway => "gateway",
            Self::IcmpError => "icmp-error",
            Self::Own => "own",
            Self::NotAttached => "not-attached",
            Self::Spoofed => "spoofed",
            Self::Misdelivered => "misdelivered",
            Self::Truncated => "truncated",
            Self::Malformed => "malformed",
            Self::Fragment => "fragment",
            Self::ExtensionHeaders => "extension-headers",
            Self::NotIp => "not-ip",
            Self::UntrackedError => "untracked-error",
            Self::LinkControl => "link-control",
            Self::GatewayPort => "gateway-port",
            Self::NoTables => "no-tables",
        }
    }

    /// Whether the flow passes.
    #[must_use]
    #[inline(always)]
    pub const fn allows(self) -> bool {
        matches!(
            self,
            Self::Contract
                | Self::GuardrailAllow
                | Self::Audited
                | Self::Learned
                | Self::Flow
                | Self::Gateway
                | Self::IcmpError
                | Self::Own
        )
    }
}

/// A table rather than a `match`: the kernel's verifier would follow each arm to the end of the program.
static BY_CODE: [Reason; 256] = by_code();

const fn by_code() -> [Reason; 256] {
    let mut table = [Reason::UnknownCode; 256];
    let mut place = 0;
    while place < Reason::ALL.len() {
        let reason = Reason::ALL[place];
        table[reason as usize] = reason;
        place += 1;
    }
    table
}

impl core::fmt::Display for Reason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.pad(self.name())
    }
}

/// The mode of the rule that decided; flows under audit and learn are recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Mode {
    /// As stated.
    #[default]
    Enforce = 0,
    /// What is not stated passes between members, and is recorded as what would have been refused.
    Audit = 1,
    /// What is not stated passes between members, and is recorded.
    Learn = 2,
}

impl Mode {
    /// The mode with this code; an unknown one is `Enforce`.
    #[must_use]
    #[inline(always)]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Audit,
            2 => Self::Learn,
            _ => Self::Enforce,
        }
    }
}

/// Whether a flow may pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it may.
    pub allow: bool,
    /// Why.
    pub reason: Reason,
    /// The mode of the rule that decided.
    pub mode: Mode,
    /// Number of the rule that decided; 0 when there was none.
    pub rule: u32,
}

impl Verdict {
    /// A refusal for want of a rule.
    #[must_use]
    #[inline(always)]
    pub const fn refused(reason: Reason) -> Self {
        Self { allow: false, reason, mode: Mode::Enforce, rule: 0 }
    }

    /// The verdict as one word, for functions that the kernel verifies by themselves.
    #[must_use]
    #[inline(always)]
    pub const fn pack(&self) -> u64 {
        (self.rule as u64) << 32 | (self.mode as u64) << 8 | self.reason as u64
    }

    /// The verdict in a word.
    #[must_use]
    #[inline(always)]
    pub fn unpack(word: u64) -> Self {
        let reason = Reason::from_code(word as u8);
        let mode = Mode::from_code((word >> 8) as u8);
        Self { allow: reason.allows(), reason, mode, rule: (word >> 32) as u32 }
    }
}
