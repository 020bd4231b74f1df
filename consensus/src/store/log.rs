//! The Raft log on a [`Store`].

use std::{fmt::Debug, ops::RangeBounds};

use openraft::{
    LogState, OptionalSend, RaftLogReader, StorageIOError, Vote,
    storage::{LogFlushed, RaftLogStorage},
};

use super::{PURGED, Pair, Store, StoreError, Table, Write, parts};
use crate::types::{Entry, LogIndex, StorageError, TypeConfig};

/// Most bytes of entries handed to one append RPC, unless a single entry is larger.
const READ_BYTES: usize = 1024 * 1024;

fn read_failed(e: StoreError) -> StorageError {
    StorageIOError::read_logs(openraft::AnyError::new(&e)).into()
}

fn write_failed(e: StoreError) -> StorageError {
    StorageIOError::write_logs(openraft::AnyError::new(&e)).into()
}

impl Store {
    /// Entries with `from <= index < to`, until they exceed `limit_bytes`; one at least.
    pub(crate) fn entries(&self, from: u64, to: u64, limit_bytes: usize) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        for index in from..to {
            let pairs = self.engine.range(Table::Log, &parts::key(index, 0), &parts::key(index, u32::MAX))?;
            if pairs.is_empty() && entries.is_empty() {
                continue;
            }
            if pairs.is_empty() || (bytes > limit_bytes && !entries.is_empty()) {
                break;
            }
            bytes += pairs.iter().map(|(_, part)| part.len()).sum::<usize>();
            entries.push(self.decode_entry(index, &pairs)?);
        }
        Ok(entries)
    }

    fn decode_entry(&self, index: u64, pairs: &[Pair]) -> Result<Entry, StoreError> {
        let bytes = parts::join(index, pairs.iter()).map_err(|why| self.corrupt(format!("log: {why}")))?;
        postcard::from_bytes(&bytes)
            .map_err(|e| self.corrupt(format!("log entry {index} is unreadable: {e}")))
    }

    /// Id of the newest entry, or of the last purged one when there is none.
    pub(crate) fn last_log_id(&self) -> Result<Option<LogIndex>, StoreError> {
        let Some(key) = self.engine.last_key(Table::Log)? else { return self.purged() };
        let index = parts::number_of(&key).ok_or_else(|| self.corrupt("a key of the log is malformed"))?;
        let newest = self.entries(index, index + 1, 0)?;
        Ok(newest.first().map(|entry| entry.log_id))
    }

    /// The index after the newest entry.
    pub(crate) fn log_end(&self) -> Result<u64, StoreError> {
        let last = self.engine.last_key(Table::Log)?;
        Ok(last.and_then(|key| parts::number_of(&key)).map_or(0, |index| index + 1))
    }

    /// Appends; durable only after the next sync. All entries go in one atomic batch, so that a crash
    /// never leaves a part of an entry.
    pub(crate) fn append(&self, entries: impl IntoIterator<Item = Entry>) -> Result<(), StoreError> {
        let mut writes = Vec::new();
        for entry in entries {
            let bytes =
                postcard::to_stdvec(&entry).map_err(|e| self.corrupt(format!("cannot encode: {e}")))?;
            writes.extend(parts::split(entry.log_id.index, &bytes));
        }
        self.engine.write(Table::Log, writes)
    }

    /// Removes entries with `from <= index < to`.
    pub(super) fn remove_entries(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let keys = self.engine.keys(Table::Log, &parts::key(from, 0), &parts::key(to, 0))?;
        if keys.is_empty() {
            return Ok(());
        }
        self.engine.write(Table::Log, keys.into_iter().map(Write::Delete).collect())
    }

    /// Checks that the log has no holes: sled may lose the tail after damage in the middle.
    pub(crate) fn check_log(&self) -> Result<(), StoreError> {
        let keys = self.engine.keys(Table::Log, &[], &[0xff; parts::KEY_BYTES])?;
        let mut expected = self.purged()?.map_or(0, |id| id.index + 1);
        for index in keys.iter().filter_map(|key| parts::number_of(key)) {
            if index > expected {
                return Err(self.corrupt(format!("log entry {expected} is missing")));
            }
            expected = expected.max(index + 1);
        }
        self.entries(self.log_end()?.saturating_sub(1), self.log_end()?, 0).map(drop)
    }
}

/// The log as openraft sees it.
#[derive(Clone)]
pub(crate) struct LogStore(pub(crate) Store);

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, StorageError> {
        use std::ops::Bound::{Excluded, Included, Unbounded};
        let from = match range.start_bound() {
            Included(n) => *n,
            Excluded(n) => n + 1,
            Unbounded => 0,
        };
        let end = self.0.log_end().map_err(read_failed)?;
        let to = match range.end_bound() {
            Included(n) => end.min(n.saturating_add(1)),
            Excluded(n) => end.min(*n),
            Unbounded => end,
        };
        self.0.entries(from, to, usize::MAX).map_err(read_failed)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, StorageError> {
        self.0.entries(start, end, READ_BYTES).map_err(read_failed)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, StorageError> {
        let last_purged_log_id = self.0.purged().map_err(read_failed)?;
        let last_log_id = self.0.last_log_id().map_err(read_failed)?;
        Ok(LogState { last_purged_log_id, last_log_id })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote<u64>) -> Result<(), StorageError> {
        let failed = |e| StorageError::from(StorageIOError::write_vote(openraft::AnyError::new(&e)));
        self.0.set_vote(vote).map_err(failed)?;
        self.0.sync_in_background().await.map_err(failed)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote<u64>>, StorageError> {
        self.0.vote().map_err(|e| StorageIOError::read_vote(openraft::AnyError::new(&e)).into())
    }

    /// Not synced: it is a hint, and the next append's sync carries it along.
    async fn save_committed(&mut self, committed: Option<LogIndex>) -> Result<(), StorageError> {
        self.0.set_committed(committed).map_err(write_failed)
    }

    async fn read_committed(&mut self) -> Result<Option<LogIndex>, StorageError> {
        self.0.committed().map_err(read_failed)
    }

    /// Every entry of the call shares one sync. openraft 0.9 waits for it before it appends again, so
    /// concurrency comes from batching at the leader, not from overlapping syncs.
    async fn append<I>(&mut self, entries: I, callback: LogFlushed<TypeConfig>) -> Result<(), StorageError>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        self.0.append(entries).map_err(write_failed)?;
        let synced = self.0.sync_in_background().await;
        callback.log_io_completed(synced.map_err(std::io::Error::other));
        Ok(())
    }

    async fn truncate(&mut self, since: LogIndex) -> Result<(), StorageError> {
        let end = self.0.log_end().map_err(read_failed)?;
        self.0.remove_entries(since.index, end).map_err(write_failed)?;
        self.0.sync_in_background().await.map_err(write_failed)
    }

    /// The mark goes first: a crash in between leaves entries below it, never a hole above it.
    async fn purge(&mut self, upto: LogIndex) -> Result<(), StorageError> {
        self.0.put_meta(PURGED, &upto).map_err(write_failed)?;
        self.0.remove_entries(0, upto.index + 1).map_err(write_failed)?;
        self.0.sync_in_background().await.map_err(write_failed)
    }
}
