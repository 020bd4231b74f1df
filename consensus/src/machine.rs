//! The state machine: [`PolicyState`] as openraft applies it.
//!
//! The state lives in memory and is published as a whole after each run of entries; on disk it is the
//! newest snapshot plus the committed log after it. So a replica that starts alone replays what it
//! knows to be committed and publishes that before anybody was asked.

use std::{
    io::Cursor,
    sync::{Arc, Mutex, PoisonError},
};

use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder, RaftTypeConfig, Snapshot, StorageIOError,
    storage::RaftStateMachine,
};
use selvedge_fabric::{Epoch, UnixMs, policy::PolicyState};
use tokio::sync::{mpsc, watch};

use crate::{
    image,
    statements::{Agreed, MAX_WAITING_CHECKPOINTS},
    store::{Store, StoreError},
    types::{Entry, LogIndex, Membership, Outcome, SnapshotMeta, StorageError, TypeConfig},
    voters::VoterHistory,
};

/// One of these in each span of the leader's time is a checkpoint, see [`crate::statements`].
const CHECKPOINT_MS: UnixMs = 100;

/// What has been applied, always consistent in itself.
#[derive(Clone, Default)]
pub(crate) struct AppliedState {
    pub(crate) policy: Arc<PolicyState>,
    pub(crate) voters: Arc<VoterHistory>,
    pub(crate) last: Option<LogIndex>,
    membership: Membership,
}

/// Where the policy is published; it outlives the replica of one fence epoch.
pub(crate) type Published = Arc<watch::Sender<Arc<PolicyState>>>;

/// Shared by the state machine and its snapshot builders.
#[derive(Clone)]
pub(crate) struct Machine {
    applied: Arc<Mutex<AppliedState>>,
    published: Published,
    agreed: Arc<watch::Sender<Agreed>>,
    checkpoints: mpsc::Sender<Agreed>,
    store: Store,
    epoch: Epoch,
}

/// Where the state machine shows what it has applied.
pub(crate) struct Outlets {
    /// The policy after each run of entries.
    pub(crate) policy: watch::Receiver<Arc<PolicyState>>,
    /// The same with the voters that agreed to it.
    pub(crate) agreed: watch::Receiver<Agreed>,
    /// States at which all replicas look.
    pub(crate) checkpoints: mpsc::Receiver<Agreed>,
}

impl Machine {
    /// The state of the newest snapshot; openraft replays the committed log after it. Without a snapshot,
    /// what was published before stays published.
    pub(crate) fn load(store: Store, published: Published) -> Result<(Self, Outlets), StoreError> {
        let applied = AppliedState::of_snapshot(&store)?;
        if let Some(applied) = &applied {
            published.send_replace(Arc::clone(&applied.policy));
        }
        let applied = applied.unwrap_or_default();
        let epoch = store.epoch()?;
        let policy = published.subscribe();
        let (agree, agreed) = watch::channel(applied.agreed());
        let (checkpoint, checkpoints) = mpsc::channel(MAX_WAITING_CHECKPOINTS);
        let machine = Self {
            applied: Arc::new(Mutex::new(applied)),
            published,
            agreed: Arc::new(agree),
            checkpoints: checkpoint,
            store,
            epoch,
        };
        Ok((machine, Outlets { policy, agreed, checkpoints }))
    }

    pub(crate) fn now(&self) -> AppliedState {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, state: AppliedState) {
        self.published.send_replace(Arc::clone(&state.policy));
        self.agreed.send_replace(state.agreed());
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Applies one entry, and shows the state after it when it is a checkpoint.
    #[expect(clippy::result_large_err, reason = "openraft's storage error is what its trait returns")]
    fn step(&self, state: &mut AppliedState, entry: Entry) -> Result<Vec<Outcome>, StorageError> {
        let before = (state.policy.revision, state.policy.clock_ms / CHECKPOINT_MS);
        let outcomes = state.step(entry, self.epoch)?;
        let after = (state.policy.revision, state.policy.clock_ms / CHECKPOINT_MS);
        if before.0 != after.0 && before.1 != after.1 {
            // Full means that signing lags: the next checkpoint is as good.
            let _ = self.checkpoints.try_send(state.agreed());
        }
        Ok(outcomes)
    }

    async fn save(&self, meta: SnapshotMeta, bytes: Vec<u8>) -> Result<(), StorageError> {
        let (store, signature) = (self.store.clone(), meta.signature());
        let saved = tokio::task::spawn_blocking(move || store.save_snapshot(&meta, &bytes)).await;
        let saved = saved.map_err(|e| {
            StorageIOError::write_snapshot(Some(signature.clone()), openraft::AnyError::new(&e))
        })?;
        saved.map_err(|e| StorageIOError::write_snapshot(Some(signature), openraft::AnyError::new(&e)).into())
    }
}

impl AppliedState {
    /// What the newest snapshot holds.
    pub(crate) fn of_snapshot(store: &Store) -> Result<Option<Self>, StoreError> {
        let Some((meta, bytes)) = store.snapshot()? else { return Ok(None) };
        let (policy, voters) = image::decode(&bytes).map_err(|e| store.corrupt(format!("snapshot: {e}")))?;
        Ok(Some(Self {
            policy: Arc::new(policy),
            voters: Arc::new(voters),
            last: meta.last_log_id,
            membership: meta.last_membership,
        }))
    }

