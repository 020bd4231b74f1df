//! The endpoints registered on this node, as they are kept on disk.

use std::{collections::BTreeMap, path::PathBuf};

use selvedge_fabric::{UnixMs, id::EndpointId, record::EndpointFact};
use serde::{Deserialize, Serialize};

use super::check::Check;
use crate::files::{self, FileError};

/// An endpoint registered on this node. The token's secret is not kept: the proof is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// What is gossiped.
    pub fact: EndpointFact,
    /// How its health is found; always passing, when there are none.
    pub checks: Vec<Check>,
    /// It ends then unless it is registered again.
    pub lease_until_ms: Option<UnixMs>,
    /// Length of the lease, milliseconds.
    pub lease_ms: Option<u64>,
}

/// The file of registered endpoints.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is damaged.
    #[error("{path} is damaged ({why}): move it away and register the endpoints again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

impl Store {
    /// The store in `path`; the file need not be there.
    #[must_use]
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads all endpoints.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub(super) fn load(&self) -> Result<BTreeMap<EndpointId, Registered>, StoreError> {
        let Some(bytes) = files::read_optional(&self.path)? else { return Ok(BTreeMap::new()) };
        let list: Vec<Registered> = serde_json::from_slice(&bytes)
            .map_err(|e| StoreError::Damaged { path: self.path.clone(), why: e.to_string() })?;
        Ok(list.into_iter().map(|r| (r.fact.id.clone(), r)).collect())
    }

    /// Writes all endpoints, atomically and durably.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is then still there.
    pub(super) fn save(&self, endpoints: &BTreeMap<EndpointId, Registered>) -> Result<(), StoreError> {
        let list: Vec<_> = endpoints.values().collect();
        let bytes = serde_json::to_vec_pretty(&list)
            .map_err(|e| StoreError::Damaged { path: self.path.clone(), why: e.to_string() })?;
        Ok(files::write_private(&self.path, &bytes)?)
    }
}
