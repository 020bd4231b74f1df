//! openraft's outgoing RPCs over [`Rpc`].
//!
//! openraft would put one deadline, the heartbeat interval, on every append. Over wide links that is
//! too short for a large batch and too long to notice a dead peer, so the deadlines are set here: some
//! measured round trips, and time for the bytes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use openraft::{
    RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::{Backoff, RPCOption},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use selvedge_fabric::{id::NodeName, statement::SignedRecovery};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    contacts::Contacts,
    rpc::{Rpc, RpcError},
    timers::Timers,
    types::{Member, TypeConfig},
    wire::{self, Answer, Ask, Request, WireError},
};

/// Deadline of a request that carries next to nothing: so many round trips.
const RTTS_PER_REQUEST: u32 = 8;
/// Never less than this: it covers an fdatasync on a busy disk and a QUIC handshake.
const MIN_REQUEST: Duration = Duration::from_millis(1_000);
/// Bytes a link must carry per millisecond for a request not to be given up (1 MB/s).
const BYTES_PER_MS: u64 = 1_000;
/// Pause before a peer that could not be reached is tried again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);

/// What every outgoing request of a replica needs.
pub(crate) struct Link {
    pub(crate) rpc: Arc<dyn Rpc>,
    pub(crate) contacts: Contacts,
    pub(crate) timers: Timers,
    /// Round trip between voters in microseconds: as measured by this leader, or as told by the leader.
    rtt_us: AtomicU64,
    quorum: AtomicBool,
    /// This leader is handing over: it takes no writes and sends no heartbeats.
    paused: AtomicBool,
    epoch: u64,
    /// What began the epoch, for those who were not there.
    pub(crate) recovery: Option<Arc<SignedRecovery>>,
    /// Where statements of higher epochs go.
    shown: mpsc::Sender<SignedRecovery>,
}

/// Why a request to a peer failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error(transparent)]
    Rpc(#[from] RpcError),
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("{peer} is at fence epoch {theirs}, this node at {ours}: one of them was left out of a recovery")]
    Fenced { peer: NodeName, theirs: u64, ours: u64 },
    #[error("the replica of {peer} has stopped: {why}")]
    Stopped { peer: NodeName, why: String },
    #[error("{0} answered something else than was asked")]
    Mismatch(NodeName),
}

impl Link {
    pub(crate) fn new(
        rpc: Arc<dyn Rpc>,
        timers: Timers,
        epoch: u64,
        recovery: Option<SignedRecovery>,
        shown: mpsc::Sender<SignedRecovery>,
    ) -> Self {
        Self {
            rpc,
            contacts: Contacts::new(),
            timers,
            rtt_us: AtomicU64::new(0),
            quorum: AtomicBool::new(false),
            paused: AtomicBool::new(false),
            epoch,
            recovery: recovery.map(Arc::new),
            shown,
        }
    }

