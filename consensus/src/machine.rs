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
use selvedge_fabric::policy::PolicyState;
use tokio::sync::watch;

use crate::{
    store::{Store, StoreError},
    types::{Entry, LogIndex, Membership, Outcome, SnapshotMeta, StorageError, TypeConfig},
};

/// What has been applied, always consistent in itself.
#[derive(Clone, Default)]
struct AppliedState {
    policy: Arc<PolicyState>,
    last: Option<LogIndex>,
    membership: Membership,
}

/// Shared by the state machine and its snapshot builders.
#[derive(Clone)]
pub(crate) struct Machine {
    applied: Arc<Mutex<AppliedState>>,
    published: Arc<watch::Sender<Arc<PolicyState>>>,
    store: Store,
}

impl Machine {
    /// The state of the newest snapshot; openraft replays the committed log after it.
    pub(crate) fn load(store: Store) -> Result<(Self, watch::Receiver<Arc<PolicyState>>), StoreError> {
        let mut applied = AppliedState::default();
        if let Some((meta, bytes)) = store.snapshot()? {
            let policy = PolicyState::decode(&bytes).map_err(|e| store.corrupt(format!("snapshot: {e}")))?;
            applied = AppliedState {
                policy: Arc::new(policy),
                last: meta.last_log_id,
                membership: meta.last_membership,
            };
        }
        let (published, receiver) = watch::channel(Arc::clone(&applied.policy));
        let applied = Arc::new(Mutex::new(applied));
        Ok((Self { applied, published: Arc::new(published), store }, receiver))
    }

    fn now(&self) -> AppliedState {
        self.applied.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn replace(&self, state: AppliedState) {
        self.published.send_replace(Arc::clone(&state.policy));
        *self.applied.lock().unwrap_or_else(PoisonError::into_inner) = state;
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

/// Applies one entry. A batch that cannot be decoded stops the replica: to skip it would make this
/// policy differ from everybody else's.
#[expect(clippy::result_large_err, reason = "openraft's storage error is what its trait returns")]
fn apply_entry(state: &mut AppliedState, entry: Entry) -> Result<Vec<Outcome>, StorageError> {
    state.last = Some(entry.log_id);
    match entry.payload {
        EntryPayload::Blank => Ok(Vec::new()),
        EntryPayload::Membership(membership) => {
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
            outcomes.push(apply_entry(&mut state, entry)?);
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
        let policy = PolicyState::decode(&bytes).map_err(|e| {
            StorageIOError::read_snapshot(Some(meta.signature()), openraft::AnyError::new(&e))
        })?;
        self.save(meta.clone(), bytes).await?;
        self.replace(AppliedState {
            policy: Arc::new(policy),
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
        let policy = Arc::clone(&state.policy);
        let bytes = tokio::task::spawn_blocking(move || policy.encode()).await.map_err(|e| {
            StorageIOError::write_snapshot(Some(meta.signature()), openraft::AnyError::new(&e))
        })?;
        self.save(meta.clone(), bytes.clone()).await?;
        Ok(Snapshot { meta, snapshot: Box::new(Cursor::new(bytes)) })
    }
}
