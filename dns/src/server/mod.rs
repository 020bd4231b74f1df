//! The server: sockets around [`crate::answer`].
//!
//! Both transports are small loops of our own on hickory's codec. `hickory-server` spawns a task for
//! each query, which costs a third of the throughput over UDP; over TCP it brings time-outs and limits
//! of its own, while one code path for both transports keeps who asks, what is refused and what is
//! counted the same. So UDP has one socket a worker, spread by the kernel (SO_REUSEPORT), and TCP one
//! task a connection (RFC 7766).
//!
//! SO_REUSEPORT has a trap: a second process of the same user may bind the same port and silently take
//! half of the queries. The TCP listener does not set it, and is bound first, so the second process
//! fails to start instead.

mod follow;
mod respond;
mod socket;
mod tcp;
mod udp;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use selvedge_fabric::{
    event::{EventSink, vital},
    plan::Plan,
};
use tokio::sync::watch;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    asker::HostView,
    forward::Forwarder,
    metrics::{Metrics, MetricsSnapshot},
};
use respond::Responder;

/// Largest query taken, in bytes. A query is one name and a few options; 512 would do.
pub(crate) const MAX_QUERY_BYTES: usize = 4096;
/// Most UDP workers for each address: more than one a core is never of use.
pub const MAX_WORKERS: usize = 64;
/// Most addresses to listen on, and most upstreams.
pub const MAX_ADDRESSES: usize = 64;

