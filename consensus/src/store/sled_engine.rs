//! sled as an [`Engine`].
//!
//! What sled 0.34 does not do by itself, and what is done about it here:
//!
//! * Its `flush` ends in `sync_file_range`, which does not survive a power cut: every sync is followed
//!   by an `fdatasync` of the database file.
//! * It panics on some damaged files: opening, and a first reading of every page, run under
//!   `catch_unwind` and become [`StoreError::Corrupt`].
//! * A process that dies while sled writes its recovery snapshot leaves a `.generating` file, which the
//!   next start takes for the newest snapshot and calls corrupt: it is removed before opening.
//! * It takes damage inside its log for the end of it and forgets the rest without a word: a count of
//!   syncs kept outside ([`super::mark`]) notices.
//! * It does not sync the files it makes while opening: all of them are synced once, and their directory.

use std::{
    fs::{self, File},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use selvedge_fabric::{id::NodeName, key::NodeId};

use super::{Engine, Pair, StoreError, Table, Write, mark::Mark, stamp::Stamp};

/// sled's unit of writing and of space reuse. Smaller than its default of 512 KiB costs blobs (see
/// [`super::parts`]), larger costs disk: sled keeps a handful of segments at least, and after heavy
/// churn about five times the live bytes, so 1 MiB keeps an idle replica near 10 MB.
pub(crate) const SEGMENT_BYTES: usize = 1024 * 1024;
/// Page cache. The log is read once, soon after it was written, and the policy lives in memory.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How often sled writes out by itself what nobody asked to sync: the commit index, a hint that only
/// decides how recent a policy a node starts with when it is alone.
const LAZY_FLUSH_MS: u64 = 200;
/// The database below the replica's directory.
const DATABASE: &str = "store";
/// How often the database was synced; see [`super::mark`].
const SYNCS: &[u8] = b"syncs";

pub(crate) struct SledEngine {
    db: sled::Db,
    trees: [sled::Tree; 3],
    /// The file behind sled, for the fdatasync that sled omits.
    file: File,
    path: PathBuf,
    poison: OnceLock<String>,
    /// One sync at a time, so that the count never runs ahead.
    syncs: Mutex<u64>,
    mark: Mark,
}

impl SledEngine {
    /// Opens or makes the database of `node` in `dir`.
    pub(crate) fn open(dir: &Path, node: NodeId, name: &NodeName) -> Result<Self, StoreError> {
        let failed = |what, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Io { what, path, source }
        };
        let path = dir.join(DATABASE);
        fs::create_dir_all(dir).map_err(failed("create", dir))?;
        let stamped = Stamp::check_or_create(dir, node, name)?;
        if stamped.complete && !path.join("db").exists() {
            let why = "the database is gone, although the replica had one".to_owned();
            return Err(StoreError::Corrupt { path, why });
        }
        fs::create_dir_all(&path).map_err(failed("create", &path))?;
        remove_unfinished(&path).map_err(failed("clean", &path))?;
        let mark = if stamped.complete { Mark::open(dir) } else { Mark::create(dir) };
        let mark = mark.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                let why = format!("the mark of its last sync is gone: {error}");
                StoreError::Corrupt { path: dir.to_owned(), why }
            }
            _ => failed("open the sync mark in", dir)(error),
        })?;
        let engine = open_guarded(&path, mark)?;
        sync_files(&path).map_err(failed("sync", &path))?;
        engine.check_count()?;
        if !stamped.complete {
            engine.sync()?;
            stamped.complete(dir)?;
        }
        Ok(engine)
    }

    /// Takes up the count of syncs, and refuses a database that has lost some.
    fn check_count(&self) -> Result<(), StoreError> {
        let corrupt = |why: String| StoreError::Corrupt { path: self.path.clone(), why };
        let stored = self.get(Table::Meta, SYNCS)?.unwrap_or_default();
        let stored = stored.try_into().map_or(0, u64::from_be_bytes);
        let marked = self.mark.get().map_err(|e| corrupt(e.to_string()))?;
        if stored < marked {
            let lost = marked - stored;
            return Err(corrupt(format!("the database forgot its last {lost} syncs: it is damaged")));
        }
        *self.syncs() = stored;
        Ok(())
    }

    fn syncs(&self) -> MutexGuard<'_, u64> {
        self.syncs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tree(&self, table: Table) -> &sled::Tree {
        &self.trees[match table {
            Table::Meta => 0,
            Table::Log => 1,
            Table::Snapshot => 2,
        }]
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.poison.get() {
            Some(why) => Err(StoreError::Poisoned { path: self.path.clone(), why: why.clone() }),
            None => Ok(()),
        }
    }

    fn failed(&self, what: &'static str, error: sled::Error) -> StoreError {
        let _first_reason_stays = self.poison.set(error.to_string());
        translate(&self.path, what, error)
    }
}

