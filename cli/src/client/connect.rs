//! One request over one connection.

use std::{io, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{HeaderMap, Request, StatusCode, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use selvedge_fabric::id::NodeName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Ask, CONNECT_TIMEOUT, MAX_ANSWER_BYTES, Target, tls::judge_peer};
use crate::failure::Failure;

/// The server name that every connection of the fabric sends; it tells an observer nothing.
const SERVER_NAME: &str = "selvedge";

/// What a node answered.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// Which node.
    pub(crate) from: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// Nothing was sent.
    Before(Failure),
    /// The request was sent, at least in part.
    After(String),
}

/// Sends a request to a target and reads the whole answer.
pub(super) async fn exchange(
    target: &Target,
    tls: Option<Arc<ClientConfig>>,
    ask: &Ask,
    headers: HeaderMap,
) -> Result<Answer, Lost> {
    let lost = |why: String| Lost::Before(unreachable(target, &why));
    let slow = |_| lost(format!("no connection within {} s", CONNECT_TIMEOUT.as_secs()));
    match (target, tls) {
        (Target::Unix(path), _) => {
            let stream = timeout(CONNECT_TIMEOUT, UnixStream::connect(path)).await.map_err(slow)?;
            let stream = stream.map_err(|e| Lost::Before(socket_failure(path, &e)))?;
            over(stream, target, ask, headers).await
        }
        (Target::Https { host, port, node }, Some(tls)) => {
            let connecting = connect_tls(host, *port, node.as_ref(), tls);
            let stream = timeout(CONNECT_TIMEOUT, connecting).await.map_err(slow)?;
            over(stream.map_err(|e| Lost::Before(tls_failure(target, &e)))?, target, ask, headers).await
        }
        (Target::Https { .. }, None) => Err(lost("no CA file given".into())),
    }
}

async fn connect_tls(
    host: &str,
    port: u16,
    node: Option<&NodeName>,
    tls: Arc<ClientConfig>,
) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let stream = TcpStream::connect((host, port)).await?;
    let name = SERVER_NAME.try_into().map_err(io::Error::other)?;
    let stream = TlsConnector::from(tls).connect(name, stream).await?;
    // Before anything is sent, the token above all.
    let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
    judge_peer(shown, node).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why))?;
    Ok(stream)
}

async fn over<S>(stream: S, target: &Target, ask: &Ask, headers: HeaderMap) -> Result<Answer, Lost>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let before = |e: &dyn std::fmt::Display| Lost::Before(unreachable(target, &e.to_string()));
    let after = |e: &dyn std::fmt::Display| Lost::After(e.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| before(&e))?;
    // The connection ends with this function: dropping the set aborts its task.
    let mut driver = JoinSet::new();
    driver.spawn(connection);
    let mut request = Request::builder().method(ask.method.clone()).uri(&ask.path);
    if let Some(all) = request.headers_mut() {
        all.extend(headers);
    }
    let request = request.body(Full::new(ask.body.clone())).map_err(|e| before(&e))?;
    let answering = async {
        let response = sender.send_request(request).await.map_err(|e| after(&e))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
        let body = body.map_err(|e| Lost::After(e.to_string()))?.to_bytes();
        Ok(Answer { status, body, from: target.to_string() })
    };
    let seconds = |d: Duration| d.as_secs();
    match timeout(ask.patience, answering).await {
        Ok(answer) => answer,
        Err(_) => Err(Lost::After(format!("nothing within {} s", seconds(ask.patience)))),
    }
}

fn unreachable(target: &Target, why: &str) -> Failure {
    Failure::unreachable(format!("cannot reach a node: {why}"))
        .at(target.to_string())
        .remedy("is the node running? name others with --api, separated by commas")
}

/// What answered and is not to be trusted is no matter of reaching it.
fn tls_failure(target: &Target, error: &io::Error) -> Failure {
    let failure = unreachable(target, &error.to_string());
    match error.kind() {
        io::ErrorKind::InvalidData => failure
            .remedy("give the address of a processor of this fabric, and this fabric's root as --ca-file"),
        _ => failure,
    }
}

fn socket_failure(path: &Path, error: &io::Error) -> Failure {
    let failure =
        Failure::unreachable(format!("cannot reach a node: {error}")).at(path.display().to_string());
    match error.kind() {
        io::ErrorKind::PermissionDenied => failure.remedy("use sudo, or join the group that owns the socket"),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => failure.remedy(
            "start one with `selvedge node run` or `selvedge playground`, or name its socket with --socket",
        ),
        _ => failure.remedy("name the node's socket with --socket, or its address with --api"),
    }
}
