//! The durable half of the replica: log, vote, snapshots and a few words about itself.
//!
//! Raft is only as safe as its disk: a vote or an entry that was acknowledged and then forgotten lets
//! two leaders exist or loses a committed write. So nothing here is acknowledged before
//! [`Engine::sync`] has returned, and a sync that failed once poisons the engine for good: after a
//! failed fsync the kernel may have dropped the dirty pages, so a later sync that succeeds proves
//! nothing. The replica then stops and the node goes on as a reader of what it has.
//!
//! [`Engine`] is the little that the rest of the crate asks of a storage engine. sled implements it
//! ([`sled_engine`]); tests put engines with faults in its place.

pub(crate) mod epoch;
pub(crate) mod files;
pub(crate) mod gate;
pub(crate) mod log;
mod mark;
pub(crate) mod parts;
pub(crate) mod sled_engine;
pub(crate) mod snapshots;
pub(crate) mod stamp;
#[cfg(test)]
pub(crate) mod suite;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use openraft::Vote;
use selvedge_fabric::{Epoch, id::NodeName, key::NodeId, statement::Signatures};
use serde::{Serialize, de::DeserializeOwned};

use crate::types::LogIndex;

/// Why the store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory belongs to another node.
    #[error(
        "{path} holds the replica of node {found} ({found_name}), but this is node {expected}: \
         point the node at its own data directory, or start it on an empty one and join again",
        path = path.display()
    )]
    Foreign {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
        /// The name of whose it is.
        found_name: NodeName,
        /// Who opens it.
        expected: NodeId,
    },
    /// What is stored there is damaged, or is something else.
    #[error(
        "{path}: {why}. A replica that may have forgotten its votes must not go on: restore the \
         directory from the same disk, or remove this node (selvedge node remove) and let it join \
         again with an empty data directory",
        path = path.display()
    )]
    Corrupt {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// Written by a version of selvedge that stores things otherwise.
    #[error(
        "{path} has storage format {found}, this version of selvedge reads {supported}: install the version \
         that wrote it, or a newer one",
        path = path.display()
    )]
    Format {
        /// The directory.
        path: PathBuf,
        /// The format found.
        found: u32,
        /// The format this version writes.
        supported: u32,
    },
    /// Another process has it open.
    #[error("{path} is in use by another process: stop that one first (is the node running already?)", path = path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {what} {path}: {source}", path = path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// An earlier write did not reach the disk, so nothing more is acknowledged.
    #[error(
        "{path}: an earlier write failed ({why}); nothing more is acknowledged from here. Free space or replace \
         the disk, then restart the node",
        path = path.display()
    )]
    Poisoned {
        /// The directory.
        path: PathBuf,
        /// How it began.
        why: String,
    },
    /// The fabric was recovered under a higher fence epoch, and this is the replica of the one before.
    #[error("{path}: a recovery has begun a new fence epoch, the old one writes nothing more", path = path.display())]
    Fenced {
        /// The directory.
        path: PathBuf,
    },
}

/// The tables of a store. Keys sort as bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Table {
    /// Single values by name.
    Meta,
    /// Log entries, in parts, by index.
    Log,
    /// Snapshots, in parts, by number.
    Snapshot,
}

/// One change of a table.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put(Vec<u8>, Vec<u8>),
    Delete(Vec<u8>),
}

/// A key with its value.
pub(crate) type Pair = (Vec<u8>, Vec<u8>);

/// An ordered, crash-consistent map of bytes. Writes become durable in the order in which they were
/// made: when one survives a crash, all earlier ones do.
pub(crate) trait Engine: Send + Sync + 'static {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;
    /// Pairs with `from <= key < to`, in order.
    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Pair>, StoreError>;
    /// Keys with `from <= key < to`, in order.
    fn keys(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>, StoreError>;
    /// The greatest key.
    fn last_key(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError>;
    /// All of `writes` or none; not yet durable.
    fn write(&self, table: Table, writes: Vec<Write>) -> Result<(), StoreError>;
    /// Returns when everything written before the call survives a power cut.
    fn sync(&self) -> Result<(), StoreError>;
    /// Where it is, for messages.
    fn path(&self) -> &Path;
}

const VOTE: &[u8] = b"vote";
const PURGED: &[u8] = b"purged";
const COMMITTED: &[u8] = b"committed";
const EPOCH: &[u8] = b"epoch";
const LINKS: &[u8] = b"links";

/// The typed face of an [`Engine`]. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Store {
    engine: Arc<dyn Engine>,
}

