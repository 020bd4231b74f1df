//! Outgoing connections. Dials run in tasks of their own, so that a request with a short time limit
//! does not take with it the connection that the next one could use.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use quinn::{
    ConnectionError, Endpoint, EndpointConfig, Runtime as _, ServerConfig, TokioRuntime,
    crypto::{CryptoError, HmacKey},
};
use quinn_proto::HashedConnectionIdGenerator;
use rustls_pki_types::PrivateKeyDer;
use selvedge_fabric::id::NodeName;
use socket2::SockRef;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Alpn, RequestError, TransportError,
    accept::report,
    congestion::Load,
    isolation::{Filtered, Isolation},
    judge::{PeerSide, Refusal},
    limits::{DIAL_STAGGER, HANDSHAKE_TIMEOUT, SOCKET_BUFFER_BYTES, bound_incoming, transport_config},
    link::{Link, is_tls_alert, refusal_of},
    pool::DialOutcome,
    reach,
    tls::{self, LocalIdentity, SERVER_NAME},
    transport::Shared,
    unreachable::Ear,
};

/// Why one address led nowhere.
struct Failure {
    address: SocketAddr,
    /// Whether somebody answered and one side refused the other.
    refused: bool,
    why: String,
}

/// The settings for dialling under one ALPN.
pub(crate) fn client_config(
    identity: &Arc<LocalIdentity>,
    alpn: Alpn,
) -> Result<quinn::ClientConfig, TransportError> {
    let mut config = quinn::ClientConfig::new(Arc::new(tls::client_config(identity, alpn)?));
    let load = if alpn == Alpn::Link { Load::link() } else { Load::default() };
    config.transport_config(transport_config(&load));
    Ok(config)
}

/// The settings for accepting.
pub(crate) fn server_config(identity: &Arc<LocalIdentity>) -> Result<ServerConfig, TransportError> {
    let mut server = ServerConfig::with_crypto(Arc::new(tls::server_config(identity)?));
    server.transport_config(transport_config(&Load::default()));
    bound_incoming(&mut server);
    Ok(server)
}

/// Binds the socket and serves on it. Also returns what hears which peers are gone.
pub(crate) fn bind_endpoint(
    listen: SocketAddr,
    server: ServerConfig,
    key: &PrivateKeyDer<'_>,
    isolation: &Arc<Isolation>,
) -> Result<(Endpoint, Ear), TransportError> {
    let bind_error = |source| TransportError::Bind { address: listen, source };
    let socket = UdpSocket::bind(listen).map_err(bind_error)?;
    widen(&socket);
    let ear = Ear::of(&socket).map_err(bind_error)?;
    let (runtime, isolation) = (Arc::new(TokioRuntime), Arc::clone(isolation));
    let socket = runtime.wrap_udp_socket(socket).map_err(bind_error)?;
    let socket = Arc::new(Filtered { socket, isolation });
    let config = restart_safe_config(key);
    let endpoint = Endpoint::new_with_abstract_socket(config, Some(server), socket, runtime);
    Ok((endpoint.map_err(bind_error)?, ear))
}

/// Asks for buffers that hold what comes while the process is not running. Less is slower, not wrong.
fn widen(socket: &UdpSocket) {
    let socket = SockRef::from(socket);
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
}

/// Endpoint settings whose secrets follow from the node key. A node that was killed and started again
/// then still recognizes the connection ids it gave out before, and answers packets of connections it
/// no longer knows with a reset that their senders believe (RFC 9000, section 10.3): peers learn of
/// the restart in one round trip instead of one idle timeout.
fn restart_safe_config(key: &PrivateKeyDer<'_>) -> EndpointConfig {
    let node_key = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
    let derive = |label: &str| hmac::sign(&node_key, label.as_bytes());
    let reset_key = hmac::Key::new(hmac::HMAC_SHA256, derive("selvedge quic reset").as_ref());
    let mut config = EndpointConfig::new(Arc::new(ResetKey(reset_key)));
    let tag = derive("selvedge quic connection id");
    let id_key = u64::from_be_bytes(std::array::from_fn(|i| tag.as_ref()[i]));
    config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)));
    config
}

