//! Every bound of this crate, with its reason. Nothing here depends on what a peer says.

use std::{sync::Arc, time::Duration};

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::congestion::Load;

/// Largest request and response, in bytes. Larger things (snapshots) are sent in chunks by those who
/// have them.
pub const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Largest join request, in bytes: it comes from somebody unknown. A CSR and a token are below 1 KiB.
pub const MAX_JOIN_REQUEST_BYTES: usize = 64 << 10;
/// Longest refusal text that is sent or believed, in bytes.
pub const MAX_REFUSAL_BYTES: usize = 16 << 10;

/// Requests that one connection may have in work here at once; more wait in the peer.
pub(crate) const MAX_REQUESTS_PER_CONNECTION: usize = 64;
/// The same for a connection without a client certificate: join is one question.
pub(crate) const MAX_JOIN_REQUESTS_PER_CONNECTION: usize = 1;
/// Bytes of request bodies that one connection may have in memory here at once.
pub(crate) const MAX_REQUEST_BYTES_PER_CONNECTION: usize = 4 * MAX_REQUEST_BYTES;
/// A request body must arrive within this time: an admitted peer must not hold memory for ever.
pub(crate) const REQUEST_READ_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections in each state of life, all peers together. A fabric has at most 5,000 nodes.
pub(crate) const MAX_CONNECTIONS: usize = 16_384;
/// Connections without a client certificate that are open at once.
pub(crate) const MAX_JOIN_CONNECTIONS: usize = 64;
/// How long one of those may last. Admission goes through consensus, which may be electing.
pub(crate) const JOIN_CONNECTION_LIFETIME: Duration = Duration::from_secs(60);
/// Incoming handshakes in work at once; each costs a signature. Beyond, clients are refused.
pub(crate) const MAX_HANDSHAKES: usize = 256;
/// From this many on, a client must first prove its address by a retry packet (RFC 9000, 8.1.2):
/// forged source addresses then cost us a stateless answer and no handshake.
pub(crate) const RETRY_ABOVE_HANDSHAKES: usize = 32;
/// A handshake takes a few round trips; whoever needs longer than this is not coming.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes that wait for the accept loop, which takes them at once.
const MAX_INCOMING: usize = 512;
/// Bytes kept for one that waits, and for all of them.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;
const INCOMING_BUFFER_TOTAL_BYTES: u64 = 2 << 20;

/// Connections kept to one peer for one use. Two when both dial at once, one more while credentials
/// change; the oldest goes first.
pub(crate) const MAX_CONNECTIONS_PER_PEER: usize = 4;
/// A connection that carried nothing for this long is closed.
pub(crate) const UNUSED_AFTER: Duration = Duration::from_secs(60);
/// How often connections are looked through for unused, expired and refused ones.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Addresses tried for one node.
pub(crate) const MAX_ADDRESSES: usize = 8;
/// The next address is tried when the one before was silent for this long (RFC 8305, section 5).
pub(crate) const DIAL_STAGGER: Duration = Duration::from_millis(250);
/// First pause after a failed dial; it doubles up to [`MAX_BACKOFF`].
pub(crate) const MIN_BACKOFF: Duration = Duration::from_millis(100);
/// Longest pause. Short, because a cloud that returns should be noticed soon, and a failed dial costs
/// a few packets.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(2);

/// A silent peer is probed by plain UDP after this time (see [`crate::reach`]).
pub(crate) const PROBE_AFTER: Duration = Duration::from_millis(200);
/// Pause between two such probes. A restarting process closes its port for less than that.
pub(crate) const PROBE_INTERVAL: Duration = Duration::from_millis(200);

/// Refusal events of the same subject and reason within this time are counted, not sent.
pub(crate) const EVENT_INTERVAL: Duration = Duration::from_secs(10);
/// Subjects remembered for that.
pub(crate) const MAX_EVENT_SUBJECTS: usize = 1_024;

/// Silence after which a connection is given up.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);
/// Three keep-alives may be lost before the idle timeout.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// Datagrams not yet sent, in bytes; the oldest are dropped first. 4 ms at 2 Gbit/s.
const DATAGRAM_SEND_BYTES: usize = 1 << 20;
/// Of these, kept free by [`crate::Channel::send`] for small datagrams that must not wait, such as probes.
pub(crate) const DATAGRAM_HEADROOM_BYTES: usize = 64 << 10;
/// Datagrams not yet read, in bytes; the oldest are dropped first. Which use a connection has is not
/// known before its handshake, so this is what links need: 16 ms at 2 Gbit/s.
const DATAGRAM_RECEIVE_BYTES: usize = 4 << 20;
/// What is asked of the system for the socket's buffers; it may give less.
pub(crate) const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Bytes in flight on one stream and on one connection.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;
/// A handshake's messages: a chain of three small certificates is below 3 KiB.
const CRYPTO_BUFFER_BYTES: usize = 16 << 10;

/// Streams a peer may open: none until it has been judged.
pub(crate) const STREAMS_BEFORE_ADMISSION: u32 = 0;

/// Settings of every connection, dialled or accepted. Each has a configuration of its own, because
/// what it carries is known only when its handshake is done.
pub(crate) fn transport_config(load: &Load) -> Arc<TransportConfig> {
    let idle = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_BEFORE_ADMISSION))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle))))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .crypto_buffer_size(CRYPTO_BUFFER_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAM_RECEIVE_BYTES))
        .datagram_send_buffer_size(DATAGRAM_SEND_BYTES)
        .congestion_controller_factory(Arc::new(load.clone()));
    Arc::new(config)
}

/// Sets the bounds of what waits before a handshake.
pub(crate) fn bound_incoming(config: &mut quinn::ServerConfig) {
    config
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL_BYTES);
}