/// How to run the server.
pub struct Options {
    /// Addresses to listen on, over UDP and TCP: loopback and overlay addresses. Port 0 takes a free one.
    pub listen: Vec<SocketAddr>,
    /// The view of queries from the host itself.
    pub host_view: HostView,
    /// Resolvers for other names; with none, other names are refused.
    pub upstreams: Vec<SocketAddr>,
    /// UDP sockets for each address, 1 to [`MAX_WORKERS`]; other values are moved into that range.
    pub workers: usize,
    /// The plan, whose zone is answered.
    pub plan: watch::Receiver<Arc<Plan>>,
    /// Where to tell that no upstream answers.
    pub events: Arc<dyn EventSink>,
}

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum DnsError {
    /// No address, or too many.
    #[error("dns.listen: give 1 to {MAX_ADDRESSES} addresses, not {0}")]
    ListenCount(usize),
    /// `0.0.0.0` or `[::]`.
    #[error(
        "dns.listen: {0} would answer on every interface, also the outer ones, where nobody has an \
         identity; name loopback or overlay addresses"
    )]
    Unspecified(SocketAddr),
    /// An address could not be bound.
    #[error(
        "dns.listen: cannot bind {address} ({transport}): {source}; is another DNS server running there?"
    )]
    Bind {
        /// Which.
        address: SocketAddr,
        /// `udp` or `tcp`.
        transport: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The first zone could not be indexed.
    #[error("cannot index the zone of the plan: {0}")]
    Index(#[from] tokio::task::JoinError),
    /// Too many upstreams.
    #[error("dns.upstreams: give at most {MAX_ADDRESSES} addresses, not {0}")]
    UpstreamCount(usize),
    /// An upstream that cannot be one.
    #[error("dns.upstreams: {0} is unspecified, has port 0 or is this server itself; name another resolver")]
    Upstream(SocketAddr),
}

/// A running server. Stops when it is dropped; [`Dns::shutdown`] also waits for it.
pub struct Dns {
    addresses: Vec<SocketAddr>,
    serving: Serving,
    workers: usize,
    metrics: Arc<Metrics>,
    _guard: DropGuard,
}

/// What every listener needs.
struct Serving {
    responder: Arc<Responder>,
    connections: Arc<tcp::Connections>,
    tasks: TaskTracker,
    stop: CancellationToken,
    events: Arc<dyn EventSink>,
}

impl Serving {
    /// Answers on the sockets of one address.
    fn serve(&self, bound: socket::Bound) {
        for socket in bound.udp {
            let (responder, tasks, stop) = (self.responder.clone(), self.tasks.clone(), self.stop.clone());
            let worker =
                udp::Worker { socket: Arc::new(socket), local: bound.address, responder, tasks, stop };
            self.tasks.spawn(vital(self.events.clone(), "dns udp", worker.run()));
        }
        let (responder, connections) = (self.responder.clone(), self.connections.clone());
        let (tasks, stop) = (self.tasks.clone(), self.stop.clone());
        let accept = tcp::accept(bound.tcp, responder, connections, tasks, stop);
        self.tasks.spawn(vital(self.events.clone(), "dns tcp", accept));
    }
}

impl Dns {
    /// Binds the sockets and starts to answer.
    ///
    /// # Errors
    /// When an option makes no sense or an address cannot be bound.
    pub async fn start(options: Options) -> Result<Self, DnsError> {
        check_listen(&options.listen)?;
        let workers = options.workers.clamp(1, MAX_WORKERS);
        let bound = options.listen.iter().map(|&address| socket::bind(address, workers));
        let bound = bound.collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = bound.iter().map(|listener| listener.address).collect();
        check_upstreams(&options.upstreams, &addresses)?;

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let first = options.plan.borrow().clone();
        let index = follow::build(&tasks, first.clone()).await?;
        let (publish, index) = watch::channel(Arc::new(index));
        let metrics = Arc::new(Metrics::default());
        let events = options.events;
        let forwarder = (!options.upstreams.is_empty())
            .then(|| Arc::new(Forwarder::new(options.upstreams, metrics.clone(), events.clone())));
        let responder = Arc::new(Responder {
            index,
            host: options.host_view.asker(),
            local: addresses.iter().map(SocketAddr::ip).collect::<Vec<IpAddr>>().into(),
            forwarder,
            metrics: metrics.clone(),
        });

        let following = follow::run(options.plan, first, publish, tasks.clone(), stop.clone());
        tasks.spawn(vital(events.clone(), "dns names", following));
        let guard = stop.clone().drop_guard();
        let serving = Serving { responder, connections: Arc::default(), tasks, stop, events };
        bound.into_iter().for_each(|listener| serving.serve(listener));
        tracing::info!(?addresses, "the DNS answers");
        Ok(Self { addresses, serving, workers, metrics, _guard: guard })
    }

    /// Answers on one more address, for instance the gateway of workloads that were attached since. Must
    /// be called within the runtime.
    ///
    /// # Errors
    /// When it is unspecified or cannot be bound.
    pub fn listen(&self, address: SocketAddr) -> Result<(), DnsError> {
        check_listen(&[address])?;
        self.serving.serve(socket::bind(address, self.workers)?);
        tracing::info!(%address, "the DNS answers here too");
        Ok(())
    }

    /// The addresses it listens on, in the order of [`Options::listen`], over UDP and TCP alike.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// The counters as they are now.
    #[must_use]
    pub fn metrics(&self) -> MetricsSnapshot {
        self.metrics.snapshot()
    }

    /// Stops answering, closes every socket and waits until all tasks have ended.
    pub async fn shutdown(&self) {
        self.serving.stop.cancel();
        self.serving.tasks.close();
        self.serving.tasks.wait().await;
    }
}

fn check_listen(listen: &[SocketAddr]) -> Result<(), DnsError> {
    if listen.is_empty() || listen.len() > MAX_ADDRESSES {
        return Err(DnsError::ListenCount(listen.len()));
    }
    match listen.iter().find(|address| address.ip().to_canonical().is_unspecified()) {
        Some(&address) => Err(DnsError::Unspecified(address)),
        None => Ok(()),
    }
}

fn check_upstreams(upstreams: &[SocketAddr], own: &[SocketAddr]) -> Result<(), DnsError> {
    if upstreams.len() > MAX_ADDRESSES {
        return Err(DnsError::UpstreamCount(upstreams.len()));
    }
    let useless = |u: &&SocketAddr| u.port() == 0 || u.ip().is_unspecified() || own.contains(u);
    match upstreams.iter().find(useless) {
        Some(&upstream) => Err(DnsError::Upstream(upstream)),
        None => Ok(()),
    }
}
