//! The replica: opens the store, starts Raft and the tasks around it, and is the face of the crate.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, OnceLock, PoisonError, RwLock},
    time::Duration,
};

use bytes::Bytes;
use openraft::{Config, Raft, SnapshotPolicy, error::InitializeError, error::RaftError};
use selvedge_fabric::{
    Revision,
    command::{Applied, Command},
    event::{EventSink, vital},
    id::NodeName,
    key::{FabricId, NodeId, PublicKey, Signer},
    policy::PolicyState,
    statement::SignedRecovery,
};
use tokio::{
    sync::{mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    batch,
    core::{Core, Peers},
    election,
    machine::{Machine, Outlets, Published},
    network::{Link, Links},
    placer,
    propose::{self, ProposeError},
    recovery::{fence, lost},
    rpc::Rpc,
    runtime, serve,
    statements::Statements,
    status::{self, QuorumStatus},
    store::{Engine, Store, StoreError, gate::Gate, log::LogStore, sled_engine::SledEngine},
    timers::Timers,
    types::{Member, Proposal},
};

/// Most entries in one append RPC; their bytes are bounded where they are read.
const MAX_ENTRIES_PER_APPEND: u64 = 128;
/// Bytes of a snapshot in one RPC.
const SNAPSHOT_CHUNK_BYTES: u64 = 256 * 1024;
/// How long to wait for another process to let go of the database.
const LOCK_PATIENCE: Duration = Duration::from_secs(3);
/// How often to look.
const LOCK_POLL: Duration = Duration::from_millis(50);
/// How long the first node of a fabric may take to elect itself.
const BOOTSTRAP: Duration = Duration::from_secs(10);

/// What a replica is made of, whatever carries its requests.
pub struct Settings {
    /// Where it keeps its data; nobody else writes there.
    pub dir: PathBuf,
    /// The name of this node.
    pub me: NodeName,
    /// Its key; it makes the id under which this replica votes.
    pub key: PublicKey,
    /// The fabric and its recovery key, as far as they are known without a policy: a node that has just
    /// joined must be able to tell whether a recovery counts.
    pub anchor: Option<(FabricId, PublicKey)>,
    /// What failure detection says; placement of voters follows it.
    pub liveness: watch::Receiver<Arc<Peers>>,
    /// Times and limits.
    pub timers: Timers,
    /// Where events go.
    pub events: Arc<dyn EventSink>,
    /// Seed of the random election times.
    pub seed: u64,
}

/// Why a replica cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Raft refuses the state it found.
    #[error(
        "{path}: the replica does not start: {why}. If the disk is sound, remove this node (selvedge node remove) and \
         let it join again with an empty data directory",
        path = path.display()
    )]
    Raft {
        /// The directory.
        path: PathBuf,
        /// What it said.
        why: String,
    },
    /// Opening was cut short.
    #[error("opening the replica was interrupted")]
    Interrupted,
}

/// Why a fabric cannot be started here.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// There is a fabric in this directory already.
    #[error("this replica belongs to a fabric already: use an empty data directory for a new one")]
    AlreadyInitialized,
    /// Only [`Command::Init`] makes a fabric.
    #[error("the first command of a fabric must be Init")]
    NotInit,
    /// The command could not be committed.
    #[error(transparent)]
    Propose(#[from] ProposeError),
    /// Raft refused or stopped.
    #[error("the replica cannot start a fabric: {0}")]
    Raft(String),
}

/// A running replica. Clones share it; [`Replica::shutdown`] ends it.
#[derive(Clone)]
pub struct Replica {
    pub(crate) shared: Arc<Shared>,
}

