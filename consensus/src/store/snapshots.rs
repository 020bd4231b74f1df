//! Snapshots on a [`Store`]: the newest one only.
//!
//! A snapshot is written under a new number, synced, and only then named in `snapshot`; the one before
//! it is removed afterwards. A crash at any point leaves exactly one whole snapshot in force.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, Table, Write, parts};
use crate::types::SnapshotMeta;

const CURRENT: &[u8] = b"snapshot";
/// Parts written or removed in one batch of the engine, so that none of them is huge.
const PARTS_PER_BATCH: usize = 64;

#[derive(Serialize, Deserialize)]
struct Current {
    number: u64,
    meta: SnapshotMeta,
}

impl Store {
    /// The newest snapshot.
    pub(crate) fn snapshot(&self) -> Result<Option<(SnapshotMeta, Vec<u8>)>, StoreError> {
        let Some(current) = self.meta::<Current>(CURRENT)? else { return Ok(None) };
        let (from, to) = (parts::key(current.number, 0), parts::key(current.number, u32::MAX));
        let pairs = self.engine.range(Table::Snapshot, &from, &to)?;
        let bytes = parts::join(current.number, pairs.iter())
            .map_err(|why| self.corrupt(format!("snapshot: {why}")))?;
        Ok(Some((current.meta, bytes)))
    }

    /// Replaces the snapshot, unless there is a newer one already. Durable when it returns.
    pub(crate) fn save_snapshot(&self, meta: &SnapshotMeta, bytes: &[u8]) -> Result<(), StoreError> {
        let before = self.meta::<Current>(CURRENT)?;
        if before.as_ref().is_some_and(|b| b.meta.last_log_id > meta.last_log_id) {
            return Ok(());
        }
        let number = before.as_ref().map_or(0, |b| b.number) + 1;
        self.remove_other_snapshots(number)?;
        for batch in parts::split(number, bytes).chunks(PARTS_PER_BATCH) {
            self.engine.write(Table::Snapshot, batch.to_vec())?;
        }
        self.sync()?;
        self.put_meta(CURRENT, &Current { number, meta: meta.clone() })?;
        self.sync()?;
        self.remove_snapshots(0, number)
    }

    /// Removes what a crash in the middle of saving left under `number`.
    fn remove_other_snapshots(&self, number: u64) -> Result<(), StoreError> {
        self.remove_snapshots(number, u64::MAX)
    }

    fn remove_snapshots(&self, from: u64, to: u64) -> Result<(), StoreError> {
        let keys = self.engine.keys(Table::Snapshot, &parts::key(from, 0), &parts::key(to, 0))?;
        for batch in keys.chunks(PARTS_PER_BATCH) {
            self.engine.write(Table::Snapshot, batch.iter().cloned().map(Write::Delete).collect())?;
        }
        Ok(())
    }
}
