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
}

impl Reason {
    /// Every reason.
    pub const ALL: [Self; 9] = [
        Self::Contract,
        Self::GuardrailAllow,
        Self::Audited,
        Self::Learned,
        Self::GuardrailDeny,
        Self::NoContract,
        Self::UnknownSource,
        Self::UnknownDestination,
        Self::UnknownCode,
    ];

    /// The reason with this code. An unknown code refuses.
    #[must_use]
    #[inline(always)]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Contract,
            2 => Self::GuardrailAllow,
            3 => Self::Audited,
            4 => Self::Learned,
            32 => Self::GuardrailDeny,
            33 => Self::NoContract,
            34 => Self::UnknownSource,
            35 => Self::UnknownDestination,
            _ => Self::UnknownCode,
        }
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
        }
    }

    /// Whether the flow passes.
    #[must_use]
    #[inline(always)]
    pub const fn allows(self) -> bool {
        matches!(self, Self::Contract | Self::GuardrailAllow | Self::Audited | Self::Learned)
    }
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
}
