//! The handle by which the rest of the node uses membership.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::RngExt;
use selvedge_fabric::{
    Epoch,
    event::{EventSink, vital},
    id::NodeName,
    key::{FabricId, Signer},
    policy::PolicyState,
    record::{Body, Topic},
    statement::{Revocations, SignedRevocation},
    view::View,
};
use selvedge_transport::{Alpn, Transport};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Timers,
    carrier::{self, CarrierError, Peers},
    clock::Clock,
    disk::{Disk, DiskError},
    metrics::{Counters, Metrics},
    probes::ProbeHandler,
    service::{Parts, Service},
};

/// Most workload nodes one processor vouches for at a time; more are ignored. Their number is what an
/// observations record can carry beside what was seen of processors.
pub(crate) const MAX_VOUCHED: usize = 1_024;
/// How long `leave` waits for the farewell to spread.
const FAREWELL: Duration = Duration::from_millis(400);
/// How long `shutdown` waits for the last facts to reach the disk.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);

/// What membership needs of its node.
pub struct Options {
    /// Directory of its own for the last known facts.
    pub dir: PathBuf,
    /// The name of this node.
    pub me: NodeName,
    /// Signs this node's records.
    pub signer: Arc<dyn Signer>,
    /// The Ed25519 secret of the same key: libp2p derives its identity from it.
    pub node_key_seed: [u8; 32],
    /// The fabric.
    pub fabric: FabricId,
    /// Its fence epoch, as far as this node knows: it rises when a recovery is believed.
    pub epoch: watch::Receiver<Epoch>,
    /// Where gossip listens, UDP.
    pub gossip_listen: SocketAddr,
    /// The node's QUIC endpoint, for failure detection.
    pub transport: Transport,
    /// Intent: who is admitted.
    pub policy: watch::Receiver<Arc<PolicyState>>,
    /// The emergency revocations that are handed to others. Who is admitted is `policy`'s alone.
    pub revocations: watch::Receiver<Arc<Revocations>>,
    /// Where those go that others hand to this node, none of them verified. What does not fit is dropped:
    /// anti-entropy brings it again.
    pub revoked: mpsc::Sender<SignedRevocation>,
    /// How long things take.
    pub timers: Timers,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
}

/// Why membership cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The facts on disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The gossip port.
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    /// The signer and the seed are of different keys.
    #[error("the node key given for gossip is not the key that signs the node's records")]
    KeyMismatch,
    /// The process is shutting down.
    #[error("start was interrupted")]
    Interrupted,
}

/// What callers said and the service has not seen yet. One body per topic, so it is bounded.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    pub(crate) said: BTreeMap<Topic, Body>,
    pub(crate) vouched: BTreeMap<NodeName, u64>,
    pub(crate) seeds: Option<BTreeMap<NodeName, Vec<SocketAddr>>>,
    pub(crate) leave: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Shared {
    inbox: Mutex<Inbox>,
    pub(crate) wake: Notify,
    pub(crate) counters: Counters,
}

impl Shared {
    pub(crate) fn inbox(&self) -> MutexGuard<'_, Inbox> {
        // Nobody panics with the lock held, and every state of the inbox is a good one.
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The membership of a running node.
#[derive(Debug, Clone)]
pub struct Membership {
    shared: Arc<Shared>,
    view: watch::Receiver<Arc<View>>,
    gossip_addr: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Membership {
    /// Opens the facts on disk, binds the gossip port and starts. The view of what the disk knew is
    /// there when this returns.
    ///
    /// # Errors
    /// When the directory or the port cannot be used.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        let key = options.signer.public_key();
        if ed25519_public(&options.node_key_seed) != key.0 {
            return Err(StartError::KeyMismatch);
        }
        let (dir, fabric) = (options.dir.clone(), options.fabric);
        let opened = tokio::task::spawn_blocking(move || Disk::open(&dir, &fabric, &key)).await;
        let (disk, loaded) = opened.map_err(|_| StartError::Interrupted)??;

        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let shared = Arc::new(Shared::default());
        let (peers_sender, peers) = watch::channel(Peers::default());
        let start = carrier::Start {
            listen: options.gossip_listen,
            key_seed: &options.node_key_seed,
            peers,
            rng_seed: rand::rng().random(),
        };
        let carrier = carrier::start(start, &options.events, &tasks, stop.clone()).await?;
        let gossip_addr = carrier.local_addr;
        let (probe_handler, probes) = ProbeHandler::new(shared.clone());
        options.transport.handle(Alpn::Probe, Arc::new(probe_handler));
        let (view_sender, view) = watch::channel(Arc::default());
        let parts = Parts {
            options,
            disk,
            shared: shared.clone(),
            carrier,
            peers: peers_sender,
            view: view_sender,
            probes,
            clock: Clock::new(),
            boot_nonce: rand::rng().random(),
            rng_seed: rand::rng().random(),
        };
        let events = Arc::clone(&parts.options.events);
        let service = Service::new(parts, loaded);
        tasks.spawn(vital(events, crate::service::TASK, service.run(stop.clone())));
        tasks.close();
        Ok(Self { shared, view, gossip_addr, tasks, stop })
    }

    /// The facts as this node sees them; the newest snapshot.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Where gossip really listens.
    #[must_use]
    pub const fn gossip_addr(&self) -> SocketAddr {
        self.gossip_addr
    }

    /// Says something about this node. Of each topic only the newest counts; a burst of changes becomes
    /// one record. Observations are membership's own and are ignored here. Links that are announced replace
    /// those that membership makes of its connections: who probes them knows better which ones live.
    pub fn announce(&self, body: Body) {
        self.shared.inbox().said.insert(body.topic(), body);
        self.shared.wake.notify_one();
    }

    /// Vouches for a workload node of this incarnation. It holds for [`Timers::vouch_ms`], so it must be
    /// repeated while the node lives.
    pub fn vouch(&self, node: &NodeName, incarnation: u64) {
        let mut inbox = self.shared.inbox();
        if inbox.vouched.len() < MAX_VOUCHED || inbox.vouched.contains_key(node) {
            inbox.vouched.insert(node.clone(), incarnation);
        }
        drop(inbox);
        self.shared.wake.notify_one();
    }

    /// Where nodes may be dialled for gossip before any fact of them is known. Replaces what was given
    /// before.
    pub fn set_gossip_seeds(&self, seeds: BTreeMap<NodeName, Vec<SocketAddr>>) {
        self.shared.inbox().seeds = Some(seeds);
        self.shared.wake.notify_one();
    }

    /// Counters.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.shared.counters.snapshot()
    }

    /// Tells the others that this node leaves of its own will, and gives that a moment to spread.
    pub async fn leave(&self) {
        self.shared.inbox().leave = true;
        self.shared.wake.notify_one();
        tokio::time::sleep(FAREWELL).await;
    }

    /// Stops, and writes the last facts to disk.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        if tokio::time::timeout(SHUTDOWN_TIMEOUT, self.tasks.wait()).await.is_err() {
            tracing::warn!("membership did not stop in time; its newest facts may not be on disk");
        }
    }
}

fn ed25519_public(seed: &[u8; 32]) -> [u8; 32] {
    let mut seed = *seed;
    libp2p::identity::ed25519::SecretKey::try_from_bytes(&mut seed)
        .map_or([0; 32], |secret| libp2p::identity::ed25519::Keypair::from(secret).public().to_bytes())
}
