//! TCP (RFC 7766): pipelined queries, bounded connections, no patience with idlers.

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    MAX_QUERY_BYTES,
    respond::{Outcome, Responder, Transport},
};
use crate::metrics::Dropped;

/// Most connections at a time.
const MAX_CONNECTIONS: usize = 256;
/// Most connections at a time from one address, so that one workload cannot take them all.
const MAX_CONNECTIONS_PER_SOURCE: usize = 32;
/// Most queries of one connection that may wait for upstreams; no more is read until one is done.
const MAX_PIPELINED: usize = 16;
/// A connection without a complete query for this long is closed (RFC 7766, section 6.2.3). Bytes that
/// trickle in do not count.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);
/// A peer that does not take a reply within this time is gone.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Shortest query: a header.
const MIN_QUERY_BYTES: usize = 12;
/// Bytes of the length before each message.
const LENGTH_BYTES: usize = 2;
/// Pause after a failed accept: mostly for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The open connections by source.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<HashMap<IpAddr, usize>>);

/// A place among the open connections; given back on drop.
struct Seat {
    connections: Arc<Connections>,
    source: IpAddr,
    responder: Arc<Responder>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seat(self: &Arc<Self>, source: IpAddr, responder: &Arc<Responder>) -> Option<Seat> {
        let mut open = self.lock();
        let all: usize = open.values().sum();
        let of_source = open.entry(source).or_default();
        if all >= MAX_CONNECTIONS || *of_source >= MAX_CONNECTIONS_PER_SOURCE {
            return None;
        }
        *of_source += 1;
        responder.metrics.tcp_opened();
        Some(Seat { connections: self.clone(), source, responder: responder.clone() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.connections.lock();
        if let Some(count) = open.get_mut(&self.source) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.source);
            }
        }
        self.responder.metrics.tcp_closed();
    }
}

/// Accepts connections until stopped.
pub(crate) async fn accept(
    listener: TcpListener,
    responder: Arc<Responder>,
    connections: Arc<Connections>,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        let Ok((stream, source)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(seat) = connections.seat(source.ip().to_canonical(), &responder) else {
            responder.metrics.dropped(Dropped::TcpLimit);
            continue;
        };
        let (responder, stop) = (responder.clone(), stop.clone());
        tasks.spawn(async move {
            let connection = Connection { stream, source, responder, pending: FuturesUnordered::new() };
            if let Some(Err(error)) = stop.run_until_cancelled(connection.serve()).await {
                tracing::debug!(%source, %error, "a TCP connection ended");
            }
            drop(seat);
        });
    }
}

type Pending = Pin<Box<dyn Future<Output = Option<Vec<u8>>> + Send>>;

struct Connection {
    stream: TcpStream,
    source: SocketAddr,
    responder: Arc<Responder>,
    /// Queries that wait for upstreams; they are answered as they come, not in order (RFC 7766,
    /// section 6.2.1.1).
    pending: FuturesUnordered<Pending>,
}

impl Connection {
    async fn serve(mut self) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(LENGTH_BYTES + MAX_QUERY_BYTES);
        let (mut deadline, mut open) = (Instant::now() + IDLE_TIMEOUT, true);
        loop {
            while self.pending.len() < MAX_PIPELINED {
                let Some(query) = self.next_query(&mut buffer)? else { break };
                deadline = Instant::now() + IDLE_TIMEOUT;
                self.take(&query).await?;
            }
            let waiting = !self.pending.is_empty();
            if !open && !waiting {
                return Ok(());
            }
            let room = self.pending.len() < MAX_PIPELINED;
            tokio::select! {
                Some(reply) = self.pending.next(), if waiting => {
                    deadline = Instant::now() + IDLE_TIMEOUT;
                    if let Some(reply) = reply { self.send(&reply).await?; }
                }
                // Dropping this read loses nothing: what was read is in the buffer.
                read = self.stream.read_buf(&mut buffer), if open && room => open = read? > 0,
                () = sleep_until(deadline), if !waiting => return Ok(()),
            }
        }
    }

    /// Takes a whole query off the buffer, which so never holds more than one and a read.
    fn next_query(&self, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let Some(&[high, low]) = buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(None) };
        let len = usize::from(u16::from_be_bytes([high, low]));
        if !(MIN_QUERY_BYTES..=MAX_QUERY_BYTES).contains(&len) {
            self.responder.metrics.dropped(Dropped::TcpFrame);
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a query of {len} bytes")));
        }
        if buffer.len() < LENGTH_BYTES + len {
            return Ok(None);
        }
        Ok(Some(buffer.drain(..LENGTH_BYTES + len).skip(LENGTH_BYTES).collect()))
    }

    async fn take(&mut self, query: &[u8]) -> io::Result<()> {
        match self.responder.respond(query, self.source, Transport::Tcp) {
            Outcome::Drop => Ok(()),
            Outcome::Reply(reply) => self.send(&reply).await,
            Outcome::Later(later) => {
                let responder = self.responder.clone();
                self.pending.push(Box::pin(async move { responder.finish(later).await }));
                Ok(())
            }
        }
    }

    /// Length and message in one write, so that they leave in one segment (RFC 7766, section 8).
    async fn send(&mut self, reply: &[u8]) -> io::Result<()> {
        let len = u16::try_from(reply.len()).map_err(io::Error::other)?;
        let frame = [&len.to_be_bytes()[..], reply].concat();
        timeout(WRITE_TIMEOUT, self.stream.write_all(&frame)).await?
    }
}
