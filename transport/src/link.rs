//! One live connection to an admitted peer, and the words with which connections end.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use quinn::{ApplicationClose, Connection, ConnectionError, VarInt};
use tokio::sync::Mutex;

use crate::{Alpn, PeerIdentity, limits::MAX_REFUSAL_BYTES};

/// Why a connection is closed, as the peer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CloseCode {
    /// The node shuts down.
    Done = 0,
    /// The peer is not, or no longer, admitted.
    Refused = 1,
    /// There are more connections than are needed.
    Surplus = 2,
    /// It carried nothing for a while.
    Unused = 3,
    /// The peer's port is closed.
    Gone = 4,
}

/// Closes a connection with a reason, which is cut to what a peer may be told.
pub(crate) fn close(connection: &Connection, code: CloseCode, reason: &str) {
    let reason = reason.as_bytes();
    let end = reason.len().min(MAX_REFUSAL_BYTES);
    connection.close(VarInt::from_u32(code as u32), &reason[..end]);
}

/// The reason of a peer that refused us, if that is how the connection ended: by our own close code,
/// or by a TLS alert on our certificate (RFC 9001, section 4.8).
pub(crate) fn refusal_of(error: &ConnectionError) -> Option<String> {
    match error {
        ConnectionError::ApplicationClosed(ApplicationClose { error_code, reason })
            if *error_code == VarInt::from_u32(CloseCode::Refused as u32) =>
        {
            Some(String::from_utf8_lossy(reason).into_owned())
        }
        ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code) => Some(close.to_string()),
        _ => None,
    }
}

/// Whether a transport error code stands for a TLS alert.
pub(crate) fn is_tls_alert(code: quinn::TransportErrorCode) -> bool {
    (0x100..0x200).contains(&u64::from(code))
}

/// One live connection to an admitted peer.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) connection: Connection,
    pub(crate) peer: PeerIdentity,
    pub(crate) alpn: Alpn,
    /// Whether this node dialled.
    pub(crate) dialled: bool,
    /// The generation of our credentials that the peer was shown.
    pub(crate) generation: u64,
    /// Held by the one request that probes a silent peer for all of them.
    pub(crate) probing: Mutex<()>,
    born: Instant,
    used_after_ms: AtomicU64,
}

impl Link {
    pub(crate) fn new(
        connection: Connection,
        peer: PeerIdentity,
        alpn: Alpn,
        dialled: bool,
        generation: u64,
    ) -> Self {
        let born = Instant::now();
        let (probing, used_after_ms) = (Mutex::new(()), AtomicU64::new(0));
        Self { connection, peer, alpn, dialled, generation, probing, born, used_after_ms }
    }

    /// Notes that the connection carries something now.
    pub(crate) fn touch(&self) {
        self.used_after_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since it carried something.
    pub(crate) fn unused_ms(&self) -> u64 {
        self.age_ms().saturating_sub(self.used_after_ms.load(Ordering::Relaxed))
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
