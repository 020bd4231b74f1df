//! Fetches one small JSON document over HTTP/1.1.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{Request, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::{net::TcpStream, time::timeout};

/// How long a server may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// Largest body that is read.
const MAX_BODY_BYTES: usize = 64 * 1024;

/// Fetches `path` from `server`.
///
/// # Errors
/// When no answer arrives in time, or it is not a JSON document of the wanted form.
pub(crate) async fn get<T: DeserializeOwned>(server: SocketAddr, path: &str) -> anyhow::Result<T> {
    let fetched = timeout(ANSWER_LIMIT, fetch(server, path)).await;
    let body = fetched.unwrap_or_else(|_| bail!("no answer within {ANSWER_LIMIT:?}"));
    let parsed = body.and_then(|body| serde_json::from_slice(&body).context("unexpected answer"));
    parsed.with_context(|| format!("http://{server}{path}"))
}

async fn fetch(server: SocketAddr, path: &str) -> anyhow::Result<Bytes> {
    let stream = TcpStream::connect(server).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get(path)
        .header(header::HOST, server.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())?;
    let exchange = async {
        let response = sender.send_request(request).await?;
        ensure!(response.status().is_success(), "status {}", response.status());
        let body = Limited::new(response.into_body(), MAX_BODY_BYTES).collect().await;
        Ok(body.map_err(|e| anyhow::anyhow!("{e}"))?.to_bytes())
    };
    tokio::pin!(exchange);
    // The connection makes progress only while it is polled; here, beside the exchange.
    tokio::select! {
        body = &mut exchange => body,
        ended = connection => {
            ended?;
            exchange.await
        }
    }
}
