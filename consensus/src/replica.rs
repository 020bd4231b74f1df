//! The replica: opens the store, starts Raft and the tasks around it, and is the face of the crate.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use openraft::{Config, Raft, SnapshotPolicy, error::InitializeError, error::RaftError};
use selvedge_fabric::{
    Revision,
    command::{Applied, Command},
    event::EventSink,
    id::NodeName,
    key::{NodeId, PublicKey},
    policy::PolicyState,
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
    machine::{Machine, Outlets},
    network::{Link, Links},
    placer,
    propose::{self, ProposeError},
    rpc::Rpc,
    serve,
    statements::Statements,
    status::{self, QuorumStatus},
    store::{Store, StoreError, log::LogStore, sled_engine::SledEngine},
    timers::Timers,
    types::{Member, Proposal},
};

/// Most entries in one append RPC; their bytes are bounded where they are read.
const MAX_ENTRIES_PER_APPEND: u64 = 128;
/// Bytes of a snapshot in one RPC.
const SNAPSHOT_CHUNK_BYTES: u64 = 256 * 1024;
/// openraft's own deadline for appends and snapshot chunks, far above those of [`Link`], which decide.
const OPENRAFT_DEADLINE: Duration = Duration::from_secs(30);
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
    pub(crate) core: Arc<Core>,
    status: watch::Receiver<Arc<QuorumStatus>>,
    pub(crate) tasks: TaskTracker,
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
        let open = move || open_unlocked(&dir, id, &me).map(|engine| Store::new(Arc::new(engine)));
        match tokio::task::spawn_blocking(open).await {
            Ok(store) => Self::start(settings, store?, rpc).await,
            Err(_) => Err(OpenError::Interrupted),
        }
    }

    /// Starts a replica on an open store.
    pub(crate) async fn start(
        settings: Settings,
        store: Store,
        rpc: Arc<dyn Rpc>,
    ) -> Result<Self, OpenError> {
        let Settings { dir, me, key, liveness, timers, events, seed } = settings;
        store.check_log()?;
        let (machine, Outlets { policy, agreed, checkpoints }) = Machine::load(store.clone())?;
        let id = key.node_id().0;
        let link = Arc::new(Link::new(rpc, timers, store.epoch()?));
        let (links, log) = (Links(Arc::clone(&link)), LogStore(store.clone()));
        let raft = Raft::new(id, Arc::new(raft_config(&timers)), links, log, machine).await;
        let raft = raft.map_err(|e| OpenError::Raft { path: dir, why: e.to_string() })?;
        let (submissions, waiting) = mpsc::channel(batch::MAX_WAITING);
        let (started, stop) = (Instant::now(), CancellationToken::new());
        let core = Arc::new(Core {
            me,
            id,
            raft,
            statements: Statements::new(&store, agreed),
            checkpoints: Mutex::new(Some(checkpoints)),
            store,
            link,
            policy,
            liveness,
            events,
            submissions,
            started,
            stop,
        });
        core.introduce_members();
        let (publish, status) = watch::channel(Arc::new(status::of(&core)));
        let tasks = TaskTracker::new();
        tasks.spawn(batch::run(Arc::clone(&core), waiting));
        tasks.spawn(election::run(Arc::clone(&core), seed));
        tasks.spawn(election::heartbeats(Arc::clone(&core)));
        tasks.spawn(placer::run(Arc::clone(&core)));
        tasks.spawn(status::run(Arc::clone(&core), publish));
        tasks.close();
        Ok(Self { core, status, tasks })
    }

    /// Makes this replica the first voter of a new fabric and commits its first command.
    ///
    /// # Errors
    /// When there is a fabric here already, the command is no `Init`, or it is refused.
    pub async fn bootstrap(&self, init: Proposal) -> Result<Applied, BootstrapError> {
        if !matches!(init.command, Command::Init { .. }) {
            return Err(BootstrapError::NotInit);
        }
        let addrs = self.core.link.rpc.addresses(&self.core.me);
        let member = Member { name: self.core.me.clone(), addrs };
        match self.core.raft.initialize(BTreeMap::from([(self.core.id, member)])).await {
            Ok(()) => {}
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {
                return Err(BootstrapError::AlreadyInitialized);
            }
            Err(error) => return Err(BootstrapError::Raft(error.to_string())),
        }
        let elected = self.core.raft.wait(Some(BOOTSTRAP)).current_leader(self.core.id, "bootstrap").await;
        elected.map_err(|e| BootstrapError::Raft(e.to_string()))?;
        Ok(self.propose(init, BOOTSTRAP).await?)
    }

    /// The policy as this replica has applied it. There at once after opening, from disk.
    #[must_use]
    pub fn policy(&self) -> watch::Receiver<Arc<PolicyState>> {
        self.core.policy.clone()
    }

    /// Has a command committed and applied, wherever the leader is. The local [`Self::policy`] may show
    /// it a moment later; [`Self::barrier`] waits for that.
    ///
    /// # Errors
    /// [`ProposeError`]; all but [`ProposeError::OutcomeUnknown`] mean that nothing was changed.
    pub async fn propose(&self, proposal: Proposal, timeout: Duration) -> Result<Applied, ProposeError> {
        propose::propose(&self.core, proposal, timeout).await
    }

    /// Waits until [`Self::policy`] is at least as new as every write that was acknowledged anywhere
    /// before the call: a linearizable read.
    ///
    /// # Errors
    /// [`ProposeError::NoQuorum`] when no leader with a quorum answers in time.
    pub async fn barrier(&self, timeout: Duration) -> Result<Revision, ProposeError> {
        propose::barrier(&self.core, timeout).await
    }

    /// Tells the other voters where the processor `name` is, which was just admitted through this one. The
    /// leader must know, because a newcomer has no policy to be known by before it is brought one. A voter
    /// that does not hear it in time is left out; voters that know better keep what they know.
    pub async fn introduce(&self, name: &NodeName, addrs: &[SocketAddr]) {
        propose::introduce(&self.core, name, addrs).await;
    }

    /// Leader, voters and what their placement survives, as this replica sees it.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<QuorumStatus>> {
        self.status.clone()
    }

    /// Answers one request of the replica `name`, whose key its certificate proved.
    ///
    /// # Errors
    /// When the message cannot be read.
    pub async fn serve(&self, name: &NodeName, key: &PublicKey, body: &[u8]) -> Result<Bytes, String> {
        let answer = serve::serve(&self.core, key.node_id().0, name, body).await;
        answer.map(Bytes::from).map_err(|e| e.to_string())
    }

    /// Stops all tasks and Raft, and syncs what is left to write.
    pub async fn shutdown(&self) {
        self.core.stop.cancel();
        self.tasks.wait().await;
        if let Err(error) = self.core.raft.shutdown().await {
            tracing::error!(%error, "Raft did not stop in order");
        }
        if let Err(error) = self.core.store.sync_in_background().await {
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
/// long (see [`crate::network`]); its own clocks, for which the rule is made, are both off.
fn raft_config(timers: &Timers) -> Config {
    let lease_ms = crate::wire::millis(timers.election);
    let deadline_ms = crate::wire::millis(OPENRAFT_DEADLINE);
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