/// What stays the same when a recovery begins another fence epoch.
pub(crate) struct Shared {
    pub(crate) dir: PathBuf,
    pub(crate) me: NodeName,
    pub(crate) anchor: Option<(FabricId, PublicKey)>,
    pub(crate) events: Arc<dyn EventSink>,
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) signer: OnceLock<Arc<dyn Signer>>,
    /// Cancelled when the node stops: no epoch begins any more.
    pub(crate) stop: CancellationToken,
    tasks: TaskTracker,
    /// Held while one epoch follows another.
    pub(crate) changing: tokio::sync::Mutex<()>,
    id: u64,
    liveness: watch::Receiver<Arc<Peers>>,
    timers: Timers,
    seed: u64,
    rpc: Arc<dyn Rpc>,
    policy: Published,
    status: Arc<watch::Sender<Arc<QuorumStatus>>>,
    shown: mpsc::Sender<SignedRecovery>,
    generation: RwLock<Option<Generation>>,
}

/// The replica of one fence epoch.
#[derive(Clone)]
pub(crate) struct Generation {
    pub(crate) core: Arc<Core>,
    pub(crate) tasks: TaskTracker,
    /// Closed when the epoch ends.
    pub(crate) gate: Gate,
}

impl Generation {
    /// Stops all tasks and Raft.
    pub(crate) async fn end(&self) {
        self.core.stop.cancel();
        self.tasks.wait().await;
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::error!(%error, "Raft did not stop in order");
        }
    }
}

impl Shared {
    pub(crate) fn generation(&self) -> Generation {
        let generation = self.generation.read().unwrap_or_else(PoisonError::into_inner);
        generation.clone().expect("set before anybody has the replica")
    }

    /// The replica of the next epoch takes over.
    pub(crate) fn replace(&self, generation: Generation) {
        *self.generation.write().unwrap_or_else(PoisonError::into_inner) = Some(generation);
        self.attest();
    }
}

/// Starts the replica of the epoch that the store is in.
pub(crate) async fn start_generation(shared: &Arc<Shared>) -> Result<Generation, OpenError> {
    let gate = Gate::new(Arc::clone(&shared.engine));
    let store = Store::new(Arc::new(gate.clone()));
    store.finish_entering()?;
    store.check_log()?;
    let (machine, outlets) = Machine::load(store.clone(), Arc::clone(&shared.policy))?;
    let Outlets { policy, agreed, checkpoints } = outlets;
    let (epoch, recovery) = (store.epoch()?, store.recovery()?);
    if epoch > 0 && policy.borrow().params.is_none() {
        shared.policy.send_replace(Arc::new(fence::last_policy(&shared.dir).unwrap_or_default()));
    }
    let link = Link::new(Arc::clone(&shared.rpc), shared.timers, epoch, recovery, shared.shown.clone());
    let link = Arc::new(link);
    let (links, log) = (Links(Arc::clone(&link)), LogStore(store.clone()));
    let config = Arc::new(raft_config(&shared.timers));
    let raft = Raft::new(shared.id, config, links, log, machine.clone()).await;
    let raft = raft.map_err(|e| OpenError::Raft { path: shared.dir.clone(), why: e.to_string() })?;
    let (submissions, waiting) = mpsc::channel(batch::MAX_WAITING);
    let core = Arc::new(Core {
        me: shared.me.clone(),
        id: shared.id,
        raft,
        machine,
        statements: Statements::new(&store, agreed),
        checkpoints: Mutex::new(Some(checkpoints)),
        receiving: Mutex::default(),
        store,
        link,
        policy,
        liveness: shared.liveness.clone(),
        events: Arc::clone(&shared.events),
        submissions,
        left_behind: lost::load(&shared.dir).iter().map(|l| l.entries.len() + l.unlisted).sum(),
        started: Instant::now(),
        stop: CancellationToken::new(),
    });
    core.introduce_members();
    shared.status.send_replace(Arc::new(status::of(&core)));
    let tasks = TaskTracker::new();
    let (one, events) = (|| Arc::clone(&core), || Arc::clone(&core.events));
    tasks.spawn(vital(events(), "raft batches", batch::run(one(), waiting)));
    tasks.spawn(vital(events(), "raft elections", election::run(one(), shared.seed)));
    tasks.spawn(vital(events(), "raft heartbeats", election::heartbeats(one())));
    tasks.spawn(vital(events(), "voter placement", placer::run(one())));
    tasks.spawn(vital(events(), "raft status", status::run(one(), Arc::clone(&shared.status))));
    tasks.close();
    Ok(Generation { core, tasks, gate })
}

