//! The endpoint as its users see it, and what its parts share.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn::{Connection, Endpoint};
use rustls_pki_types::CertificateDer;
use selvedge_fabric::{
    event::{EventSink, vital},
    id::{Name, NodeName},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    AddressBook, Alpn, Channel, Credentials, CredentialsError, Gate, Handler, PeerIdentity, RequestError,
    TransportError, accept, dial,
    identity::now_ms,
    isolation::Isolation,
    judge::{PeerSide, Refusal, judge},
    limits::{
        MAX_HANDSHAKES, MAX_JOIN_CONNECTIONS, MAX_JOIN_REQUEST_BYTES, MAX_REQUEST_BYTES, SWEEP_INTERVAL,
        UNUSED_AFTER,
    },
    link::{CloseCode, Link, close},
    pool::{Pool, Step},
    refusals::Refusals,
    serve,
    tls::LocalIdentity,
    unreachable::{self, Unreachable},
};

/// How long [`Transport::close`] waits for peers to be told and tasks to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// What a transport needs.
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The fabric's name: the trust domain of every certificate.
    pub fabric: Name,
    /// This node's name; must be that of the certificate. `None` takes the certificate's.
    pub me: Option<NodeName>,
    /// The node's credentials; new ones are used from the next handshake on.
    pub credentials: watch::Receiver<Arc<Credentials>>,
    /// Who is admitted.
    pub gate: Arc<dyn Gate>,
    /// Where refusals are told.
    pub events: Arc<dyn EventSink>,
}

/// The endpoint of a node. Clones share it.
#[derive(Clone)]
pub struct Transport(pub(crate) Arc<Shared>);

impl std::fmt::Debug for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transport").field("me", &self.0.me).finish_non_exhaustive()
    }
}

/// What was dropped and refused since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams not sent because there was no connection yet.
    pub datagrams_unconnected: u64,
    /// Datagrams not sent because they were too large for the path, or the connection just ended.
    pub datagrams_unsendable: u64,
    /// Incoming handshakes refused because too many were under way.
    pub handshakes_refused: u64,
    /// Incoming handshakes that failed or were given up.
    pub handshakes_failed: u64,
    /// Peers refused by certificate or gate.
    pub peers_refused: u64,
}

/// [`Counters`] while they are counted.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) datagrams_unconnected: AtomicU64,
    pub(crate) datagrams_unsendable: AtomicU64,
    pub(crate) handshakes_refused: AtomicU64,
    pub(crate) handshakes_failed: AtomicU64,
    pub(crate) peers_refused: AtomicU64,
}

/// Counts one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What the parts of a transport share.
pub(crate) struct Shared {
    pub(crate) endpoint: Endpoint,
    pub(crate) local: SocketAddr,
    pub(crate) fabric: Name,
    pub(crate) me: NodeName,
    pub(crate) identity: Arc<LocalIdentity>,
    pub(crate) client_configs: Vec<quinn::ClientConfig>,
    pub(crate) server_config: quinn::ServerConfig,
    pub(crate) book: AddressBook,
    pub(crate) refusals: Refusals,
    pub(crate) unreachable: Unreachable,
    pub(crate) isolation: Arc<Isolation>,
    pub(crate) tally: Tally,
    pub(crate) handshakes: Arc<Semaphore>,
    pub(crate) joins: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    gate: Arc<dyn Gate>,
    handlers: RwLock<[Option<Arc<dyn Handler>>; Alpn::ALL.len()]>,
    pool: Mutex<Pool>,
}

