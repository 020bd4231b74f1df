//! The last known facts on disk, so that a node starts with what it knew.
//!
//! Facts are soft: what is lost comes back by gossip. So a batch is written at most once a second, a
//! power cut may cost the last ones, and a store that cannot be read is set aside, with its content, and
//! a new one begun. sled 0.34 panics on some damaged files; that is caught and counts as damage.

use std::{
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use selvedge_fabric::{
    UnixMs,
    key::{FabricId, PublicKey},
    record::{MAX_RECORD_BYTES, Record, Topic},
};
use serde::{Deserialize, Serialize};

use crate::{
    clock,
    core::store::{Key, MAX_RECORDS},
};

/// Damaged stores that are kept for inspection; older ones are deleted.
const MAX_SET_ASIDE: usize = 3;
/// Memory that sled may use for its cache.
const CACHE_BYTES: u64 = 8 << 20;
/// How often, and how far apart, a store that is in use is tried again: whoever had it may be ending, and
/// sled lets go of the lock only some moments after the last handle is gone.
const LOCK_TRIES: u32 = 20;
const LOCK_WAIT: Duration = Duration::from_millis(50);
const FACTS: &str = "facts";
const META: &str = "meta";
const OWNER: &[u8] = b"owner";
const INCARNATION: &[u8] = b"incarnation";

/// Why the store cannot be used at all.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Another process has it open.
    #[error(
        "the facts in {0} are in use by another process: stop it, or give this node a directory of its own"
    )]
    Locked(PathBuf),
    /// The file system refuses.
    #[error("{action} {path}: {source} (check the permissions and the free space of the data directory)")]
    Io {
        /// What was tried.
        action: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The store refuses.
    #[error("the facts on disk cannot be written: {0}")]
    Store(#[from] sled::Error),
}

#[derive(Debug)]
enum Unreadable {
    Locked,
    Damaged(String),
}

/// A store that could not be read and is kept under another name.
#[derive(Debug)]
pub(crate) struct SetAside {
    pub(crate) path: PathBuf,
    pub(crate) why: String,
}

/// What the disk knew.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) records: Vec<(Record, UnixMs)>,
    pub(crate) incarnation: u64,
    pub(crate) set_aside: Option<SetAside>,
}

/// Changes that are to be written together. `None` deletes.
pub(crate) type Batch = BTreeMap<Key, Option<(Record, UnixMs)>>;

#[derive(Serialize, Deserialize)]
struct Stored {
    heard_ms: UnixMs,
    record: Record,
}

#[derive(Clone)]
pub(crate) struct Disk {
    db: sled::Db,
    facts: sled::Tree,
    meta: sled::Tree,
}

impl Disk {
    /// Opens the store in `dir` for the node `me` of `fabric`, or begins a new one. Blocks, for a second
    /// or so when another process has the store.
    pub(crate) fn open(dir: &Path, fabric: &FabricId, me: &PublicKey) -> Result<(Self, Loaded), DiskError> {
        let path = dir.join(FACTS);
        fs::create_dir_all(dir).map_err(|source| DiskError::Io {
            action: "create",
            path: dir.to_owned(),
            source,
        })?;
        let why = match read_patiently(&path, fabric, me) {
            Ok(opened) => return Ok(opened),
            Err(Unreadable::Locked) => return Err(DiskError::Locked(path)),
            Err(Unreadable::Damaged(why)) => why,
        };
        let aside = set_aside(dir, &path)?;
        let (disk, mut loaded) = read(&path, fabric, me).map_err(|error| match error {
            Unreadable::Locked => DiskError::Locked(path.clone()),
            Unreadable::Damaged(why) => {
                DiskError::Io { action: "create", path: path.clone(), source: io::Error::other(why) }
            }
        })?;
        loaded.set_aside = Some(SetAside { path: aside, why });
        Ok((disk, loaded))
    }

