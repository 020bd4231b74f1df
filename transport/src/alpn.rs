//! What a connection is for. Every use has its own ALPN (RFC 7301), so that one UDP port serves all
//! of them and each is judged by its own rule before a byte of it is read.

use std::fmt;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Alpn {
    /// A node without a certificate asks to be admitted. The only use without a client certificate.
    Join,
    /// A node asks for a new certificate. The only use that takes an expired client certificate.
    Renew,
    /// Consensus among processors, and writes forwarded to the leader.
    Raft,
    /// Failure detection.
    Probe,
    /// Policy and facts outside of consensus and gossip, for instance for workload nodes.
    Fabric,
    /// Packets between nodes.
    Link,
}

impl Alpn {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Join, Self::Renew, Self::Raft, Self::Probe, Self::Fabric, Self::Link];

    /// The protocol id on the wire.
    #[must_use]
    pub const fn wire(self) -> &'static [u8] {
        match self {
            Self::Join => b"selvedge/join/1",
            Self::Renew => b"selvedge/renew/1",
            Self::Raft => b"selvedge/raft/1",
            Self::Probe => b"selvedge/probe/1",
            Self::Fabric => b"selvedge/fabric/1",
            Self::Link => b"selvedge/link/1",
        }
    }

    /// The use that a protocol id stands for.
    #[must_use]
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|alpn| alpn.wire() == wire)
    }

    /// Position in [`Self::ALL`].
    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Alpn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Join => "join",
            Self::Renew => "renew",
            Self::Raft => "raft",
            Self::Probe => "probe",
            Self::Fabric => "fabric",
            Self::Link => "link",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_ids_are_distinct_and_come_back() {
        for (position, alpn) in Alpn::ALL.into_iter().enumerate() {
            assert_eq!((Alpn::from_wire(alpn.wire()), alpn.index()), (Some(alpn), position));
        }
        assert_eq!(Alpn::from_wire(b"h3"), None);
    }
}
