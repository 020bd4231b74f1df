//! The tiny HTTP servers behind a playground's endpoints.
//!
//! They stand for workloads on the host of their node: when the node's process ends, its host is taken
//! for dead, and their listeners and connections close with it.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming, header, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most open connections of one endpoint; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request.
const HEADER_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before accepting again when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an endpoint says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Card {
    pub(crate) service: String,
    pub(crate) endpoint: String,
    pub(crate) node: String,
    pub(crate) cloud: String,
}

/// Listens on `address`, in the network of the calling thread.
pub(crate) fn listen(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let bound = std::net::TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    bound.with_context(|| format!("an endpoint cannot listen on {address}"))
}

/// Answers every request to `listener` with `card`, until `host` is cancelled.
pub(crate) fn serve(
    listener: std::net::TcpListener,
    card: &Card,
    host: CancellationToken,
    tasks: &TaskTracker,
) -> anyhow::Result<()> {
    let listener = TcpListener::from_std(listener)
        .with_context(|| format!("endpoint {} cannot serve", card.endpoint))?;
    let body = Bytes::from(serde_json::to_vec(card)?);
    tasks.spawn(accept(listener, body, host, tasks.clone()));
    Ok(())
}

async fn accept(listener: TcpListener, body: Bytes, host: CancellationToken, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let next = async {
        loop {
            // The semaphore is never closed.
            let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
            let Ok((stream, _)) = listener.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let (body, host) = (body.clone(), host.clone());
            tasks.spawn(async move {
                host.run_until_cancelled(connection(stream, body)).await;
                drop(slot);
            });
        }
    };
    host.run_until_cancelled(next).await;
}

async fn connection(stream: TcpStream, body: Bytes) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let response = respond(request.uri().path(), body.clone());
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEADER_LIMIT);
    // A client that breaks off is its own business.
    let _ = http.serve_connection(TokioIo::new(stream), answer).await;
}

fn respond(path: &str, card: Bytes) -> Response<Full<Bytes>> {
    let (status, body) = match path {
        "/" => (StatusCode::OK, card),
        "/healthz" => (StatusCode::OK, Bytes::from_static(b"{\"ok\":true}")),
        _ => (StatusCode::NOT_FOUND, Bytes::from_static(b"{\"error\":\"only / and /healthz are here\"}")),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::http;

    async fn free_address() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        listener.local_addr().expect("an address")
    }

    #[tokio::test]
    async fn serves_its_card_until_its_host_dies() {
        let (tasks, host) = (TaskTracker::new(), CancellationToken::new());
        let card = Card {
            service: "voting-svc@voting-app".into(),
            endpoint: "e1".into(),
            node: "aws-p1".into(),
            cloud: "aws".into(),
        };
        let address = free_address().await;
        let listener = listen(address).expect("listening");
        serve(listener, &card, host.clone(), &tasks).expect("serving");
        assert_eq!(http::get::<Card>(address, "/").await.expect("a card"), card);
        let health = http::get::<serde_json::Value>(address, "/healthz").await.expect("healthy");
        assert_eq!(health["ok"], true);
        assert!(http::get::<Card>(address, "/nope").await.is_err());
        // A connection that is open when the host dies.
        let idle = TcpStream::connect(address).await.expect("connected");
        host.cancel();
        tasks.close();
        tokio::time::timeout(Duration::from_secs(30), tasks.wait()).await.expect("every task ends");
        assert!(TcpStream::connect(address).await.is_err(), "the listener is closed");
        drop(idle);
    }

    #[tokio::test]
    async fn a_taken_address_is_an_error_that_names_it() {
        let holder = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let address = holder.local_addr().expect("an address");
        let text = format!("{:#}", listen(address).expect_err("taken"));
        assert!(text.contains(&address.to_string()), "{text}");
    }
}