    /// Writes a batch.
    pub(crate) fn write(&self, batch: &Batch) -> Result<(), DiskError> {
        let mut writes = sled::Batch::default();
        for (key, change) in batch {
            match change {
                Some((record, heard_ms)) => {
                    let stored = Stored { heard_ms: *heard_ms, record: record.clone() };
                    // Cannot fail: it is bytes and integers only.
                    writes.insert(&key_bytes(key)[..], postcard::to_stdvec(&stored).unwrap_or_default());
                }
                None => writes.remove(&key_bytes(key)[..]),
            }
        }
        self.facts.apply_batch(writes)?;
        self.db.flush()?;
        Ok(())
    }

    /// Remembers the incarnation under which this node speaks.
    pub(crate) fn write_incarnation(&self, incarnation: u64) -> Result<(), DiskError> {
        self.meta.insert(INCARNATION, &incarnation.to_be_bytes())?;
        self.db.flush()?;
        Ok(())
    }
}

fn read_patiently(path: &Path, fabric: &FabricId, me: &PublicKey) -> Result<(Disk, Loaded), Unreadable> {
    for _ in 1..LOCK_TRIES {
        match read(path, fabric, me) {
            Err(Unreadable::Locked) => thread::sleep(LOCK_WAIT),
            outcome => return outcome,
        }
    }
    read(path, fabric, me)
}

fn read(path: &Path, fabric: &FabricId, me: &PublicKey) -> Result<(Disk, Loaded), Unreadable> {
    let existed = path.join("db").exists();
    let attempt = || -> Result<(Disk, Loaded), sled::Error> {
        let db = sled::Config::new().path(path).cache_capacity(CACHE_BYTES).flush_every_ms(None).open()?;
        let disk = Disk { facts: db.open_tree(FACTS)?, meta: db.open_tree(META)?, db };
        let loaded = load(&disk, existed, fabric, me)?;
        Ok((disk, loaded))
    };
    // The store is given up when it panics, so nothing half-done is used afterwards.
    match catch_unwind(AssertUnwindSafe(attempt)) {
        Ok(Ok(opened)) => Ok(opened),
        Ok(Err(sled::Error::Io(error))) if is_lock(&error) => Err(Unreadable::Locked),
        Ok(Err(error)) => Err(Unreadable::Damaged(error.to_string())),
        Err(_panic) => Err(Unreadable::Damaged("the store's own consistency check failed".into())),
    }
}

fn load(disk: &Disk, existed: bool, fabric: &FabricId, me: &PublicKey) -> Result<Loaded, sled::Error> {
    let owner = [&fabric.0[..], &me.0[..]].concat();
    match disk.meta.get(OWNER)? {
        Some(found) if found[..] != owner[..] => {
            return Err(sled::Error::Unsupported("it belongs to another fabric or node".into()));
        }
        Some(_) => {}
        // sled recovers from some damage by beginning anew, without a word.
        None if existed => return Err(sled::Error::Unsupported("its content is gone".into())),
        None => {
            disk.meta.insert(OWNER, owner)?;
            disk.db.flush()?;
        }
    }
    let number = disk.meta.get(INCARNATION)?.and_then(|bytes| bytes[..].try_into().ok());
    let mut loaded = Loaded { incarnation: number.map_or(0, u64::from_be_bytes), ..Loaded::default() };
    for item in disk.facts.iter().take(MAX_RECORDS) {
        let (_, bytes) = item?;
        if bytes.len() > 2 * MAX_RECORD_BYTES {
            continue;
        }
        // One record that does not decode is one fact less; signatures are checked by who merges.
        if let Ok(Stored { heard_ms, record }) = postcard::from_bytes(&bytes) {
            loaded.records.push((record, heard_ms));
        }
    }
    Ok(loaded)
}

fn is_lock(error: &io::Error) -> bool {
    // sled words it so, with kind Other.
    error.kind() == io::ErrorKind::WouldBlock || error.to_string().contains("could not acquire lock")
}