/// Makes stateless reset tokens. quinn has this for the hmac of one library; which one depends on the
/// features that other crates switch on.
struct ResetKey(hmac::Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], out: &mut [u8]) {
        out.copy_from_slice(&hmac::sign(&self.0, data).as_ref()[..out.len()]);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        hmac::verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

/// Begins to dial a node; the outcome is told to all who wait for it.
pub(crate) fn start(shared: &Arc<Shared>, node: &NodeName, alpn: Alpn, outcome: watch::Sender<DialOutcome>) {
    let (shared, node) = (Arc::clone(shared), node.clone());
    shared.clone().tasks.spawn(async move {
        let result = tokio::select! {
            result = dial(&shared, &node, alpn) => result,
            () = shared.stop.cancelled() => Err(RequestError::Closed),
        };
        shared.pool().dialled(&node, alpn, result.as_ref().err().cloned(), Instant::now());
        // Fails when nobody waits: a datagram began it, or the request timed out.
        let _ = outcome.send(Some(result));
    });
}

/// Tries the addresses of a node, each a little after the one before; the first that leads to the
/// node wins.
async fn dial(shared: &Arc<Shared>, node: &NodeName, alpn: Alpn) -> Result<Arc<Link>, RequestError> {
    if tokio::time::timeout(HANDSHAKE_TIMEOUT, shared.isolation.until_over(node)).await.is_err() {
        // As long as it takes to find that nobody answers.
        let why = "a drill keeps this node from it".to_owned();
        return Err(RequestError::Connect { to: node.to_string(), alpn, why });
    }
    let addresses = shared.book.to_try(node);
    if addresses.is_empty() {
        return Err(RequestError::Unknown(node.clone()));
    }
    let mut attempts = JoinSet::new();
    let mut delay = Duration::ZERO;
    for address in addresses {
        let (shared, node) = (Arc::clone(shared), node.clone());
        attempts.spawn(async move {
            tokio::time::sleep(delay).await;
            dial_address(&shared, &node, alpn, address).await
        });
        delay += DIAL_STAGGER;
    }
    let mut failures = Vec::new();
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(link)) => return Ok(link),
            Ok(Err(failure)) => failures.push(failure),
            Err(error) => tracing::error!(%node, %error, "a dial ended abnormally"),
        }
    }
    Err(summary(node, alpn, &failures))
}

/// One error out of those of all addresses.
fn summary(node: &NodeName, alpn: Alpn, failures: &[Failure]) -> RequestError {
    let refused = failures.iter().any(|failure| failure.refused);
    let told = failures.iter().filter(|failure| failure.refused == refused);
    let why = told.map(|f| format!("{}: {}", f.address, f.why)).collect::<Vec<_>>().join("; ");
    let to = node.to_string();
    if refused {
        RequestError::NotAdmitted { to, alpn, why }
    } else {
        RequestError::Connect { to, alpn, why }
    }
}

async fn dial_address(
    shared: &Arc<Shared>,
    node: &NodeName,
    alpn: Alpn,
    address: SocketAddr,
) -> Result<Arc<Link>, Failure> {
    let failed = |refused: bool, why: String| Failure { address, refused, why };
    let generation = shared.identity.current().generation;
    let config = shared.client_configs[alpn.index()].clone();
    let connecting = shared.endpoint.connect_with(config, address, SERVER_NAME);
    let connecting = connecting.map_err(|error| failed(false, error.to_string()))?;
    let finished = tokio::select! {
        finished = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting) => finished,
        () = reach::until_port_closed(address, &shared.unreachable) => return Err(failed(false, "nobody listens there".to_owned())),
    };
    let connection = match finished {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            report(shared, address, &error);
            let (refused, why) = explain(&error);
            return Err(failed(refused, why));
        }
        Err(_) => return Err(failed(false, format!("no handshake within {HANDSHAKE_TIMEOUT:?}"))),
    };
    let admitted = shared.admit(connection, alpn, PeerSide::Server(node), generation);
    admitted.map_err(|refusal| failed(refusal != Refusal::CutOff, refusal.to_string()))
}

/// Whether a failed handshake was a refusal, and its reason.
pub(crate) fn explain(error: &ConnectionError) -> (bool, String) {
    if let Some(why) = refusal_of(error) {
        return (true, why);
    }
    match error {
        ConnectionError::TransportError(ours) if is_tls_alert(ours.code) => (true, plain(&ours.reason)),
        other => (false, other.to_string()),
    }
}

/// Our own verifier's words, without the Rust types that rustls wraps around them.
fn plain(reason: &str) -> String {
    let own = reason.split_once("Other(OtherError(").and_then(|(_, rest)| rest.strip_suffix("))"));
    own.unwrap_or(reason).to_owned()
}