impl Transport {
    /// Binds the port and begins to answer. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the port is taken or the credentials do not fit together.
    pub fn bind(options: Options) -> Result<Self, TransportError> {
        let Options { listen, fabric, me, credentials, gate, events } = options;
        let key = credentials.borrow().key.clone_key();
        let identity = Arc::new(LocalIdentity::new(credentials, fabric.clone(), Arc::clone(&events))?);
        let found = identity.current().leaf.node.clone();
        if let Some(expected) = me.filter(|me| *me != found) {
            return Err(CredentialsError::Node { expected, found }.into());
        }
        let server_config = dial::server_config(&identity)?;
        let isolation = Arc::default();
        let (endpoint, ear) = dial::bind_endpoint(listen, server_config.clone(), &key, &isolation)?;
        let local =
            endpoint.local_addr().map_err(|source| TransportError::Bind { address: listen, source })?;
        let client_configs =
            Alpn::ALL.iter().map(|alpn| dial::client_config(&identity, *alpn)).collect::<Result<_, _>>()?;
        let shared = Arc::new(Shared {
            endpoint,
            local,
            fabric,
            me: found.clone(),
            identity,
            client_configs,
            server_config,
            book: AddressBook::default(),
            refusals: Refusals::new(Arc::clone(&events)),
            unreachable: Unreachable::default(),
            isolation,
            tally: Tally::default(),
            handshakes: Arc::new(Semaphore::new(MAX_HANDSHAKES)),
            joins: Arc::new(Semaphore::new(MAX_JOIN_CONNECTIONS)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            gate,
            handlers: RwLock::default(),
            pool: Mutex::new(Pool::new(found)),
        });
        let watched = || Arc::clone(&events);
        shared.tasks.spawn(vital(watched(), "connections accepted", accept::run(Arc::clone(&shared))));
        shared.tasks.spawn(vital(watched(), "connections swept", sweep(Arc::clone(&shared))));
        shared.tasks.spawn(vital(watched(), "unreachable ports", unreachable::run(Arc::clone(&shared), ear)));
        Ok(Self(shared))
    }

    /// The address that is listened on, with the port that was taken.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.0.local
    }

    /// This node's name.
    #[must_use]
    pub fn me(&self) -> &NodeName {
        &self.0.me
    }

    /// Sets who answers under an ALPN; until then, requests are refused and datagrams dropped.
    pub fn handle(&self, alpn: Alpn, handler: Arc<dyn Handler>) {
        let mut handlers = self.0.handlers.write().unwrap_or_else(PoisonError::into_inner);
        handlers[alpn.index()] = Some(handler);
    }

    /// Where nodes are reached.
    #[must_use]
    pub fn book(&self) -> &AddressBook {
        &self.0.book
    }

