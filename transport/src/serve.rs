//! What a connection is for once it is admitted: requests and datagrams of the peer, handed to the
//! handler of the ALPN.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use bytes::Bytes;
use quinn::{Connection, ConnectionError, RecvStream, SendStream, VarInt};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    Alpn, PeerIdentity, RequestError,
    exchange::{FrameError, TAG_ANSWER, TAG_REFUSAL, TAG_REQUEST, read_body, read_head, write_frame},
    limits::{
        JOIN_CONNECTION_LIFETIME, MAX_JOIN_REQUEST_BYTES, MAX_JOIN_REQUESTS_PER_CONNECTION,
        MAX_REQUEST_BYTES, MAX_REQUEST_BYTES_PER_CONNECTION, MAX_REQUESTS_PER_CONNECTION,
        REQUEST_READ_TIMEOUT,
    },
    link::{CloseCode, Link, close, refusal_of},
    transport::Shared,
};

/// Who asks, and within which bounds.
struct Desk {
    shared: Arc<Shared>,
    alpn: Alpn,
    peer: Option<PeerIdentity>,
    remote: SocketAddr,
    max_request_bytes: usize,
    /// Requests in work. Held until the handler is done, not until the stream is: a peer that gives
    /// up at once and asks again must not start handlers without end.
    requests: Arc<Semaphore>,
    /// Bytes of bodies in memory.
    bytes: Semaphore,
}

/// Serves an admitted peer until the connection ends.
pub(crate) async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let desk = Arc::new(Desk {
        shared: Arc::clone(&shared),
        alpn: link.alpn,
        peer: Some(link.peer.clone()),
        remote: link.connection.remote_address(),
        max_request_bytes: MAX_REQUEST_BYTES,
        requests: Arc::new(Semaphore::new(MAX_REQUESTS_PER_CONNECTION)),
        bytes: Semaphore::new(MAX_REQUEST_BYTES_PER_CONNECTION),
    });
    let streams = u32::try_from(MAX_REQUESTS_PER_CONNECTION).unwrap_or(u32::MAX);
    link.connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
    let ended = loop {
        tokio::select! {
            stream = next_request(&desk, &link.connection) => match stream {
                Ok(request) => {
                    link.touch();
                    shared.tasks.spawn(answer(Arc::clone(&desk), request));
                }
                Err(error) => break error,
            },
            datagram = link.connection.read_datagram() => match datagram {
                Ok(body) => {
                    link.touch();
                    if let Some(handler) = shared.handler(link.alpn) {
                        handler.datagram(&link.peer, body);
                    }
                }
                Err(error) => break error,
            },
        }
    };
    let refused = refusal_of(&ended).map(|why| RequestError::NotAdmitted {
        to: link.peer.node.to_string(),
        alpn: link.alpn,
        why,
    });
    tracing::debug!(peer = %link.peer.node, alpn = %link.alpn, %ended, "connection ended");
    shared.pool().remove(&link, refused, Instant::now());
}

/// Serves a node that is not admitted yet: one request at a time, small, and not for long.
pub(crate) async fn run_join(shared: Arc<Shared>, connection: Connection) {
    let desk = Arc::new(Desk {
        shared: Arc::clone(&shared),
        alpn: Alpn::Join,
        peer: None,
        remote: connection.remote_address(),
        max_request_bytes: MAX_JOIN_REQUEST_BYTES,
        requests: Arc::new(Semaphore::new(MAX_JOIN_REQUESTS_PER_CONNECTION)),
        bytes: Semaphore::new(MAX_JOIN_REQUEST_BYTES),
    });
    let streams = u32::try_from(MAX_JOIN_REQUESTS_PER_CONNECTION).unwrap_or(u32::MAX);
    connection.set_max_concurrent_bi_streams(VarInt::from_u32(streams));
    let serve = async {
        while let Ok(request) = next_request(&desk, &connection).await {
            shared.tasks.spawn(answer(Arc::clone(&desk), request));
        }
    };
    if tokio::time::timeout(JOIN_CONNECTION_LIFETIME, serve).await.is_err() {
        close(&connection, CloseCode::Unused, "a join takes less time than this");
    }
}

/// A stream the peer opened, and the right to work on it.
struct Request {
    send: SendStream,
    receive: RecvStream,
    _permit: Option<OwnedSemaphorePermit>,
}

async fn next_request(desk: &Desk, connection: &Connection) -> Result<Request, ConnectionError> {
    // The semaphore is never closed, so there always is a permit at last.
    let permit = Arc::clone(&desk.requests).acquire_owned().await.ok();
    let (send, receive) = connection.accept_bi().await?;
    Ok(Request { send, receive, _permit: permit })
}

/// Answers one request. A handler that panics ends its task; the stream is then finished without a
/// frame, which the peer takes for a lost request.
async fn answer(desk: Arc<Desk>, mut request: Request) {
    let read = tokio::time::timeout(REQUEST_READ_TIMEOUT, desk.read(&mut request.receive)).await;
    let answer = match read {
        Ok(Ok((body, _held))) => desk.handle(body).await,
        Ok(Err(FrameError::TooLarge(bytes))) => {
            Err(format!("a request of {bytes} bytes is too large: the limit is {}", desk.max_request_bytes))
        }
        Ok(Err(error)) => {
            tracing::debug!(remote = %desk.remote, alpn = %desk.alpn, %error, "unreadable request");
            return;
        }
        Err(_) => Err(format!("the request did not arrive within {REQUEST_READ_TIMEOUT:?}")),
    };
    let (tag, body) = match answer {
        Ok(body) if body.len() > MAX_REQUEST_BYTES => {
            let text =
                format!("the answer of {} bytes is too large: the limit is {MAX_REQUEST_BYTES}", body.len());
            (TAG_REFUSAL, text.into())
        }
        Ok(body) => (TAG_ANSWER, body),
        Err(text) => (TAG_REFUSAL, Bytes::from(text)),
    };
    if let Err(error) = write_frame(&mut request.send, tag, body).await {
        tracing::debug!(remote = %desk.remote, alpn = %desk.alpn, %error, "the answer was not wanted");
    }
}

impl Desk {
    /// The body of a request and its share of the memory.
    async fn read(
        &self,
        receive: &mut RecvStream,
    ) -> Result<(Bytes, Option<tokio::sync::SemaphorePermit<'_>>), FrameError> {
        let (tag, bytes) = read_head(receive, self.max_request_bytes).await?;
        if tag != TAG_REQUEST {
            return Err(FrameError::Malformed(format!("a request with the unknown tag {tag}")));
        }
        let share = u32::try_from(bytes).unwrap_or(u32::MAX);
        let held = self.bytes.acquire_many(share).await.ok();
        Ok((read_body(receive, bytes).await?, held))
    }

    async fn handle(&self, body: Bytes) -> Result<Bytes, String> {
        match self.shared.handler(self.alpn) {
            Some(handler) => handler.request(self.peer.clone(), self.remote, body).await,
            None => Err(format!("node {} does not answer {} requests (yet)", self.shared.me, self.alpn)),
        }
    }
}
