//! One live connection to an admitted peer, and the words with which connections end.

use std::{
    net::SocketAddr,
    sync::{
        PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
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
    /// Whether the peer has answered on it.
    answered: AtomicBool,
    refused: std::sync::Mutex<Refused>,
    born: Instant,
    used_after_ms: AtomicU64,
}

/// What the peer's host says of a link on which nothing comes any more.
#[derive(Debug, Default)]
struct Refused {
    /// Datagrams that had come by then.
    received: u64,
    times: u64,
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
        let (probing, refused, used_after_ms) = (Mutex::new(()), Default::default(), AtomicU64::new(0));
        let answered = AtomicBool::new(false);
        Self { connection, peer, alpn, dialled, generation, probing, answered, refused, born, used_after_ms }
    }

    /// Notes that the peer answered a request.
    pub(crate) fn note_answer(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }

    /// Whether the peer had admitted us on it. Where it had not, a refusal means that it handled nothing.
    pub(crate) fn was_admitted(&self) -> bool {
        !self.dialled || self.answered.load(Ordering::Relaxed)
    }

    /// Notes that the connection carries something now.
    pub(crate) fn touch(&self) {
        self.used_after_ms.store(self.age_ms(), Ordering::Relaxed);
    }

    /// Milliseconds since it carried something.
    pub(crate) fn unused_ms(&self) -> u64 {
        self.age_ms().saturating_sub(self.used_after_ms.load(Ordering::Relaxed))
    }

    /// The address of the peer, IPv4 as such.
    pub(crate) fn remote(&self) -> SocketAddr {
        let address = self.connection.remote_address();
        SocketAddr::new(address.ip().to_canonical(), address.port())
    }

    /// Datagrams that came so far.
    pub(crate) fn received(&self) -> u64 {
        self.connection.stats().udp_rx.datagrams
    }

    /// The peer's host says that nobody listens there any more.
    pub(crate) fn note_refused(&self) {
        let (received, mut refused) = (self.received(), self.refused());
        if refused.received != received {
            *refused = Refused { received, times: 0 };
        }
        refused.times += 1;
    }

    /// How often it said so since anything came.
    pub(crate) fn refusals(&self) -> u64 {
        let (received, refused) = (self.received(), self.refused());
        if refused.received == received { refused.times } else { 0 }
    }

    fn refused(&self) -> std::sync::MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_alive(&self) -> bool {
        self.connection.close_reason().is_none()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
