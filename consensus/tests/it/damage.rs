//! Damaged, foreign and wrong data directories: a clear error, never a panic.

use std::{fs, path::Path, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_consensus::{OpenError, Peers, Replica, Rpc, RpcError, Settings, StoreError, Timers};
use selvedge_fabric::id::NodeName;
use tempfile::TempDir;
use tokio::sync::watch;

use crate::{
    fabric::{self, Events, name},
    virtual_net::key,
};

struct Nobody;

#[async_trait]
impl Rpc for Nobody {
    async fn request(&self, to: &NodeName, _: Bytes, _: Duration) -> Result<Bytes, RpcError> {
        Err(RpcError::NotSent(format!("{to} is nowhere")))
    }

    fn addresses(&self, _: &NodeName) -> Vec<std::net::SocketAddr> {
        Vec::new()
    }

    fn suggest(&self, _: &NodeName, _: &[std::net::SocketAddr]) {}

    fn acquaintances(&self) -> Vec<NodeName> {
        Vec::new()
    }
}

pub(crate) async fn open(dir: &Path, node: &str) -> Result<Replica, OpenError> {
    let (_, liveness) = watch::channel(Arc::new(Peers::new()));
    let settings = Settings {
        dir: dir.to_owned(),
        me: name(node),
        key: key(node),
        anchor: None,
        liveness,
        timers: Timers::default(),
        events: Arc::new(Events::default()),
        seed: 1,
    };
    Replica::open_over(settings, Arc::new(Nobody)).await
}

/// A directory with a fabric of one node and a few entries.
async fn used() -> TempDir {
    let dir = TempDir::new().expect("a directory");
    let replica = open(dir.path(), "p1").await.expect("opens");
    replica.bootstrap(fabric::init("p1", "aws", key("p1"))).await.expect("a fabric");
    replica.shutdown().await;
    dir
}

async fn refused(dir: &Path, node: &str) -> OpenError {
    match open(dir, node).await {
        Ok(_) => panic!("{} opens", dir.display()),
        Err(error) => {
            assert!(error.to_string().contains(&dir.display().to_string()), "names the place: {error}");
            error
        }
    }
}

#[tokio::test]
async fn a_directory_of_another_node_is_refused() {
    let dir = used().await;
    let error = refused(dir.path(), "p2").await;
    assert!(matches!(error, OpenError::Store(StoreError::Foreign { .. })), "{error}");
    assert!(
        error.to_string().contains("(p1)") && error.to_string().contains("own data directory"),
        "{error}"
    );
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let dir = used().await;
    let stamp = dir.path().join("replica.json");
    let text = fs::read_to_string(&stamp).expect("a stamp").replace("\"format\": 1", "\"format\": 99");
    fs::write(&stamp, text).expect("written");
    let error = refused(dir.path(), "p1").await;
    assert!(matches!(error, OpenError::Store(StoreError::Format { found: 99, .. })), "{error}");
}

#[tokio::test]
async fn a_replica_that_lost_its_database_does_not_start_empty() {
    let dir = used().await;
    fs::remove_dir_all(dir.path().join("store")).expect("removed");
    assert!(matches!(refused(dir.path(), "p1").await, OpenError::Store(StoreError::Corrupt { .. })));

    let dir = used().await;
    fs::write(dir.path().join("replica.json"), "{").expect("written");
    assert!(matches!(refused(dir.path(), "p1").await, OpenError::Store(StoreError::Corrupt { .. })));
}

#[tokio::test]
async fn damage_anywhere_in_the_database_is_noticed_or_harmless() {
    let dir = used().await;
    let file = dir.path().join("store/db");
    let whole = fs::read(&file).expect("a database");
    let snapshots: Vec<_> = fs::read_dir(dir.path().join("store"))
        .expect("a directory")
        .map(|f| f.expect("a file").path())
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("snap.")))
        .collect();
    let kept: Vec<_> = snapshots.iter().map(|p| (p, fs::read(p).expect("a snapshot"))).collect();
    for round in 0..12_usize {
        let mut bytes = whole.clone();
        let start = round * bytes.len() / 12;
        let end = (start + 4_096).min(bytes.len());
        bytes[start..end].fill(0xa5);
        fs::write(&file, &bytes).expect("written");
        kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).expect("written"));
        match open(dir.path(), "p1").await {
            Ok(replica) => {
                let lead = replica.barrier(Duration::from_secs(20)).await;
                assert_eq!(lead, Ok(1), "round {round}: forgotten without a word");
                replica.shutdown().await;
            }
            Err(error) => assert!(error.to_string().contains("store"), "{error}"),
        }
    }
}

#[tokio::test]
async fn an_unfinished_recovery_snapshot_of_sled_is_removed() {
    let dir = used().await;
    fs::write(dir.path().join("store/snap.FFFFFFFFFFFFFFFF.generating"), b"half").expect("written");
    open(dir.path(), "p1").await.expect("opens all the same").shutdown().await;
}

#[tokio::test]
async fn two_processes_cannot_share_a_directory() {
    let dir = TempDir::new().expect("a directory");
    let first = open(dir.path(), "p1").await.expect("opens");
    let error = refused(dir.path(), "p1").await;
    assert!(matches!(error, OpenError::Store(StoreError::Locked { .. })), "{error}");
    first.shutdown().await;
}

#[tokio::test]
async fn a_place_that_is_no_directory_is_named() {
    let dir = TempDir::new().expect("a directory");
    let file = dir.path().join("file");
    fs::write(&file, b"").expect("written");
    let error = refused(&file, "p1").await;
    assert!(matches!(error, OpenError::Store(StoreError::Io { .. })), "{error}");
}
