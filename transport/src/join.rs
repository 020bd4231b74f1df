//! The first question of a node that has no certificate and knows nothing but a join token.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use quinn::{Connection, Endpoint, VarInt};
use rustls_pki_types::CertificateDer;
use selvedge_fabric::{id::Name, key::Hash};

use crate::{
    Alpn, RequestError,
    congestion::Load,
    dial::explain,
    exchange::ask,
    identity::{Leaf, now_ms},
    judge::{PeerSide, judge},
    limits::{HANDSHAKE_TIMEOUT, MAX_JOIN_REQUEST_BYTES, transport_config},
    link::CloseCode,
    reach,
    tls::{SERVER_NAME, join_config},
    unreachable::Unreachable,
};

/// How long the seed is given to take note of the end.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);

/// Asks a seed, without a client certificate. `ca_pin` is the SHA-256 of the fabric's root certificate
/// in DER, from the join token. The seed must show a chain that ends in exactly that root, and must be
/// a processor: any other node of the fabric could otherwise pose as a seed and be told the token.
///
/// # Errors
/// See [`RequestError`]; a wrong pin is [`RequestError::NotAdmitted`].
pub async fn join_request(
    seed: SocketAddr,
    ca_pin: &Hash,
    body: Bytes,
    timeout: Duration,
) -> Result<Bytes, RequestError> {
    if body.len() > MAX_JOIN_REQUEST_BYTES {
        return Err(RequestError::TooLarge { bytes: body.len(), limit: MAX_JOIN_REQUEST_BYTES });
    }
    let connect_error = |why| RequestError::Connect { to: seed.to_string(), alpn: Alpn::Join, why };
    let local: IpAddr =
        if seed.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let endpoint = Endpoint::client((local, 0).into()).map_err(|e| connect_error(e.to_string()))?;
    let asked = async {
        let connection = connect(&endpoint, seed, ca_pin).await?;
        let answer = ask(&connection, &body).await;
        connection.close(VarInt::from_u32(CloseCode::Done as u32), b"answered");
        answer.map_err(|error| error.into_request_error(seed.to_string(), Alpn::Join))
    };
    let answer = tokio::time::timeout(timeout, asked).await;
    // That the seed learns of the end at once is a courtesy; it would notice by itself.
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, endpoint.wait_idle()).await;
    answer.unwrap_or_else(|_| Err(RequestError::Timeout { to: seed.to_string(), after: timeout }))
}

async fn connect(endpoint: &Endpoint, seed: SocketAddr, ca_pin: &Hash) -> Result<Connection, RequestError> {
    let (to, alpn) = (seed.to_string(), Alpn::Join);
    let connect_error = |why| RequestError::Connect { to: to.clone(), alpn, why };
    let refused = |why| RequestError::NotAdmitted { to: to.clone(), alpn, why };
    let tls = join_config(ca_pin).map_err(|e| connect_error(e.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(tls));
    config.transport_config(transport_config(&Load::default()));
    let connecting =
        endpoint.connect_with(config, seed, SERVER_NAME).map_err(|e| connect_error(e.to_string()))?;
    let unheard = Unreachable::default();
    let finished = tokio::select! {
        finished = tokio::time::timeout(HANDSHAKE_TIMEOUT, connecting) => finished,
        () = reach::until_port_closed(seed, &unheard) => return Err(connect_error("nobody listens there".to_owned())),
    };
    let connection = finished
        .map_err(|_| connect_error(format!("no handshake within {HANDSHAKE_TIMEOUT:?}")))?
        .map_err(|error| match explain(&error) {
            (true, why) => refused(why),
            (false, why) => connect_error(why),
        })?;
    judge_seed(&connection).map_err(refused)?;
    Ok(connection)
}

/// TLS has verified the chain; what is left is the certificate's time.
fn judge_seed(connection: &Connection) -> Result<(), String> {
    let identity = connection.peer_identity();
    let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
    let der = chain.as_ref().and_then(|chain| chain.first()).ok_or("the seed showed no certificate")?;
    let leaf = Leaf::read(der).map_err(|e| e.to_string())?;
    let (fabric, node): (&Name, &Name) = (&leaf.fabric, &leaf.node);
    let (side, remote) = (PeerSide::Server(node), connection.remote_address());
    judge(der, fabric, side, Alpn::Join, remote, now_ms()).map(|_| ()).map_err(|e| e.to_string())
}