    /// Asks a node and waits for its answer, at most `timeout`. A request whose connection is lost is
    /// sent once more, so the peer may handle it twice.
    ///
    /// # Errors
    /// See [`RequestError`].
    pub async fn request(
        &self,
        node: &NodeName,
        alpn: Alpn,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Bytes, RequestError> {
        let limit = if alpn == Alpn::Join { MAX_JOIN_REQUEST_BYTES } else { MAX_REQUEST_BYTES };
        if body.len() > limit {
            return Err(RequestError::TooLarge { bytes: body.len(), limit });
        }
        tokio::select! {
            answer = tokio::time::timeout(timeout, self.0.request_twice(node, alpn, &body)) => {
                answer.unwrap_or_else(|_| Err(RequestError::Timeout { to: node.to_string(), after: timeout }))
            }
            () = self.0.stop.cancelled() => Err(RequestError::Closed),
        }
    }

    /// Sends a datagram, without delay and without a promise. When there is no connection yet, one is
    /// made in the background and the datagram is dropped and counted.
    pub fn send_datagram(&self, node: &NodeName, alpn: Alpn, body: Bytes) {
        match self.0.next_step(node, alpn) {
            Step::Use(link) => self.0.send_on(&link, body),
            Step::Renew(link, outcome) => {
                dial::start(&self.0, node, alpn, outcome);
                self.0.send_on(&link, body);
            }
            Step::Dial(outcome, _) => {
                dial::start(&self.0, node, alpn, outcome);
                count(&self.0.tally.datagrams_unconnected);
            }
            Step::Wait(_) | Step::Fail(_) => count(&self.0.tally.datagrams_unconnected),
        }
    }

    /// Begins to make a connection, unless there is one or a try failed a moment ago.
    pub fn connect(&self, node: &NodeName, alpn: Alpn) {
        match self.0.next_step(node, alpn) {
            Step::Dial(outcome, _) | Step::Renew(_, outcome) => dial::start(&self.0, node, alpn, outcome),
            Step::Use(_) | Step::Wait(_) | Step::Fail(_) => {}
        }
    }

    /// The connection to use for datagrams to a node, if there is one.
    #[must_use]
    pub fn channel(&self, node: &NodeName, alpn: Alpn) -> Option<Channel> {
        let generation = self.0.identity.current().generation;
        self.0.pool().find(node, alpn, generation).map(Channel::new)
    }

    /// The largest datagram, in bytes, that the path to a node carries now; `None` without connection.
    #[must_use]
    pub fn max_datagram_bytes(&self, node: &NodeName, alpn: Alpn) -> Option<usize> {
        let generation = self.0.identity.current().generation;
        self.0.pool().find(node, alpn, generation)?.connection.max_datagram_size()
    }

    /// The smoothed round-trip time to a node, over the fastest of its connections.
    #[must_use]
    pub fn rtt(&self, node: &NodeName) -> Option<Duration> {
        let links = self.0.pool().links();
        let to_node = links.iter().filter(|link| link.peer.node == *node && link.is_alive());
        to_node.map(|link| link.connection.rtt()).min()
    }

    /// Peers with a live connection, and for what.
    #[must_use]
    pub fn connections(&self) -> Vec<(PeerIdentity, Alpn)> {
        let links = self.0.pool().links();
        links.iter().filter(|link| link.is_alive()).map(|link| (link.peer.clone(), link.alpn)).collect()
    }

    /// Asks the gate again about every connection and closes those it now refuses.
    pub fn recheck(&self) {
        self.0.recheck();
    }

    /// What was dropped and refused since the start.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let tally = &self.0.tally;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            datagrams_unconnected: read(&tally.datagrams_unconnected),
            datagrams_unsendable: read(&tally.datagrams_unsendable),
            handshakes_refused: read(&tally.handshakes_refused),
            handshakes_failed: read(&tally.handshakes_failed),
            peers_refused: read(&tally.peers_refused),
        }
    }

    /// Tells all peers, ends all tasks and frees the port.
    pub async fn close(&self) {
        let shared = &self.0;
        shared.stop.cancel();
        shared.endpoint.close(quinn::VarInt::from_u32(CloseCode::Done as u32), b"the node shuts down");
        shared.tasks.close();
        let all_ended = async {
            shared.tasks.wait().await;
            shared.endpoint.wait_idle().await;
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, all_ended).await.is_err() {
            tracing::warn!("some connections or handlers did not end within {CLOSE_TIMEOUT:?}");
        }
        // Handlers may hold what holds this transport; nobody would ever be dropped.
        *shared.handlers.write().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }
}