impl Replica {
    /// Opens the replica on disk and starts it; requests of others come through [`Self::serve`].
    ///
    /// Needs nobody else: the policy that this replica last knew to be committed is published when it
    /// returns.
    ///
    /// # Errors
    /// When the directory is damaged, foreign, in use or not writable.
    pub async fn open_over(settings: Settings, rpc: Arc<dyn Rpc>) -> Result<Self, OpenError> {
        let (dir, id, me) = (settings.dir.clone(), settings.key.node_id(), settings.me.clone());
        // Opening reads the whole database: not on the runtime's threads.
        let open = move || open_unlocked(&dir, id, &me);
        match tokio::task::spawn_blocking(open).await {
            Ok(engine) => Self::start(settings, Arc::new(engine?), rpc).await,
            Err(_) => Err(OpenError::Interrupted),
        }
    }

    /// Starts a replica on an open engine.
    pub(crate) async fn start(
        settings: Settings,
        engine: Arc<dyn Engine>,
        rpc: Arc<dyn Rpc>,
    ) -> Result<Self, OpenError> {
        let Settings { dir, me, key, anchor, liveness, timers, events, seed } = settings;
        let (shown, incoming) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            dir,
            me,
            anchor,
            events,
            engine,
            signer: OnceLock::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            changing: tokio::sync::Mutex::default(),
            id: key.node_id().0,
            liveness,
            timers,
            seed,
            rpc,
            policy: Arc::default(),
            status: Arc::default(),
            shown,
            generation: RwLock::default(),
        });
        let generation = start_generation(&shared).await?;
        shared.replace(generation);
        let fencing = fence::run(Arc::downgrade(&shared), incoming, shared.stop.clone());
        shared.tasks.spawn(vital(Arc::clone(&shared.events), "raft fence", fencing));
        shared.tasks.close();
        Ok(Self { shared })
    }

    /// The replica of the present fence epoch.
    pub(crate) fn core(&self) -> Arc<Core> {
        self.shared.generation().core
    }

    /// Makes this replica the first voter of a new fabric and commits its first command.
    ///
    /// # Errors
    /// When there is a fabric here already, the command is no `Init`, or it is refused.
    pub async fn bootstrap(&self, init: Proposal) -> Result<Applied, BootstrapError> {
        if !matches!(init.command, Command::Init { .. }) {
            return Err(BootstrapError::NotInit);
        }
        let core = self.core();
        let addrs = core.link.rpc.addresses(&core.me);
        let member = Member { name: core.me.clone(), addrs };
        match core.raft.initialize(BTreeMap::from([(core.id, member)])).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(BootstrapError::AlreadyInitialized);
            }
            Err(error) => return Err(BootstrapError::Raft(error.to_string())),
        }
        let elected = core.raft.wait(Some(BOOTSTRAP)).current_leader(core.id, "bootstrap").await;
        elected.map_err(|e| BootstrapError::Raft(e.to_string()))?;
        Ok(self.propose(init, BOOTSTRAP).await?)
    }

    /// The policy as this replica has applied it. There at once after opening, from disk.
    #[must_use]
    pub fn policy(&self) -> watch::Receiver<Arc<PolicyState>> {
        self.shared.policy.subscribe()
    }

    /// Has a command committed and applied, wherever the leader is. The local [`Self::policy`] may show
    /// it a moment later; [`Self::barrier`] waits for that.
    ///
    /// # Errors
    /// [`ProposeError`]; all but [`ProposeError::OutcomeUnknown`] mean that nothing was changed.
    pub async fn propose(&self, proposal: Proposal, timeout: Duration) -> Result<Applied, ProposeError> {
        propose::propose(&self.core(), proposal, timeout).await
    }

    /// Waits until [`Self::policy`] is at least as new as every write that was acknowledged anywhere
    /// before the call: a linearizable read.
    ///
    /// # Errors
    /// [`ProposeError::NoQuorum`] when no leader with a quorum answers in time.
    pub async fn barrier(&self, timeout: Duration) -> Result<Revision, ProposeError> {
        propose::barrier(&self.core(), timeout).await
    }

    /// Tells the other voters where the processor `name` is, which was just admitted through this one. The
    /// leader must know, because a newcomer has no policy to be known by before it is brought one. A voter
    /// that does not hear it in time is left out; voters that know better keep what they know.
    pub async fn introduce(&self, name: &NodeName, addrs: &[SocketAddr]) {
        propose::introduce(&self.core(), name, addrs).await;
    }

    /// Leader, voters and what their placement survives, as this replica sees it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<QuorumStatus>> {
        self.shared.status.subscribe()
    }

    /// Answers one request of the replica `name`, whose key its certificate proved.
    ///
    /// # Errors
    /// When the message cannot be read.
    pub async fn serve(&self, name: &NodeName, key: &PublicKey, body: &[u8]) -> Result<Bytes, String> {
        let answer = serve::serve(&self.shared, key.node_id().0, name, body).await;
        answer.map(Bytes::from).map_err(|e| e.to_string())
    }

    /// Stops all tasks and Raft, and syncs what is left to write.
    pub async fn shutdown(&self) {
        self.shared.stop.cancel();
        // An epoch that is being entered is entered first; it takes a few syncs.
        self.shared.tasks.wait().await;
        let _not_amid_a_recovery = self.shared.changing.lock().await;
        let generation = self.shared.generation();
        generation.end().await;
        if let Err(error) = generation.core.store.sync_in_background().await {
            tracing::error!(%error, "the store could not be synced");
        }
    }
}

