//! The one QUIC endpoint of a node: mutual TLS, ALPN, connection cache, streams and datagrams.
//!
//! Joining, renewal, consensus, failure detection and links share one UDP port and are told apart by
//! ALPN ([`Alpn`]). A connection passes three doors before anything it says is read:
//!
//! 1. **TLS** (`verify`): 1.3 only, both sides show a chain that ends in the pinned root. Only a
//!    joining node may come without; it then gets a single small request, and nothing else.
//! 2. **Judgement** (`judge`): fabric, validity in time (by ALPN), and, for the side that dialled,
//!    that the node that answered is the one that was meant. The server name is a constant.
//! 3. **The gate** ([`Gate`]): whether policy admits that name with that key for that use. It is
//!    asked on both sides, and again whenever policy changes ([`Transport::recheck`]).
//!
//! Until all three are passed the peer may open no stream, so it can make us hold nothing.
//!
//! Above that there are *requests* (one bidirectional stream each, bounded in size and number,
//! answered by the [`Handler`] of the ALPN) and *datagrams* (bounded queues that drop). Connections
//! are made when first needed, kept per node and ALPN, and used in both directions; when two nodes
//! dial each other at once both connections live and both sides prefer the same one.
//!
//! What never happens here: a session is resumed (that would skip the certificates), a queue grows
//! without bound (see `limits`), bytes from outside panic, a peer is believed without a certificate.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should"))]

mod accept;
mod alpn;
mod book;
mod channel;
mod congestion;
mod dial;
mod error;
mod exchange;
#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile;
mod identity;
mod isolation;
mod join;
mod judge;
mod limits;
mod link;
mod pool;
mod reach;
mod refusals;
mod request;
mod serve;
#[cfg(feature = "testing")]
pub mod testing;
mod tls;
mod transport;
mod unreachable;
mod verify;

use std::net::SocketAddr;

use async_trait::async_trait;
use bytes::Bytes;

pub use crate::{
    alpn::Alpn,
    book::AddressBook,
    channel::{Channel, DatagramError},
    error::{CredentialsError, RequestError, TransportError},
    identity::{Credentials, Leaf, LeafError, PROCESSOR_UNIT, PeerIdentity, WORKLOAD_UNIT, spiffe_id},
    join::join_request,
    judge::{Gate, MAX_CLOCK_SKEW},
    limits::{MAX_JOIN_REQUEST_BYTES, MAX_REFUSAL_BYTES, MAX_REQUEST_BYTES},
    reach::{UNANSWERED, is_port_closed},
    transport::{Counters, Options, Transport},
};

/// Answers what peers ask under one ALPN.
#[async_trait]
pub trait Handler: Send + Sync {
    /// Answers a request. `peer` is `None` for [`Alpn::Join`] alone. A request whose sender lost its
    /// connection may come again, so a handler must bear being asked twice.
    ///
    /// # Errors
    /// A text for the one who asked; it travels as [`RequestError::Refused`].
    async fn request(
        &self,
        peer: Option<PeerIdentity>,
        remote: SocketAddr,
        body: Bytes,
    ) -> Result<Bytes, String>;

    /// Takes a datagram. Must not block; called in the order of arrival for each connection.
    fn datagram(&self, _peer: &PeerIdentity, _body: Bytes) {}
}
