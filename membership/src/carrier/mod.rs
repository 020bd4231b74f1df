//! libp2p, as the carrier of facts on the gossip port.
//!
//! * A peer's id *is* its admitted node key: the allow list holds the ids of the admitted keys, and the
//!   connection of any other key ends before a protocol is spoken on it.
//! * gossipsub pushes. Its own message signatures are off: each record carries its node's signature,
//!   which every receiver verifies, whoever handed it on; a second signature by the first publisher would
//!   cost as much again and prove nothing more. The message id is the hash of the record, so that one
//!   record is one message whoever publishes it. A record is handed on only after it was merged
//!   (`validate_messages`), so a bad one stops at the first honest node.
//! * request-response carries anti-entropy.
//! * identify only tells peers apart in logs.

mod codec;
mod dialer;
mod swarm;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, allow_block_list, connection_limits, gossipsub,
    identify, identity, multiaddr::Protocol, request_response, swarm::NetworkBehaviour,
};
use selvedge_fabric::{
    id::Name,
    key::{Hash, NodeId, PublicKey},
    record::{MAX_RECORD_BYTES, Record},
};

pub(crate) use swarm::{Carrier, Start, start};

use crate::core::{
    gossip::Verdict,
    wire::{Request, Response},
};

/// The gossipsub topic of all records.
const TOPIC: &str = "selvedge/records/1";
const EXCHANGE_PROTOCOL: StreamProtocol = StreamProtocol::new("/selvedge/exchange/1");
/// Connections of all nodes: [`dialer::TARGET_PEERS`] that this node wants and many times that others want.
const MAX_CONNECTIONS: u32 = 512;
/// Handshakes of strangers under way.
const MAX_PENDING_INCOMING: u32 = 128;
/// Both ends may dial at the same time, and a restarted peer comes before its old connection has timed out.
const MAX_CONNECTIONS_PER_PEER: u32 = 4;
/// Requests under way on one connection.
const MAX_STREAMS: usize = 32;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Silence after which QUIC gives a connection up. The failure detector is much faster; this only frees it.
const IDLE_TIMEOUT_MS: u32 = 8_000;
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// Records waiting for one slow peer; what exceeds it is left to anti-entropy.
const MAX_QUEUED_PER_PEER: usize = 1_024;

/// Where a peer may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) gossip: Vec<SocketAddr>,
    pub(crate) cloud: Name,
}

/// Who is admitted, and where they may be dialled. The newest counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Peers {
    pub(crate) admitted: BTreeMap<NodeId, PublicKey>,
    pub(crate) candidates: BTreeMap<NodeId, Candidate>,
    /// Those among them from whom a drill keeps this node, in one direction or both: a connection needs both.
    pub(crate) cut_off: BTreeSet<NodeId>,
}

/// What the service tells the carrier.
#[derive(Debug)]
pub(crate) enum Command {
    Publish(Box<Record>),
    Ask { to: NodeId, request: Request },
    Answer { ticket: Ticket, response: Response },
    Judge { message: PushId, verdict: Verdict },
}

/// What the carrier tells the service.
#[derive(Debug)]
pub(crate) enum Event {
    Connected(NodeId),
    Disconnected(NodeId),
    Push { from: NodeId, record: Box<Record>, message: PushId },
    Asked { from: NodeId, request: Request, ticket: Ticket },
    Answered { from: NodeId, response: Response },
    Failed(NodeId),
    Malformed(NodeId),
    Refused { peer: String, address: String },
}

/// A message of the mesh that waits for its verdict.
#[derive(Debug)]
pub(crate) struct PushId {
    id: gossipsub::MessageId,
    from: PeerId,
}

/// A request that waits for its response.
#[derive(Debug)]
pub(crate) struct Ticket(request_response::ResponseChannel<Response>);

/// Why the carrier cannot start.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    /// The gossip port cannot be had.
    #[error(
        "cannot listen on {address}/udp for gossip: {source} (is another node using the port? set another \
         one for this node)"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// libp2p refuses its set-up.
    #[error("cannot set up gossip: {0}")]
    SetUp(String),
}

#[derive(NetworkBehaviour)]
struct Behaviour {
    // First, so that nothing else hears of a connection that is refused.
    admitted: allow_block_list::Behaviour<allow_block_list::AllowedPeers>,
    limits: connection_limits::Behaviour,
    push: gossipsub::Behaviour,
    exchange: request_response::Behaviour<codec::Codec>,
    identify: identify::Behaviour,
}

fn build(seed: &[u8; 32]) -> Result<Swarm<Behaviour>, CarrierError> {
    let refused = |error: &dyn std::fmt::Display| CarrierError::SetUp(error.to_string());
    let keypair = identity::Keypair::ed25519_from_bytes(*seed).map_err(|e| refused(&e))?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_quic_config(|mut config| {
            config.max_idle_timeout = IDLE_TIMEOUT_MS;
            config.keep_alive_interval = KEEP_ALIVE;
            config
        })
        .with_behaviour(|keypair| Ok(behaviour(keypair)?))
        .map_err(|e| refused(&e))?
        // Anti-entropy needs each connection again within seconds; none is closed for being quiet.
        .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(86_400)))
        .build();
    Ok(swarm)
}

fn behaviour(keypair: &identity::Keypair) -> Result<Behaviour, String> {
    let limits = connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(MAX_PENDING_INCOMING))
        .with_max_established(Some(MAX_CONNECTIONS))
        .with_max_established_per_peer(Some(MAX_CONNECTIONS_PER_PEER));
    let push = gossipsub::ConfigBuilder::default()
        .validation_mode(gossipsub::ValidationMode::Anonymous)
        .validate_messages()
        .message_id_fn(|message: &gossipsub::Message| Hash::of(&message.data).0.to_vec().into())
        .max_transmit_size(MAX_RECORD_BYTES + 1_024)
        .connection_handler_queue_len(MAX_QUEUED_PER_PEER)
        // A mesh forms within a moment of a node's start.
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_millis(500))
        .duplicate_cache_time(Duration::from_secs(60))
        .build()
        .map_err(|e| e.to_string())?;
    let mut push = gossipsub::Behaviour::new(gossipsub::MessageAuthenticity::Anonymous, push)?;
    push.subscribe(&gossipsub::IdentTopic::new(TOPIC)).map_err(|e| e.to_string())?;
    let exchange = request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    let protocols = [(EXCHANGE_PROTOCOL, request_response::ProtocolSupport::Full)];
    let identify = identify::Config::new("/selvedge/1".into(), keypair.public())
        .with_agent_version("selvedge".into())
        .with_hide_listen_addrs(true);
    Ok(Behaviour {
        admitted: allow_block_list::Behaviour::default(),
        limits: connection_limits::Behaviour::new(limits),
        push,
        exchange: request_response::Behaviour::new(protocols, exchange),
        identify: identify::Behaviour::new(identify),
    })
}

fn peer_id(key: &PublicKey) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(&key.0).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

fn to_multiaddr(address: SocketAddr) -> Multiaddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => Protocol::Ip4(ip),
        IpAddr::V6(ip) => Protocol::Ip6(ip),
    };
    Multiaddr::empty().with(ip).with(Protocol::Udp(address.port())).with(Protocol::QuicV1)
}

fn to_socket_addr(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip = match parts.next()? {
        Protocol::Ip4(ip) => IpAddr::V4(ip),
        Protocol::Ip6(ip) => IpAddr::V6(ip),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Udp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}
