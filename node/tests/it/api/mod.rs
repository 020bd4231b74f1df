//! The API over real sockets, with a backend that remembers what it was asked.

mod auth;
mod bad_input;
pub(crate) mod client;
mod fake;
mod hostile;
mod openapi;
mod operations;
mod socket;
mod watch;

use std::{path::PathBuf, sync::Arc};

use selvedge_node::api::{ApiServer, UnixSocket};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use client::Client;
use fake::Fake;

/// A served fake node; stops when dropped.
struct Served {
    fake: Arc<Fake>,
    server: ApiServer,
    socket: PathBuf,
    stop: CancellationToken,
    tasks: JoinSet<()>,
    _dir: tempfile::TempDir,
}

impl Served {
    /// Serves a fake on a local socket.
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let (fake, stop) = (Arc::new(Fake::default()), CancellationToken::new());
        let server = ApiServer::new(fake.clone(), stop.clone());
        let listening = UnixSocket::bind(&socket, None).await.unwrap();
        let mut tasks = JoinSet::new();
        let unix = server.clone();
        tasks.spawn(async move { unix.serve_unix(listening).await });
        Self { fake, server, socket, stop, tasks, _dir: dir }
    }

    /// A client on the local socket.
    async fn client(&self) -> Client {
        Client::unix(&self.socket).await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
