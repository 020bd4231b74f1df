//! The judgement after the handshake. TLS has shown that the peer holds the key of a certificate
//! issued under our CA; here we decide whether this node may be spoken with, and for what.

use std::{net::SocketAddr, time::Duration};

use rustls_pki_types::CertificateDer;
use selvedge_fabric::{
    UnixMs,
    id::{Name, NodeName},
};

use crate::{
    Alpn, PeerIdentity,
    identity::{Leaf, LeafError},
};

/// Asks the policy. A certificate alone grants nothing.
pub trait Gate: Send + Sync {
    /// Whether (name, key) is admitted, not revoked, and of a role that may use `alpn`. Asked for
    /// every new connection on both sides, and again for all of them by
    /// [`crate::Transport::recheck`]. Must not block.
    ///
    /// # Errors
    /// The reason of the refusal, which the peer is told.
    fn admit(&self, peer: &PeerIdentity, alpn: Alpn) -> Result<(), String>;
}

/// How far in the future a certificate may begin.
///
/// `not_before` protects nothing here, since whoever can sign could backdate: it only tells that a
/// clock is wrong. A hardware clock that runs in local time is up to 14 hours off until NTP has set
/// it, and a node must not be locked out of its fabric for that; a clock that is off by more than a
/// day would also miss renewals and expiry, and is better named than tolerated.
pub const MAX_CLOCK_SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// Which end of the connection the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerSide<'a> {
    /// It came to us.
    Client,
    /// We meant to reach this node.
    Server(&'a NodeName),
}

/// Why a peer is refused after a handshake that succeeded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("{0} needs a client certificate")]
    NoCertificate(Alpn),
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("the certificate is of fabric {found}, not {expected}")]
    WrongFabric { expected: Name, found: Name },
    #[error("the certificate ended {ago_s} s ago; only its renewal is open to it")]
    Expired { ago_s: u64 },
    #[error("the certificate begins {in_s} s from now: check the clocks of both nodes")]
    NotYetValid { in_s: u64 },
    #[error("node {found} answered where {expected} was expected")]
    WrongNode { expected: NodeName, found: NodeName },
    #[error("{0}")]
    NotAdmitted(String),
    #[error("a drill keeps this node from it")]
    CutOff,
}

impl Refusal {
    /// A stable word, by which events of one kind are told apart.
    pub(crate) const fn word(&self) -> &'static str {
        match self {
            Self::NoCertificate(_) => "no-certificate",
            Self::Leaf(_) => "malformed-certificate",
            Self::WrongFabric { .. } => "wrong-fabric",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::WrongNode { .. } => "wrong-node",
            Self::NotAdmitted(_) => "not-admitted",
            Self::CutOff => "cut-off",
        }
    }
}

/// Judges everything about a peer but its admission, which is the gate's.
pub(crate) fn judge(
    certificate: &CertificateDer<'_>,
    fabric: &Name,
    side: PeerSide<'_>,
    alpn: Alpn,
    remote: SocketAddr,
    now_ms: UnixMs,
) -> Result<PeerIdentity, Refusal> {
    let leaf = Leaf::read(certificate)?;
    if leaf.fabric != *fabric {
        return Err(Refusal::WrongFabric { expected: fabric.clone(), found: leaf.fabric });
    }
    let expired = judge_time(&leaf, side, alpn, now_ms)?;
    if let PeerSide::Server(expected) = side
        && *expected != leaf.node
    {
        return Err(Refusal::WrongNode { expected: expected.clone(), found: leaf.node });
    }
    Ok(PeerIdentity { node: leaf.node, key: leaf.key, not_after_ms: leaf.not_after_ms, remote, expired })
}

/// Whether the certificate has ended, if that may be. A server's may not, not even for renewal:
/// processors renew themselves, so one whose certificate has ended is not fit to renew others.
fn judge_time(leaf: &Leaf, side: PeerSide<'_>, alpn: Alpn, now_ms: UnixMs) -> Result<bool, Refusal> {
    let skew_ms = u64::try_from(MAX_CLOCK_SKEW.as_millis()).unwrap_or(u64::MAX);
    if leaf.not_before_ms > now_ms.saturating_add(skew_ms) {
        return Err(Refusal::NotYetValid { in_s: (leaf.not_before_ms - now_ms) / 1_000 });
    }
    let expired = now_ms > leaf.not_after_ms;
    if expired && !(side == PeerSide::Client && alpn == Alpn::Renew) {
        return Err(Refusal::Expired { ago_s: (now_ms - leaf.not_after_ms) / 1_000 });
    }
    Ok(expired)
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::key::PublicKey;

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn leaf(not_before_ms: UnixMs, not_after_ms: UnixMs) -> Leaf {
        let key = PublicKey([7; 32]);
        Leaf { fabric: name("f"), node: name("n"), key, not_before_ms, not_after_ms, processor: false }
    }

    #[test]
    fn only_a_client_that_renews_may_have_expired() {
        let old = leaf(0, 1_000);
        for alpn in Alpn::ALL {
            let server = name("n");
            let as_server = judge_time(&old, PeerSide::Server(&server), alpn, 3_000);
            assert_eq!(as_server, Err(Refusal::Expired { ago_s: 2 }), "{alpn}");
            let as_client = judge_time(&old, PeerSide::Client, alpn, 3_000);
            assert_eq!(as_client.is_ok(), alpn == Alpn::Renew, "{alpn}");
        }
        assert_eq!(judge_time(&old, PeerSide::Client, Alpn::Raft, 1_000), Ok(false));
    }

    #[test]
    fn a_clock_may_be_off_by_a_day() {
        let day_ms = 24 * 60 * 60 * 1_000;
        let future = leaf(day_ms + 5_000, 2 * day_ms);
        assert_eq!(judge_time(&future, PeerSide::Client, Alpn::Raft, 5_000), Ok(false));
        let refused = judge_time(&future, PeerSide::Client, Alpn::Raft, 4_999);
        assert_eq!(refused, Err(Refusal::NotYetValid { in_s: day_ms / 1_000 }));
    }
}