    /// Applies one entry, as every replica of this epoch does.
    #[expect(clippy::result_large_err, reason = "openraft's storage error is what its trait returns")]
    pub(crate) fn step(&mut self, entry: Entry, epoch: Epoch) -> Result<Vec<Outcome>, StorageError> {
        let outcomes = apply_entry(self, entry)?;
        self.resolve_voters(epoch);
        Ok(outcomes)
    }

    fn agreed(&self) -> Agreed {
        Agreed { policy: Arc::clone(&self.policy), voters: Arc::clone(&self.voters) }
    }

    /// Gives pending voters their number as soon as their keys are known.
    fn resolve_voters(&mut self, epoch: Epoch) {
        if self.voters.is_pending() {
            Arc::make_mut(&mut self.voters).resolve(&self.policy, epoch);
        }
    }
}

/// Applies one entry. A batch that cannot be decoded stops the replica: to skip it would make this
/// policy differ from everybody else's.
#[expect(clippy::result_large_err, reason = "openraft's storage error is what its trait returns")]
fn apply_entry(state: &mut AppliedState, entry: Entry) -> Result<Vec<Outcome>, StorageError> {
    state.last = Some(entry.log_id);
    match entry.payload {
        EntryPayload::Blank => Ok(Vec::new()),
        EntryPayload::Membership(membership) => {
            Arc::make_mut(&mut state.voters).note(&membership);
            state.membership = Membership::new(Some(entry.log_id), membership);
            Ok(Vec::new())
        }
        EntryPayload::Normal(batch) => {
            let undecodable = |e| StorageIOError::apply(entry.log_id, openraft::AnyError::new(&e));
            let envelopes = batch.decode().map_err(undecodable)?;
            let policy = Arc::make_mut(&mut state.policy);
            Ok(envelopes.iter().map(|envelope| policy.apply(envelope)).collect())
        }
    }
}

impl RaftStateMachine<TypeConfig> for Machine {
    type SnapshotBuilder = Self;

    async fn applied_state(&mut self) -> Result<(Option<LogIndex>, Membership), StorageError> {
        let state = self.now();
        Ok((state.last, state.membership))
    }

    async fn apply<I>(&mut self, entries: I) -> Result<Vec<Vec<Outcome>>, StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut state = self.now();
        let mut outcomes = Vec::new();
        for entry in entries {
            outcomes.push(self.step(&mut state, entry)?);
        }
        self.replace(state);
        Ok(outcomes)
    }

    async fn get_snapshot_builder(&mut self) -> Self {
        self.clone()
    }

    async fn begin_receiving_snapshot(
        &mut self,
    ) -> Result<Box<<TypeConfig as RaftTypeConfig>::SnapshotData>, StorageError> {
        Ok(Box::new(Cursor::new(Vec::new())))
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: Box<Cursor<Vec<u8>>>,
    ) -> Result<(), StorageError> {
        let bytes = snapshot.into_inner();
        let (policy, voters) = image::decode(&bytes).map_err(|e| {
            StorageIOError::read_snapshot(Some(meta.signature()), openraft::AnyError::new(&e))
        })?;
        self.save(meta.clone(), bytes).await?;
        self.replace(AppliedState {
            policy: Arc::new(policy),
            voters: Arc::new(voters),
            last: meta.last_log_id,
            membership: meta.last_membership.clone(),
        });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<TypeConfig>>, StorageError> {
        let stored = self
            .store
            .snapshot()
            .map_err(|e| StorageIOError::read_snapshot(None, openraft::AnyError::new(&e)))?;
        Ok(stored.map(|(meta, bytes)| Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) }))
    }
}

impl RaftSnapshotBuilder<TypeConfig> for Machine {
    async fn build_snapshot(&mut self) -> Result<Snapshot<TypeConfig>, StorageError> {
        let state = self.now();
        let meta = SnapshotMeta {
            last_log_id: state.last,
            last_membership: state.membership,
            snapshot_id: state.last.map_or_else(|| "empty".to_owned(), |id| id.to_string()),
        };
        let (policy, voters) = (state.policy, state.voters);
        let bytes =
            tokio::task::spawn_blocking(move || image::encode(&policy, &voters)).await.map_err(|e| {
                StorageIOError::write_snapshot(Some(meta.signature()), openraft::AnyError::new(&e))
            })?;
        self.save(meta.clone(), bytes.clone()).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
