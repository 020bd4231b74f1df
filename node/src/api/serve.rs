//! Listeners: the local socket, TLS on the network, and the workload API.
//!
//! Every connection is a tracked task with a place among at most [`MAX_CONNECTIONS`]. When the server is
//! told to stop, each finishes the request it is at, within [`DRAIN_TIMEOUT`].

use std::{io, net::SocketAddr, pin::pin, sync::Arc};

use axum::Router;
use hyper::{Request, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_service::Service as _;

use super::{
    backend::Backend,
    limits::{ACCEPT_PAUSE, DRAIN_TIMEOUT, HANDSHAKE_TIMEOUT, HEADER_TIMEOUT, MAX_CONNECTIONS},
    router,
    unix::UnixSocket,
};

/// Where a request came in; authentication builds on it.
#[derive(Debug, Clone, Copy)]
pub enum Origin {
    /// The local socket.
    Unix {
        /// User id of the peer, from the kernel.
        uid: u32,
    },
    /// TLS on the network.
    Tls {
        /// The peer.
        remote: SocketAddr,
    },
    /// The workload API.
    Workload {
        /// The peer; an endpoint of this node has its address.
        source: SocketAddr,
    },
}

/// The API servers of a node.
#[derive(Clone)]
pub struct ApiServer {
    // Each listener has a router, and so limits, of its own.
    local: Router,
    remote: Router,
    workload: Router,
    stop: CancellationToken,
}

impl ApiServer {
    /// Servers that run until `stop` is cancelled.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>, stop: CancellationToken) -> Self {
        let local = router::api(backend.clone(), stop.clone());
        let remote = router::api(backend.clone(), stop.clone());
        let workload = router::workload(backend, stop.clone());
        Self { local, remote, workload, stop }
    }

    /// Serves `/v1` on the local socket. Returns when stopped and drained.
    pub async fn serve_unix(&self, socket: UnixSocket) {
        self.run(Listener::Unix(socket), &self.local).await;
    }

    /// Serves `/v1` with TLS; callers show bearer tokens. Returns when stopped and drained.
    pub async fn serve_tls(&self, listener: TcpListener, tls: Arc<rustls::ServerConfig>) {
        self.run(Listener::Tls(listener, TlsAcceptor::from(tls)), &self.remote).await;
    }

    /// Serves the workload API in clear; callers are known by their source address, so listen only on
    /// loopback and on gateway addresses of attachments. Returns when stopped and drained.
    pub async fn serve_workload(&self, listener: TcpListener) {
        self.run(Listener::Workload(listener), &self.workload).await;
    }

    async fn run(&self, listener: Listener, router: &Router) {
        let (tracker, slots) = (TaskTracker::new(), Arc::new(Semaphore::new(MAX_CONNECTIONS)));
        let accepting = async {
            // The semaphore is never closed, so the loop ends by the stop alone.
            while let Ok(slot) = slots.clone().acquire_owned().await {
                match listener.accept().await {
                    Ok(accepted) => {
                        let serving = accepted.serve(router.clone(), self.stop.clone());
                        tracker.spawn(async move {
                            serving.await;
                            drop(slot);
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept an API connection");
                        sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        };
        self.stop.run_until_cancelled(accepting).await;
        drop(listener);
        tracker.close();
        tracker.wait().await;
    }
}

enum Listener {
    Unix(UnixSocket),
    Tls(TcpListener, TlsAcceptor),
    Workload(TcpListener),
}

enum Accepted {
    Unix(UnixStream, Origin),
    Tls(TcpStream, TlsAcceptor, Origin),
    Workload(TcpStream, Origin),
}

impl Listener {
    async fn accept(&self) -> io::Result<Accepted> {
        Ok(match self {
            Self::Unix(socket) => {
                let (stream, _) = socket.listener().accept().await?;
                let uid = stream.peer_cred()?.uid();
                Accepted::Unix(stream, Origin::Unix { uid })
            }
            Self::Tls(listener, acceptor) => {
                let (stream, remote) = listener.accept().await?;
                Accepted::Tls(stream, acceptor.clone(), Origin::Tls { remote })
            }
            Self::Workload(listener) => {
                let (stream, source) = listener.accept().await?;
                Accepted::Workload(stream, Origin::Workload { source })
            }
        })
    }
}

impl Accepted {
    async fn serve(self, router: Router, stop: CancellationToken) {
        match self {
            Self::Unix(stream, origin) => serve_connection(stream, origin, router, stop).await,
            Self::Workload(stream, origin) => serve_connection(stream, origin, router, stop).await,
            Self::Tls(stream, acceptor, origin) => {
                match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => serve_connection(stream, origin, router, stop).await,
                    Ok(Err(error)) => tracing::debug!(?origin, %error, "TLS handshake failed"),
                    Err(_) => tracing::debug!(?origin, "TLS handshake took too long"),
                }
            }
        }
    }
}

async fn serve_connection<S>(stream: S, origin: Origin, router: Router, stop: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(origin);
        router.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = pin!(connection);
    let outcome = match stop.run_until_cancelled(connection.as_mut()).await {
        Some(outcome) => outcome,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN_TIMEOUT, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(?origin, %error, "API connection ended");
    }
}