impl Engine for SledEngine {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let value = self.tree(table).get(key).map_err(|e| translate(&self.path, "read", e))?;
        Ok(value.map(|v| v.to_vec()))
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Pair>, StoreError> {
        let pair = |r: sled::Result<(sled::IVec, sled::IVec)>| {
            r.map(|(k, v)| (k.to_vec(), v.to_vec())).map_err(|e| translate(&self.path, "read", e))
        };
        self.tree(table).range(from..to).map(pair).collect()
    }

    fn keys(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        let key =
            |r: sled::Result<sled::IVec>| r.map(|k| k.to_vec()).map_err(|e| translate(&self.path, "read", e));
        self.tree(table).range(from..to).keys().map(key).collect()
    }

    fn last_key(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
        let last = self.tree(table).last().map_err(|e| translate(&self.path, "read", e))?;
        Ok(last.map(|(key, _)| key.to_vec()))
    }

    fn write(&self, table: Table, writes: Vec<Write>) -> Result<(), StoreError> {
        self.check()?;
        let mut batch = sled::Batch::default();
        for write in writes {
            match write {
                Write::Put(key, value) => batch.insert(key, value),
                Write::Delete(key) => batch.remove(key),
            }
        }
        self.tree(table).apply_batch(batch).map_err(|e| self.failed("write", e))
    }

    fn sync(&self) -> Result<(), StoreError> {
        let mut syncs = self.syncs();
        let count = *syncs + 1;
        self.write(Table::Meta, vec![Write::Put(SYNCS.to_vec(), count.to_be_bytes().to_vec())])?;
        self.db.flush().map_err(|e| self.failed("write", e))?;
        self.file.sync_data().map_err(|e| self.failed("sync", sled::Error::Io(e)))?;
        *syncs = count;
        self.mark.set(count).map_err(|e| self.failed("write", sled::Error::Io(e)))
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// Opens the database and reads all of it once, so that damage shows now and not in the middle of work.
fn open_guarded(path: &Path, mark: Mark) -> Result<SledEngine, StoreError> {
    let open = move || -> sled::Result<SledEngine> {
        let db = sled::Config::new()
            .path(path)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(CACHE_BYTES)
            .mode(sled::Mode::LowSpace)
            .flush_every_ms(Some(LAZY_FLUSH_MS))
            .open()?;
        let trees = [db.open_tree("meta")?, db.open_tree("log")?, db.open_tree("snapshot")?];
        for tree in &trees {
            for pair in tree {
                pair?;
            }
        }
        let file = File::open(path.join("db"))?;
        let (path, poison, syncs) = (path.to_owned(), OnceLock::new(), Mutex::new(0));
        Ok(SledEngine { db, trees, file, path, poison, syncs, mark })
    };
    match catch_unwind(AssertUnwindSafe(open)) {
        Ok(opened) => opened.map_err(|e| translate(path, "open", e)),
        Err(_) => {
            let why = "the database is damaged (sled gave up reading it)".to_owned();
            Err(StoreError::Corrupt { path: path.to_owned(), why })
        }
    }
}

fn remove_unfinished(path: &Path) -> io::Result<()> {
    for file in fs::read_dir(path)? {
        let file = file?;
        if file.file_name().to_string_lossy().ends_with(".generating") {
            fs::remove_file(file.path())?;
        }
    }
    Ok(())
}

fn sync_files(path: &Path) -> io::Result<()> {
    for file in fs::read_dir(path)? {
        File::open(file?.path())?.sync_all()?;
    }
    File::open(path)?.sync_all()?;
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn translate(path: &Path, what: &'static str, error: sled::Error) -> StoreError {
    let path = path.to_owned();
    match error {
        sled::Error::Io(source) if source.to_string().contains("could not acquire lock") => {
            StoreError::Locked { path }
        }
        sled::Error::Io(source) => StoreError::Io { what, path, source },
        sled::Error::Corruption { .. } => {
            StoreError::Corrupt { path, why: "the database fails its checksums".to_owned() }
        }
        other @ (sled::Error::CollectionNotFound(_)
        | sled::Error::Unsupported(_)
        | sled::Error::ReportableBug(_)) => StoreError::Corrupt { path, why: other.to_string() },
    }
}
