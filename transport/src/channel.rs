//! Datagrams to one peer, without a look-up for each of them.

use std::sync::Arc;

use bytes::Bytes;
use quinn::SendDatagramError;

use crate::{
    PeerIdentity,
    limits::DATAGRAM_HEADROOM_BYTES,
    link::{CloseCode, Link, close},
};

/// One live connection, for datagrams; see [`crate::Transport::channel`].
#[derive(Debug, Clone)]
pub struct Channel(Arc<Link>);

/// Why a datagram was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// The path does not carry datagrams of this size now; see [`Channel::max_datagram_bytes`].
    #[error("larger than the path carries")]
    TooLarge,
    /// Too many wait already.
    #[error("too many datagrams wait")]
    Full,
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
}

impl Channel {
    pub(crate) const fn new(link: Arc<Link>) -> Self {
        Self(link)
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.0.peer
    }

    /// Whether this node dialled.
    #[must_use]
    pub fn dialled(&self) -> bool {
        self.0.dialled
    }

    /// Whether the connection lives, as far as is known.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_alive()
    }

    /// The largest datagram, in bytes, that the path carries now; `None` when the peer takes none.
    #[must_use]
    pub fn max_datagram_bytes(&self) -> Option<usize> {
        self.0.connection.max_datagram_size()
    }

    /// Sends a datagram that may be dropped when too many wait.
    ///
    /// # Errors
    /// Why it was not sent.
    pub fn send(&self, body: Bytes) -> Result<(), DatagramError> {
        if self.0.connection.datagram_send_buffer_space() < body.len() + DATAGRAM_HEADROOM_BYTES {
            return Err(DatagramError::Full);
        }
        self.send_now(body)
    }

    /// Sends a small datagram that must not wait behind others' excess, at their cost if need be.
    ///
    /// # Errors
    /// Why it was not sent; never [`DatagramError::Full`].
    pub fn send_now(&self, body: Bytes) -> Result<(), DatagramError> {
        self.0.touch();
        self.0.connection.send_datagram(body).map_err(|error| match error {
            SendDatagramError::TooLarge => DatagramError::TooLarge,
            SendDatagramError::UnsupportedByPeer
            | SendDatagramError::Disabled
            | SendDatagramError::ConnectionLost(_) => DatagramError::Closed,
        })
    }

    /// Ends the connection, because it is not needed.
    pub fn close(&self) {
        close(&self.0.connection, CloseCode::Unused, "not needed");
    }
}