impl Store {
    pub(crate) fn new(engine: Arc<dyn Engine>) -> Self {
        Self { engine }
    }

    pub(crate) fn corrupt(&self, why: impl Into<String>) -> StoreError {
        StoreError::Corrupt { path: self.engine.path().to_owned(), why: why.into() }
    }

    fn meta<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        let bytes = self.engine.get(Table::Meta, key)?;
        let decode = |b: Vec<u8>| {
            postcard::from_bytes(&b)
                .map_err(|e| self.corrupt(format!("{:?} is unreadable: {e}", String::from_utf8_lossy(key))))
        };
        bytes.map(decode).transpose()
    }

    fn put_meta<T: Serialize>(&self, key: &[u8], value: &T) -> Result<(), StoreError> {
        self.engine.write(Table::Meta, vec![self.encode_meta(key, value)?])
    }

    fn encode_meta<T: Serialize>(&self, key: &[u8], value: &T) -> Result<Write, StoreError> {
        let bytes = postcard::to_stdvec(value).map_err(|e| self.corrupt(format!("cannot encode: {e}")))?;
        Ok(Write::Put(key.to_vec(), bytes))
    }

    pub(crate) fn vote(&self) -> Result<Option<Vote<u64>>, StoreError> {
        self.meta(VOTE)
    }

    pub(crate) fn set_vote(&self, vote: &Vote<u64>) -> Result<(), StoreError> {
        self.put_meta(VOTE, vote)
    }

    pub(crate) fn purged(&self) -> Result<Option<LogIndex>, StoreError> {
        self.meta(PURGED)
    }

    pub(crate) fn committed(&self) -> Result<Option<LogIndex>, StoreError> {
        self.meta(COMMITTED)
    }

    pub(crate) fn set_committed(&self, committed: Option<LogIndex>) -> Result<(), StoreError> {
        match committed {
            Some(id) => self.put_meta(COMMITTED, &id),
            None => self.engine.write(Table::Meta, vec![Write::Delete(COMMITTED.to_vec())]),
        }
    }

    /// The fence epoch; 0 until an operator first recovers the fabric.
    pub(crate) fn epoch(&self) -> Result<Epoch, StoreError> {
        Ok(self.meta(EPOCH)?.unwrap_or(0))
    }

    /// Persists a fence epoch that nobody signed.
    #[cfg(test)]
    pub(crate) fn set_epoch(&self, epoch: Epoch) -> Result<(), StoreError> {
        self.put_meta(EPOCH, &epoch)?;
        self.sync()
    }

    /// Signatures that link the sets of voters, by sequence.
    pub(crate) fn links(&self) -> Result<Option<BTreeMap<u64, Signatures>>, StoreError> {
        self.meta(LINKS)
    }

    /// Stores those signatures. They become durable with the next sync: others have them too.
    pub(crate) fn set_links(&self, links: &BTreeMap<u64, Signatures>) -> Result<(), StoreError> {
        self.put_meta(LINKS, links)
    }

    pub(crate) fn sync(&self) -> Result<(), StoreError> {
        self.engine.sync()
    }

    /// [`Self::sync`] without holding up the runtime.
    pub(crate) async fn sync_in_background(&self) -> Result<(), StoreError> {
        let store = self.clone();
        match tokio::task::spawn_blocking(move || store.sync()).await {
            Ok(result) => result,
            Err(stopped) => Err(StoreError::Io {
                what: "sync",
                path: self.engine.path().to_owned(),
                source: std::io::Error::other(stopped),
            }),
        }
    }
}