impl Core {
    /// Tells the carrier where members were when the log last said so.
    pub(crate) fn introduce_members(&self) {
        for (id, member) in self.metrics().membership_config.nodes() {
            if *id != self.id {
                self.link.rpc.suggest(&member.name, &member.addrs);
            }
        }
    }
}

/// A predecessor that was told to stop may still be closing its files.
fn open_unlocked(dir: &Path, id: NodeId, me: &NodeName) -> Result<SledEngine, StoreError> {
    let deadline = std::time::Instant::now() + LOCK_PATIENCE;
    loop {
        match SledEngine::open(dir, id, me) {
            Err(StoreError::Locked { .. }) if std::time::Instant::now() < deadline => {
                std::thread::sleep(LOCK_POLL);
            }
            opened => return opened,
        }
    }
}

/// openraft's configuration. It is used unvalidated on purpose: openraft takes its leader lease from the
/// election timeout and its RPC deadline from the heartbeat interval, and insists that the second be
/// shorter. Here the lease must be short (after it, voters may follow a new leader) and the deadline
/// long (see [`crate::runtime`]); its own clocks, for which the rule is made, are both off.
fn raft_config(timers: &Timers) -> Config {
    let lease_ms = crate::wire::millis(timers.vote_lease());
    let deadline_ms = crate::wire::millis(runtime::DEADLINE);
    Config {
        cluster_name: "selvedge".to_owned(),
        heartbeat_interval: deadline_ms,
        election_timeout_min: lease_ms.saturating_sub(1),
        election_timeout_max: lease_ms,
        install_snapshot_timeout: deadline_ms,
        max_payload_entries: MAX_ENTRIES_PER_APPEND,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timers.snapshot_entries),
        snapshot_max_chunk_size: SNAPSHOT_CHUNK_BYTES,
        max_in_snapshot_log_to_keep: timers.keep_entries,
        enable_tick: false,
        enable_heartbeat: false,
        enable_elect: false,
        ..Config::default()
    }
}
