//! How a store leaves one fence epoch and enters the next.
//!
//! Votes and entries of one epoch mean nothing in another, so all of them go at once: log, vote, commit index
//! and snapshot are replaced by the base of the recovery, or by nothing. What decides is one atomic batch
//! beside which the old log still lies; until it is removed, a mark says that it must be.

use openraft::{CommittedLeaderId, LogId, Vote};
use selvedge_fabric::statement::SignedRecovery;

use super::{COMMITTED, EPOCH, LINKS, PURGED, Store, StoreError, Table, VOTE, Write};
use crate::types::{LogIndex, SnapshotMeta};

const RECOVERY: &[u8] = b"recovery";
/// There while entries of an older epoch may lie in the log.
const ENTERING: &[u8] = b"entering";

/// The place of a recovery's base in the log of the new epoch. Its term is above that of every entry that
/// was taken over, and no node has its id: nobody wrote it but the recovery.
pub(crate) fn base_log_id(signed: &SignedRecovery) -> LogIndex {
    let base = &signed.recovery.base;
    LogId::new(CommittedLeaderId::new(base.term.saturating_add(1), 0), base.index)
}

impl Store {
    /// The statement that began the present epoch; none before the first recovery.
    pub(crate) fn recovery(&self) -> Result<Option<SignedRecovery>, StoreError> {
        self.meta(RECOVERY)
    }

    /// Enters the epoch of `signed` with `base` as the only thing known, or with nothing: then a leader sends
    /// it. Durable when it returns.
    pub(crate) fn enter_epoch(
        &self,
        signed: &SignedRecovery,
        base: Option<(&SnapshotMeta, &[u8])>,
    ) -> Result<(), StoreError> {
        let mut writes = vec![
            self.encode_meta(EPOCH, &signed.epoch())?,
            self.encode_meta(RECOVERY, signed)?,
            self.encode_meta(ENTERING, &true)?,
            Write::Delete(LINKS.to_vec()),
        ];
        match base {
            Some((meta, bytes)) => {
                let log_id = base_log_id(signed);
                writes.push(self.encode_meta(VOTE, &Vote::<u64>::new(log_id.leader_id.term, 0))?);
                writes.push(self.encode_meta(PURGED, &log_id)?);
                writes.push(self.encode_meta(COMMITTED, &log_id)?);
                writes.push(self.stage_snapshot(meta, bytes)?);
            }
            None => {
                let gone = [VOTE, PURGED, COMMITTED, super::snapshots::CURRENT];
                writes.extend(gone.map(|key| Write::Delete(key.to_vec())));
            }
        }
        self.engine.write(Table::Meta, writes)?;
        self.sync()?;
        self.finish_entering()
    }

    /// Removes what an epoch before left, if a crash kept [`Self::enter_epoch`] from it.
    pub(crate) fn finish_entering(&self) -> Result<(), StoreError> {
        if self.meta::<bool>(ENTERING)?.is_none() {
            return Ok(());
        }
        self.remove_entries(0, u64::MAX)?;
        self.remove_past_snapshots()?;
        self.sync()?;
        self.engine.write(Table::Meta, vec![Write::Delete(ENTERING.to_vec())])?;
        self.sync()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use openraft::{EntryPayload, Membership};
    use selvedge_fabric::{
        key::{FabricId, Hash, Signer},
        statement::{Base, Recovery, VoterSet},
    };
    use tempfile::TempDir;

    use super::*;
    use crate::{
        store::{gate::Gate, sled_engine::SledEngine},
        testing::{key, name},
        types::{Entry, Membership as StoredMembership},
    };

    fn signed() -> SignedRecovery {
        let signer = ed25519_dalek::SigningKey::from_bytes(&[4; 32]);
        let voters = VoterSet { epoch: 1 << 20, sequence: 2, voters: [signer.public_key()].into() };
        let base = Base { term: 3, index: 7, revision: 5, image: Hash([1; 32]) };
        Recovery { fabric: FabricId([1; 16]), base, voters, at_ms: 1 }.sign(&signer)
    }

    fn entry(term: u64, index: u64) -> Entry {
        let log_id = LogId::new(CommittedLeaderId::new(term, 1), index);
        Entry { log_id, payload: EntryPayload::Blank }
    }

    fn open(dir: &TempDir) -> Arc<SledEngine> {
        Arc::new(SledEngine::open(dir.path(), key().node_id(), &name()).expect("opens"))
    }

    fn with_a_past(store: &Store) {
        store.append((0..12).map(|index| entry(3, index))).expect("appended");
        store.set_vote(&Vote::new(9, 1)).expect("voted");
        store.set_committed(Some(entry(3, 9).log_id)).expect("committed");
        store.sync().expect("synced");
    }

    #[test]
    fn nothing_of_the_old_epoch_is_left_with_a_base_and_without() {
        let (dir, signed) = (TempDir::new().expect("a directory"), signed());
        let store = Store::new(open(&dir));
        with_a_past(&store);
        let at = base_log_id(&signed);
        let meta = SnapshotMeta {
            last_log_id: Some(at),
            last_membership: StoredMembership::new(Some(at), Membership::new(vec![], ())),
            snapshot_id: "base".to_owned(),
        };
        store.enter_epoch(&signed, Some((&meta, b"state"))).expect("entered");
        assert_eq!((store.epoch().expect("an epoch"), store.log_end().expect("a log")), (1 << 20, 0));
        assert_eq!(store.last_log_id().expect("a log"), Some(at), "the log goes on from the base");
        assert_eq!(store.vote().expect("a vote"), Some(Vote::new(4, 0)));
        assert_eq!(store.snapshot().expect("a snapshot").expect("one").1, b"state");
        assert_eq!(store.recovery().expect("a statement"), Some(signed.clone()));
        store.check_log().expect("no holes");

        with_a_past(&store);
        store.enter_epoch(&signed, None).expect("entered");
        assert_eq!(store.vote().expect("a vote"), None);
        assert_eq!(store.last_log_id().expect("a log"), None);
        assert_eq!(store.snapshot().expect("a snapshot"), None);
        assert_eq!(store.committed().expect("a mark"), None);
    }

    #[test]
    fn a_crash_before_the_old_log_is_gone_is_made_good() {
        let dir = TempDir::new().expect("a directory");
        let store = Store::new(open(&dir));
        store.enter_epoch(&signed(), None).expect("entered");
        // As if the process had died right after the batch that decides.
        let mark = store.encode_meta(ENTERING, &true).expect("encodes");
        store.engine.write(Table::Meta, vec![mark]).expect("written");
        store.append([entry(3, 8), entry(3, 9)]).expect("appended");
        store.sync().expect("synced");
        drop(store);
        let store = Store::new(open(&dir));
        store.finish_entering().expect("finished");
        assert_eq!((store.log_end().expect("a log"), store.epoch().expect("an epoch")), (0, 1 << 20));
    }

    #[test]
    fn a_closed_gate_lets_nothing_be_written() {
        let dir = TempDir::new().expect("a directory");
        let gate = Gate::new(open(&dir));
        let store = Store::new(Arc::new(gate.clone()));
        with_a_past(&store);
        gate.close();
        assert!(matches!(store.append([entry(3, 12)]), Err(StoreError::Fenced { .. })));
        assert!(matches!(store.sync(), Err(StoreError::Fenced { .. })));
        assert_eq!(store.log_end().expect("reads go on"), 12);
    }
}
