//! Why a packet is dropped, and how often that happened.

use std::fmt;

use selvedge_fabric::abi;

/// Why a packet, frame or datagram is dropped. Names are stable: metrics hold them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// A datagram or frame that cannot be read.
    Malformed,
    /// From a TUN: no IP packet, or one that is cut short.
    NotIp,
    /// From a TUN: for or from no single host.
    NotUnicast,
    /// A fragment whose first one was not seen, which holds the ports.
    LostFragment,
    /// A node that is not admitted, as far as this node knows.
    UnknownNode,
    /// An address that no node announces, as far as this node knows.
    UnknownAddress,
    /// The source address is not of the node that sent the packet.
    SpoofedSource,
    /// The destination address is not of the node that the packet is for.
    WrongDestination,
    /// The identity is not that of the service behind the address.
    ForeignIdentity,
    /// The neighbour may not carry it: no processor, no link that is declared, or in a place that the
    /// contract avoids.
    NeighbourNotCarrier,
    /// Neither end is a service: a node's own address takes part in nothing but ICMP.
    NodeAddress,
    /// No contract allows it.
    NoContract,
    /// A guardrail refuses it.
    GuardrailDeny,
    /// A service that this policy does not have.
    UnknownService,
    /// It was refused by a policy older than its sender's and waited for the newer one in vain.
    PolicyWaitExpired,
    /// It would have waited for a newer policy, but too many do.
    PolicyWaitFull,
    /// It may cross no further link, or claims to cross more than its contract lets it.
    HopLimit,
    /// There is no way to its node that the contract permits.
    NoRoute,
    /// There is a way only through a zone that refuses to carry this contract.
    TransitRefused,
    /// It came over other nodes without being sealed.
    Unsealed,
    /// Sealed under a session that this node does not have: one side was restarted.
    UnknownSession,
    /// It was received before.
    Replayed,
    /// It is not what its source sealed.
    Altered,
    /// The frame's header and the packet in it disagree.
    HeaderMismatch,
    /// A handshake that does not prove the other node's key.
    BadHandshake,
    /// More handshakes than a node has reason to send.
    HandshakeRate,
    /// It waited for a session, and too many do, or none came.
    SessionWait,
    /// Larger than two datagrams of the link.
    TooLarge,
    /// The other half of a frame did not come.
    HalfFrame,
    /// The link does not take it now.
    LinkFull,
    /// It came in faster than it was worked on.
    QueueFull,
    /// The TUN did not take it.
    TunFull,
}

impl Refusal {
    /// Every one.
    pub const ALL: [Self; 32] = [
        Self::Malformed,
        Self::NotIp,
        Self::NotUnicast,
        Self::LostFragment,
        Self::UnknownNode,
        Self::UnknownAddress,
        Self::SpoofedSource,
        Self::WrongDestination,
        Self::ForeignIdentity,
        Self::NeighbourNotCarrier,
        Self::NodeAddress,
        Self::NoContract,
        Self::GuardrailDeny,
        Self::UnknownService,
        Self::PolicyWaitExpired,
        Self::PolicyWaitFull,
        Self::HopLimit,
        Self::NoRoute,
        Self::TransitRefused,
        Self::Unsealed,
        Self::UnknownSession,
        Self::Replayed,
        Self::Altered,
        Self::HeaderMismatch,
        Self::BadHandshake,
        Self::HandshakeRate,
        Self::SessionWait,
        Self::TooLarge,
        Self::HalfFrame,
        Self::LinkFull,
        Self::QueueFull,
        Self::TunFull,
    ];

    /// The name that people, metrics and scripts see.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::NotIp => "not-ip",
            Self::NotUnicast => "not-unicast",
            Self::LostFragment => "lost-fragment",
            Self::UnknownNode => "unknown-node",
            Self::UnknownAddress => "unknown-address",
            Self::SpoofedSource => "spoofed-source",
            Self::WrongDestination => "wrong-destination",
            Self::ForeignIdentity => "foreign-identity",
            Self::NeighbourNotCarrier => "neighbour-not-carrier",
            Self::NodeAddress => "node-address",
            Self::NoContract => "no-contract",
            Self::GuardrailDeny => "guardrail-deny",
            Self::UnknownService => "unknown-service",
            Self::PolicyWaitExpired => "policy-wait-expired",
            Self::PolicyWaitFull => "policy-wait-full",
            Self::HopLimit => "hop-limit",
            Self::NoRoute => "no-route",
            Self::TransitRefused => "transit-refused",
            Self::Unsealed => "unsealed",
            Self::UnknownSession => "unknown-session",
            Self::Replayed => "replayed",
            Self::Altered => "altered",
            Self::HeaderMismatch => "header-mismatch",
            Self::BadHandshake => "bad-handshake",
            Self::HandshakeRate => "handshake-rate",
            Self::SessionWait => "session-wait",
            Self::TooLarge => "too-large",
            Self::HalfFrame => "half-frame",
            Self::LinkFull => "link-full",
            Self::QueueFull => "queue-full",
            Self::TunFull => "tun-full",
        }
    }

    /// The refusal that a verdict stands for.
    #[must_use]
    pub const fn of_verdict(reason: abi::Reason) -> Self {
        match reason {
            abi::Reason::GuardrailDeny => Self::GuardrailDeny,
            abi::Reason::UnknownSource | abi::Reason::UnknownDestination => Self::UnknownService,
            // Those that allow, and those about packets, `decide` never refuses with.
            _ => Self::NoContract,
        }
    }

    /// Whether a newer policy, or facts that are still under way, could judge otherwise.
    #[must_use]
    pub const fn may_pass_later(self) -> bool {
        matches!(self, Self::UnknownNode | Self::UnknownAddress | Self::NoContract | Self::UnknownService)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How much passed, and how much did not and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counters {
    /// Packets that left here.
    pub sent: u64,
    /// Packets that arrived here.
    pub delivered: u64,
    /// Frames carried for others.
    pub carried: u64,
    refused: [u64; Refusal::ALL.len()],
}

impl Counters {
    /// Counts a refusal.
    pub const fn refuse(&mut self, why: Refusal) {
        self.refused[why as usize] += 1;
    }

    /// How often that was the reason.
    #[must_use]
    pub const fn refused(&self, why: Refusal) -> u64 {
        self.refused[why as usize]
    }

    /// Every reason with its count.
    pub fn refusals(&self) -> impl Iterator<Item = (Refusal, u64)> + use<> {
        let refused = self.refused;
        Refusal::ALL.into_iter().map(move |why| (why, refused[why as usize]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_has_a_place_and_a_name_of_its_own() {
        let mut names = std::collections::BTreeSet::new();
        for (place, why) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(why as usize, place);
            assert!(names.insert(why.name()));
        }
    }
}
