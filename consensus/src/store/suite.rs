//! openraft's own storage test suite on the real store.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use openraft::testing::{StoreBuilder, Suite};
use selvedge_fabric::{id::NodeName, key::Signer};
use tempfile::TempDir;

use super::{Store, log::LogStore, sled_engine::SledEngine};
use crate::{
    machine::Machine,
    types::{StorageError, TypeConfig},
};

pub(crate) fn open(dir: &std::path::Path) -> Store {
    let node = SigningKey::from_bytes(&[7; 32]).public_key().node_id();
    let name = NodeName::new("p1").expect("a name");
    Store::new(Arc::new(SledEngine::open(dir, node, &name).expect("opens")))
}

struct Builder;

impl StoreBuilder<TypeConfig, LogStore, Machine, TempDir> for Builder {
    async fn build(&self) -> Result<(TempDir, LogStore, Machine), StorageError> {
        let dir = TempDir::new().expect("a directory");
        let store = open(dir.path());
        let (machine, _outlets) = Machine::load(store.clone(), Arc::default()).expect("loads");
        Ok((dir, LogStore(store), machine))
    }
}

#[test]
fn openraft_accepts_the_store() {
    Suite::test_all(Builder).expect("openraft's storage suite passes");
}
