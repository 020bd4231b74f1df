//! An engine that can be closed for good.
//!
//! A replica of one fence epoch must write nothing once the next one has begun on the same disk. openraft ends
//! its tasks when it is told to, but a snapshot that is being saved or a sync on a blocking thread may come
//! later; it finds the gate closed.

use std::{
    path::Path,
    sync::{Arc, PoisonError, RwLock},
};

use super::{Engine, Pair, StoreError, Table, Write};

/// Lets reads through always, and writes until [`Gate::close`].
#[derive(Clone)]
pub(crate) struct Gate {
    inner: Arc<dyn Engine>,
    open: Arc<RwLock<bool>>,
}

impl Gate {
    pub(crate) fn new(inner: Arc<dyn Engine>) -> Self {
        Self { inner, open: Arc::new(RwLock::new(true)) }
    }

    /// Refuses every later write. Waits for those under way, so it may take as long as a sync.
    pub(crate) fn close(&self) {
        *self.open.write().unwrap_or_else(PoisonError::into_inner) = false;
    }

    fn pass<T>(&self, work: impl FnOnce(&dyn Engine) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        if *open { work(&*self.inner) } else { Err(StoreError::Fenced { path: self.path().to_owned() }) }
    }
}

impl Engine for Gate {
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
        self.pass(|engine| engine.write(table, writes))
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.pass(Engine::sync)
    }

    fn path(&self) -> &Path {
        self.inner.path()
    }
}
