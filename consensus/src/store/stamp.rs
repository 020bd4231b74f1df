//! A small text file beside the database that says whose it is.
//!
//! It is read before sled touches anything, so that a directory of another node or of another version
//! is refused with a clear word. Its `complete` flag also tells a replica that never stored anything
//! from one whose database vanished: the second has votes to forget and must not start empty.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use selvedge_fabric::{id::NodeName, key::NodeId};
use serde::{Deserialize, Serialize};

use super::StoreError;

/// The file.
const FILE: &str = "replica.json";
/// Version of everything in the directory.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Stamp {
    format: u32,
    node: NodeId,
    name: NodeName,
    /// Whether the database was opened and synced once.
    pub(crate) complete: bool,
}

impl Stamp {
    /// Reads the stamp of `dir`, or writes a first one when the directory holds no replica.
    pub(crate) fn check_or_create(dir: &Path, node: NodeId, name: &NodeName) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let stamp = Self { format: FORMAT, node, name: name.clone(), complete: false };
                return stamp.save(dir).map(|()| stamp);
            }
            Err(source) => return Err(StoreError::Io { what: "read", path, source }),
        };
        let stamp: Self = serde_json::from_slice(&text)
            .map_err(|e| StoreError::Corrupt { path: path.clone(), why: format!("unreadable: {e}") })?;
        if stamp.format != FORMAT {
            return Err(StoreError::Format { path, found: stamp.format, supported: FORMAT });
        }
        if stamp.node != node {
            let (found, found_name) = (stamp.node, stamp.name);
            return Err(StoreError::Foreign { path: dir.to_owned(), found, found_name, expected: node });
        }
        Ok(stamp)
    }

    /// Records that there is a database from now on.
    pub(crate) fn complete(mut self, dir: &Path) -> Result<(), StoreError> {
        self.complete = true;
        self.save(dir)
    }

    fn save(&self, dir: &Path) -> Result<(), StoreError> {
        let text = serde_json::to_vec_pretty(self).unwrap_or_default();
        let write = || -> io::Result<()> {
            let (new, path) = (dir.join(format!("{FILE}.new")), dir.join(FILE));
            let mut file = File::create(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(dir)?.sync_all()
        };
        write().map_err(|source| StoreError::Io { what: "write", path: dir.join(FILE), source })
    }
}
