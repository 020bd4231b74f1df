//! Incoming connections, up to the point where the peer is admitted.

use std::sync::Arc;

use quinn::{ConnectionError, Incoming, crypto::rustls::HandshakeData};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    Alpn,
    congestion::Load,
    judge::PeerSide,
    limits::{HANDSHAKE_TIMEOUT, MAX_CONNECTIONS, MAX_HANDSHAKES, RETRY_ABOVE_HANDSHAKES, transport_config},
    link::{CloseCode, close, is_tls_alert},
    serve,
    transport::{Shared, count},
};

/// Takes connections until the transport closes.
pub(crate) async fn run(shared: Arc<Shared>) {
    loop {
        let incoming = tokio::select! {
            incoming = shared.endpoint.accept() => incoming,
            () = shared.stop.cancelled() => return,
        };
        let Some(incoming) = incoming else { return };
        take(&shared, incoming);
    }
}

/// Begins a handshake, unless there are too many of them: then the client must first prove its
/// address, and with yet more of them it is refused. Both cost us no memory.
fn take(shared: &Arc<Shared>, incoming: Incoming) {
    let under_way = MAX_HANDSHAKES - shared.handshakes.available_permits();
    if under_way >= RETRY_ABOVE_HANDSHAKES && incoming.may_retry() && !incoming.remote_address_validated() {
        // Fails only when a retry is not allowed, which was just asked.
        let _ = incoming.retry();
        return;
    }
    let permit = Arc::clone(&shared.handshakes).try_acquire_owned();
    let (Ok(permit), true) = (permit, shared.endpoint.open_connections() < MAX_CONNECTIONS) else {
        count(&shared.tally.handshakes_refused);
        incoming.refuse();
        return;
    };
    shared.tasks.spawn(handshake(Arc::clone(shared), incoming, permit));
}

/// Completes a handshake and admits the peer.
async fn handshake(shared: Arc<Shared>, incoming: Incoming, permit: OwnedSemaphorePermit) {
    let remote = incoming.remote_address();
    let generation = shared.identity.current().generation;
    let (load, mut config) = (Load::default(), shared.server_config.clone());
    config.transport_config(transport_config(&load));
    let finished = async { incoming.accept_with(Arc::new(config))?.await };
    let connection = match tokio::time::timeout(HANDSHAKE_TIMEOUT, finished).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            count(&shared.tally.handshakes_failed);
            report(&shared, remote, &error);
            return;
        }
        Err(_) => {
            count(&shared.tally.handshakes_failed);
            return;
        }
    };
    drop(permit);
    let Some(alpn) = alpn_of(&connection) else {
        return close(&connection, CloseCode::Refused, "unknown ALPN");
    };
    if alpn == Alpn::Join {
        return accept_join(&shared, connection).await;
    }
    if alpn == Alpn::Link {
        load.set_link();
    }
    // A refusal has been told and counted where it was found.
    let _ = shared.admit(connection, alpn, PeerSide::Client, generation);
}

async fn accept_join(shared: &Arc<Shared>, connection: quinn::Connection) {
    match Arc::clone(&shared.joins).try_acquire_owned() {
        Ok(_permit) => serve::run_join(Arc::clone(shared), connection).await,
        Err(_) => close(
            &connection,
            CloseCode::Refused,
            "too many nodes are joining here; try again, or another seed",
        ),
    }
}

fn alpn_of(connection: &quinn::Connection) -> Option<Alpn> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    Alpn::from_wire(data.protocol.as_deref()?)
}

/// Tells of a peer whose certificate or ALPN our TLS refused, and of one that refused ours. Everything else
/// that ends a handshake (a client that went away, garbage) is only counted: it costs its sender nothing.
pub(crate) fn report(shared: &Shared, remote: std::net::SocketAddr, error: &ConnectionError) {
    let subject = remote.ip().to_string();
    match error {
        ConnectionError::TransportError(refused) if is_tls_alert(refused.code) => {
            count(&shared.tally.peers_refused);
            shared.refusals.refused(&subject, "tls", &format!("{remote}: {}", refused.reason));
        }
        ConnectionError::ConnectionClosed(close) if is_tls_alert(close.error_code) => {
            // Its words are left out: they would be a stranger's, in our log.
            let alert = u64::from(close.error_code) & 0xff;
            let text = format!(
                "{remote} does not accept the certificate of this node (TLS alert {alert}): it is of another \
                 fabric, or its join token pins another CA"
            );
            shared.refusals.refused(&subject, "refused-by-peer", &text);
        }
        _ => {}
    }
}