impl Shared {
    pub(crate) fn pool(&self) -> MutexGuard<'_, Pool> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn handler(&self, alpn: Alpn) -> Option<Arc<dyn Handler>> {
        self.handlers.read().unwrap_or_else(PoisonError::into_inner)[alpn.index()].clone()
    }

    fn next_step(&self, node: &NodeName, alpn: Alpn) -> Step {
        let generation = self.identity.current().generation;
        self.pool().next_step(node, alpn, generation, Instant::now())
    }

    /// A live connection, dialling if there is none.
    pub(crate) async fn connection(
        self: &Arc<Self>,
        node: &NodeName,
        alpn: Alpn,
    ) -> Result<Arc<Link>, RequestError> {
        let mut outcome = match self.next_step(node, alpn) {
            Step::Use(link) => return Ok(link),
            Step::Renew(link, outcome) => {
                dial::start(self, node, alpn, outcome);
                return Ok(link);
            }
            Step::Fail(error) => return Err(error),
            Step::Wait(outcome) => outcome,
            Step::Dial(sender, outcome) => {
                dial::start(self, node, alpn, sender);
                outcome
            }
        };
        match outcome.wait_for(Option::is_some).await {
            Ok(done) => done.clone().unwrap_or(Err(RequestError::Closed)),
            Err(_) => Err(RequestError::Closed),
        }
    }

    fn send_on(&self, link: &Link, body: Bytes) {
        link.touch();
        if link.connection.send_datagram(body).is_err() {
            count(&self.tally.datagrams_unsendable);
        }
    }

    /// Judges the peer of a connection that passed the handshake, asks the gate, and on success puts
    /// the connection to use. On refusal it is closed and an event tells of it.
    pub(crate) fn admit(
        self: &Arc<Self>,
        connection: Connection,
        alpn: Alpn,
        side: PeerSide<'_>,
        generation: u64,
    ) -> Result<Arc<Link>, Refusal> {
        let judged = self.judge(&connection, alpn, side);
        let peer = match judged {
            Ok(peer) => peer,
            Err((subject, refusal)) => {
                self.refuse(&connection, &subject, &refusal);
                return Err(refusal);
            }
        };
        if self.is_cut_off(&peer.node, connection.remote_address()) {
            close(&connection, CloseCode::Unused, "");
            return Err(Refusal::CutOff);
        }
        let dialled = matches!(side, PeerSide::Server(_));
        let link = Arc::new(Link::new(connection, peer, alpn, dialled, generation));
        self.pool().insert(&link);
        // Asked after the insertion, so that a change of policy either is seen here or by `recheck`.
        if let Err(refusal) = self.ask_gate(&link.peer, alpn) {
            self.pool().remove(&link, None, Instant::now());
            self.refuse(&link.connection, link.peer.node.as_str(), &refusal);
            return Err(refusal);
        }
        self.book.prove(&link.peer.node, link.connection.remote_address());
        self.tasks.spawn(serve::run(Arc::clone(self), Arc::clone(&link)));
        Ok(link)
    }

    /// The peer, or the one to blame and why.
    fn judge(
        &self,
        connection: &Connection,
        alpn: Alpn,
        side: PeerSide<'_>,
    ) -> Result<PeerIdentity, (String, Refusal)> {
        let remote = connection.remote_address();
        let ip = || remote.ip().to_string();
        let identity = connection.peer_identity();
        let chain = identity.and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let leaf = chain.as_ref().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| (ip(), Refusal::NoCertificate(alpn)))?;
        judge(leaf, &self.fabric, side, alpn, remote, now_ms()).map_err(|refusal| (ip(), refusal))
    }

    fn ask_gate(&self, peer: &PeerIdentity, alpn: Alpn) -> Result<(), Refusal> {
        self.gate.admit(peer, alpn).map_err(Refusal::NotAdmitted)
    }

    fn refuse(&self, connection: &Connection, subject: &str, refusal: &Refusal) {
        let text = refusal.to_string();
        close(connection, CloseCode::Refused, &text);
        count(&self.tally.peers_refused);
        self.refusals.refused(subject, refusal.word(), &format!("{}: {text}", connection.remote_address()));
    }

    fn recheck(&self) {
        let now_ms = now_ms();
        // The lock must not be held in the loop, which takes it again.
        let links = self.pool().links();
        for link in links {
            let verdict = match now_ms.checked_sub(link.peer.not_after_ms) {
                Some(ago_ms) if ago_ms > 0 && link.alpn != Alpn::Renew => {
                    Err(Refusal::Expired { ago_s: ago_ms / 1_000 })
                }
                _ => self.ask_gate(&link.peer, link.alpn),
            };
            if let Err(refusal) = verdict {
                self.pool().remove(&link, None, Instant::now());
                self.refuse(&link.connection, link.peer.node.as_str(), &refusal);
            }
        }
    }

    fn close_unused(&self) {
        let mut pool = self.pool();
        pool.prune(Instant::now());
        for link in pool.links() {
            if link.dialled && u128::from(link.unused_ms()) > UNUSED_AFTER.as_millis() {
                pool.remove(&link, None, Instant::now());
                close(&link.connection, CloseCode::Unused, "unused");
            }
        }
    }
}

/// Looks through the connections now and then: certificates end and connections fall out of use
/// without anything happening.
async fn sweep(shared: Arc<Shared>) {
    let mut interval = tokio::time::interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = shared.stop.cancelled() => return,
        }
        shared.recheck();
        shared.close_unused();
    }
}
