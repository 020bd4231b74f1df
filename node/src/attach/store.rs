//! The attachments of this node, as they are kept on disk.

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use selvedge_fabric::id::{EndpointId, ServiceRef};
use serde::{Deserialize, Serialize};

use super::{Place, group::Group, resolver::ResolvConf};
use crate::files::{self, FileError};

/// A workload that is attached, or was about to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// The service it proved.
    pub service: ServiceRef,
    /// Where it is, as it was asked for.
    pub place: Place,
    /// Our interface that leads to it.
    pub interface: String,
    /// That interface's number: another of the same name is not the one that was attached. 0 until it
    /// is there.
    pub index: u32,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The resolv.conf that was set up, and is put back.
    pub resolver: Option<ResolvConf>,
    /// The control group, of a process tree.
    #[serde(default)]
    pub group: Option<Group>,
}

impl Attachment {
    /// Whether everything of it was there once. What is not belongs to a life that ended half-way.
    #[must_use]
    pub const fn is_whole(&self) -> bool {
        self.index != 0
    }
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// It is damaged.
    #[error("{path} is damaged ({why}): move it away and attach the workloads again")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// The file of attachments.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
}

impl Store {
    /// The store in `path`; the file need not be there.
    pub(super) const fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Reads all attachments.
    ///
    /// # Errors
    /// When the file is there and cannot be used.
    pub(super) fn load(&self) -> Result<BTreeMap<EndpointId, Attachment>, StoreError> {
        let Some(bytes) = files::read_optional(&self.path)? else { return Ok(BTreeMap::new()) };
        let list: Vec<Attachment> = serde_json::from_slice(&bytes)
            .map_err(|e| StoreError::Damaged { path: self.path.clone(), why: e.to_string() })?;
        Ok(list.into_iter().map(|a| (a.endpoint.clone(), a)).collect())
    }

    /// Writes all attachments, atomically and durably.
    ///
    /// # Errors
    /// When the file cannot be written; the old one is then still there.
    pub(super) fn save(&self, attachments: &BTreeMap<EndpointId, Attachment>) -> Result<(), StoreError> {
        let list: Vec<_> = attachments.values().collect();
        let bytes = serde_json::to_vec_pretty(&list)
            .map_err(|e| StoreError::Damaged { path: self.path.clone(), why: e.to_string() })?;
        Ok(files::write_private(&self.path, &bytes)?)
    }
}
