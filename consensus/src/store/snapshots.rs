//! Snapshots on a [`Store`]: the newest one only.
//!
//! A snapshot is written under a new number, synced, and only then named in `snapshot`; the one before
//! it is removed afterwards. A crash at any point leaves exactly one whole snapshot in force.

use serde::{Deserialize, Serialize};

use super::{Store, StoreError, Table, Write, parts};
use crate::types::SnapshotMeta;

pub(super) const CURRENT: &[u8] = b"snapshot";
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
        let current = self.stage_snapshot(meta, bytes)?;
        self.engine.write(Table::Meta, vec![current])?;
        self.sync()?;
        self.remove_past_snapshots()
    }

    /// Writes a snapshot beside the present one, durably, and returns what makes it the present one.
    pub(super) fn stage_snapshot(&self, meta: &SnapshotMeta, bytes: &[u8]) -> Result<Write, StoreError> {
        let number = self.meta::<Current>(CURRENT)?.map_or(0, |before| before.number) + 1;
        self.remove_other_snapshots(number)?;
        for batch in parts::split(number, bytes).chunks(PARTS_PER_BATCH) {
            self.engine.write(Table::Snapshot, batch.to_vec())?;
        }
        self.sync()?;
        self.encode_meta(CURRENT, &Current { number, meta: meta.clone() })
    }

    /// Removes all snapshots but the present one.
    pub(super) fn remove_past_snapshots(&self) -> Result<(), StoreError> {
        match self.meta::<Current>(CURRENT)? {
            Some(current) => self.remove_snapshots(0, current.number),
            None => self.remove_snapshots(0, u64::MAX),
        }
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