fn set_aside(dir: &Path, path: &Path) -> Result<PathBuf, DiskError> {
    let prefix = format!("{FACTS}.set-aside-");
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| DiskError::Io { action, path, source }
    };
    let mut older: Vec<PathBuf> = fs::read_dir(dir)
        .map_err(io("list", dir))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&prefix)))
        .collect();
    older.sort();
    for path in older.iter().take((older.len() + 1).saturating_sub(MAX_SET_ASIDE)) {
        let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        removed.map_err(io("delete", path))?;
    }
    let target = dir.join(format!("{prefix}{:015}", clock::unix_ms()));
    fs::rename(path, &target).map_err(io("set aside", path))?;
    Ok(target)
}

fn key_bytes(key: &Key) -> [u8; 9] {
    let topic = match key.topic {
        Topic::Presence => 0,
        Topic::Endpoints => 1,
        Topic::Observations => 2,
        Topic::Links => 3,
        Topic::Enforced => 4,
        Topic::Load => 5,
    };
    let node = key.node.0.to_be_bytes();
    std::array::from_fn(|i| node.get(i).copied().unwrap_or(topic))
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::SigningKey;
    use selvedge_fabric::{
        key::Signer,
        record::{Body, Load, Version},
    };

    use super::*;

    const FABRIC: FabricId = FabricId([1; 16]);

    fn record(key: &SigningKey) -> Record {
        let version = Version { epoch: 0, incarnation: 1, sequence: 1 };
        Record::sign(&FABRIC, key, version, 7, &Body::Load(Load::default())).unwrap()
    }

    fn open(dir: &Path, me: &PublicKey) -> (Disk, Loaded) {
        Disk::open(dir, &FABRIC, me).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let key = SigningKey::from_bytes(&[1; 32]);
        let me = key.public_key();
        let record = record(&key);
        {
            let (disk, loaded) = open(dir.path(), &me);
            assert!(loaded.records.is_empty() && loaded.set_aside.is_none());
            disk.write(&[(Key::of(&record), Some((record.clone(), 5)))].into()).unwrap();
            disk.write_incarnation(9).unwrap();
        }
        let (disk, loaded) = open(dir.path(), &me);
        assert_eq!((loaded.records, loaded.incarnation), (vec![(record.clone(), 5)], 9));
        disk.write(&[(Key::of(&record), None)].into()).unwrap();
        drop(disk);
        assert!(open(dir.path(), &me).1.records.is_empty());
    }

    #[test]
    fn a_damaged_or_foreign_store_is_set_aside_and_few_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let me = SigningKey::from_bytes(&[1; 32]).public_key();
        for round in 0..2 * MAX_SET_ASIDE {
            drop(open(dir.path(), &me));
            let facts = dir.path().join(FACTS);
            if round % 2 == 0 {
                fs::write(facts.join("db"), vec![0xa5; 50_000]).unwrap();
                fs::write(facts.join("conf"), b"garbage").unwrap();
            } else {
                fs::remove_dir_all(&facts).unwrap();
                fs::write(&facts, b"a file where a directory should be").unwrap();
            }
            let (_, loaded) = open(dir.path(), &me);
            let aside = loaded.set_aside.expect("set aside");
            assert!(aside.path.exists() && !aside.why.is_empty());
        }
        let other = SigningKey::from_bytes(&[2; 32]).public_key();
        assert!(open(dir.path(), &other).1.set_aside.is_some_and(|aside| aside.why.contains("another")));
        let kept = fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(kept, 1 + MAX_SET_ASIDE);
    }

    #[test]
    fn a_store_in_use_is_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let me = SigningKey::from_bytes(&[1; 32]).public_key();
        let _held = open(dir.path(), &me);
        assert!(matches!(Disk::open(dir.path(), &FABRIC, &me), Err(DiskError::Locked(_))));
    }
}
