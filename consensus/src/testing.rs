//! What the unit tests share: a network with nobody on it, and a disk that fills up.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    event::{EventSink, Severity},
    id::NodeName,
    key::{PublicKey, Signer},
};
use tokio::sync::watch;

use crate::{
    Peers, Rpc, RpcError, Settings, StoreError, Timers,
    store::{Engine, Pair, Table, Write},
};

pub(crate) fn key() -> PublicKey {
    SigningKey::from_bytes(&[7; 32]).public_key()
}

pub(crate) fn name() -> NodeName {
    NodeName::new("p1").expect("a name")
}

pub(crate) fn settings(dir: &Path) -> Settings {
    let (_, liveness) = watch::channel(Arc::new(Peers::new()));
    let (dir, timers, events) = (dir.to_owned(), Timers::default(), Arc::new(Silent));
    Settings { dir, me: name(), key: key(), anchor: None, liveness, timers, events, seed: 1 }
}

struct Silent;

impl EventSink for Silent {
    fn emit(&self, _severity: Severity, _code: &'static str, _subject: &str, _message: String) {}
}

/// Reaches nobody.
pub(crate) struct Nobody;

#[async_trait]
impl Rpc for Nobody {
    async fn request(&self, to: &NodeName, _body: Bytes, _timeout: Duration) -> Result<Bytes, RpcError> {
        Err(RpcError::NotSent(format!("{to} is nowhere")))
    }

    fn addresses(&self, _node: &NodeName) -> Vec<SocketAddr> {
        Vec::new()
    }

    fn suggest(&self, _node: &NodeName, _addresses: &[SocketAddr]) {}

    fn acquaintances(&self) -> Vec<NodeName> {
        Vec::new()
    }
}

/// An engine whose disk is full from some moment on.
pub(crate) struct FillingDisk<E> {
    pub(crate) inner: E,
    pub(crate) full: Arc<AtomicBool>,
}

impl<E: Engine> Engine for FillingDisk<E> {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.get(table, key)
    }

    fn range(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Pair>, StoreError> {
        self.inner.range(table, from, to)
    }

    fn keys(&self, table: Table, from: &[u8], to: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        self.inner.keys(table, from, to)
    }

    fn last_key(&self, table: Table) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.last_key(table)
    }

    fn write(&self, table: Table, writes: Vec<Write>) -> Result<(), StoreError> {
        self.inner.write(table, writes)
    }

    fn sync(&self) -> Result<(), StoreError> {
        if self.full.load(Ordering::SeqCst) {
            let source = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(StoreError::Io { what: "sync", path: self.path().to_owned(), source });
        }
        self.inner.sync()
    }

    fn path(&self) -> &Path {
        self.inner.path()
    }
}