    /// Holds back writes and heartbeats until the result is dropped.
    pub(crate) fn pause(&self) -> Paused<'_> {
        self.paused.store(true, Ordering::Relaxed);
        Paused(self)
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }

    pub(crate) const fn epoch(&self) -> u64 {
        self.epoch
    }

    /// A peer is at another fence epoch. If this node was left out of a recovery, it now learns so; if the
    /// peer was, it is told.
    async fn fenced(&self, peer: &NodeName, theirs: u64, signed: Option<Box<SignedRecovery>>) -> CallError {
        match (signed, &self.recovery) {
            (Some(signed), _) if theirs > self.epoch => {
                // Full means that one is being looked at; the next refusal shows it again.
                let _ = self.shown.try_send(*signed);
            }
            (_, Some(mine)) if theirs < self.epoch => {
                let ask = Ask::Recover { signed: Box::new((**mine).clone()), image: None };
                if let Err(error) = self.send(peer, ask, MIN_REQUEST).await {
                    tracing::debug!(%peer, %error, "could not be told of the recovery");
                }
            }
            _ => {}
        }
        CallError::Fenced { peer: peer.clone(), theirs, ours: self.epoch }
    }

    async fn send(&self, peer: &NodeName, ask: Ask, within: Duration) -> Result<(), CallError> {
        let request = Request { epoch: self.epoch, rtt_us: 0, quorum: false, ask };
        let body = wire::encode(&request)?;
        self.rpc.request(peer, Bytes::from(body), within).await?;
        Ok(())
    }

    /// The timers, stretched to what is measured now.
    pub(crate) fn timers(&self) -> Timers {
        self.timers.scaled(self.rtt())
    }

    pub(crate) fn rtt(&self) -> Duration {
        Duration::from_micros(self.rtt_us.load(Ordering::Relaxed))
    }

    pub(crate) fn set_rtt(&self, rtt: Duration) {
        let before = self.timers().election;
        self.rtt_us.store(u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let election = self.timers().election;
        if election != before {
            tracing::info!(?rtt, ?election, "the election timeout follows the round trip between voters");
        }
    }

    /// What this node, when it leads, tells its followers about its quorum.
    pub(crate) fn set_quorum(&self, fresh: bool) {
        self.quorum.store(fresh, Ordering::Relaxed);
    }

    fn deadline(&self, bytes: usize) -> Duration {
        let transfer = Duration::from_millis(bytes as u64 / BYTES_PER_MS);
        (self.rtt() * RTTS_PER_REQUEST).clamp(MIN_REQUEST, self.timers.election.max(MIN_REQUEST) * 4)
            + transfer
    }

    /// Asks `peer` and notes that it was heard.
    pub(crate) async fn call(
        &self,
        id: Option<u64>,
        peer: &NodeName,
        ask: Ask,
        within: Option<Duration>,
    ) -> Result<Answer, CallError> {
        let measures =
            matches!(&ask, Ask::Append(a) if a.entries.is_empty()) || matches!(ask, Ask::PreVote { .. });
        let rtt_us = u32::try_from(self.rtt_us.load(Ordering::Relaxed)).unwrap_or(u32::MAX);
        let quorum = self.quorum.load(Ordering::Relaxed);
        let body = wire::encode(&Request { epoch: self.epoch(), rtt_us, quorum, ask })?;
        let within = within.unwrap_or_else(|| self.deadline(body.len()));
        let sent = Instant::now();
        let bytes = self.rpc.request(peer, Bytes::from(body), within).await?;
        if let Some(id) = id {
            self.contacts.heard(id, measures.then(|| sent.elapsed()), self.timers().election);
        }
        match wire::decode(&bytes)? {
            Answer::Fenced { epoch, signed } => Err(self.fenced(peer, epoch, signed).await),
            Answer::Stopped { why } => Err(CallError::Stopped { peer: peer.clone(), why }),
            answer => Ok(answer),
        }
    }
}

/// See [`Link::pause`].
pub(crate) struct Paused<'a>(&'a Link);

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.paused.store(false, Ordering::Relaxed);
    }
}

/// Makes a [`PeerLink`] for each member.
pub(crate) struct Links(pub(crate) Arc<Link>);

impl RaftNetworkFactory<TypeConfig> for Links {
    type Network = PeerLink;

    async fn new_client(&mut self, target: u64, node: &Member) -> PeerLink {
        self.0.rpc.suggest(&node.name, &node.addrs);
        PeerLink { link: Arc::clone(&self.0), id: target, name: node.name.clone() }
    }
}

/// openraft's connection to one member.
pub(crate) struct PeerLink {
    link: Arc<Link>,
    id: u64,
    name: NodeName,
}

type RaftRpcError<E = openraft::error::Infallible> = RPCError<u64, Member, RaftError<u64, E>>;

impl PeerLink {
    async fn ask<E: std::error::Error>(&self, ask: Ask) -> Result<Answer, RaftRpcError<E>> {
        let failed = |e: CallError| match e {
            // openraft repeats a network error at once, and pauses after an unreachable peer.
            CallError::Rpc(RpcError::NoAnswer(_)) => RPCError::Network(NetworkError::new(&e)),
            CallError::Rpc(RpcError::NotSent(_) | RpcError::Refused(_))
            | CallError::Fenced { .. }
            | CallError::Stopped { .. }
            | CallError::Wire(_)
            | CallError::Mismatch(_) => RPCError::Unreachable(Unreachable::new(&e)),
        };
        self.link.call(Some(self.id), &self.name, ask, None).await.map_err(failed)
    }

    fn mismatch<E: std::error::Error>(&self) -> RaftRpcError<E> {
        RPCError::Unreachable(Unreachable::new(&CallError::Mismatch(self.name.clone())))
    }
}

impl RaftNetwork<TypeConfig> for PeerLink {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RaftRpcError> {
        match self.ask(Ask::Append(request)).await? {
            Answer::Append(response) => Ok(response),
            _ => Err(self.mismatch()),
        }
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<InstallSnapshotResponse<u64>, RaftRpcError<InstallSnapshotError>> {
        match self.ask(Ask::Snapshot(request)).await? {
            Answer::Snapshot(response) => {
                response.map_err(|e| RPCError::RemoteError(RemoteError::new(self.id, RaftError::APIError(e))))
            }
            _ => Err(self.mismatch()),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RaftRpcError> {
        match self.ask(Ask::Vote(request)).await? {
            Answer::Vote(response) => Ok(response),
            _ => Err(self.mismatch()),
        }
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
