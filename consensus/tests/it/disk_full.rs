//! A disk that is really full: writes are refused or unknown, nothing acknowledged is lost, and the
//! replica goes on when there is room again.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use selvedge_consensus::ProposeError;
use selvedge_fabric::key::TokenId;
use tempfile::TempDir;

use crate::{
    damage::open,
    fabric::{self, holds},
    power_cut::{run, skip, text},
    virtual_net::key,
};

/// A small file system in memory, unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn make(dir: &Path) -> Result<Self, String> {
        let mount = dir.join("mnt");
        fs::create_dir(&mount).map_err(|e| e.to_string())?;
        run("mount", &["-t", "tmpfs", "-o", "size=12m", "tmpfs", text(&mount)])?;
        Ok(Self(mount))
    }

    fn fill(&self) {
        let _ = fs::write(self.0.join("ballast"), vec![0; 16 << 20]);
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("ballast")).expect("it is there");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.0)]);
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing() {
    let scratch = TempDir::new().expect("a directory");
    let disk = match SmallDisk::make(scratch.path()) {
        Ok(disk) => disk,
        Err(why) => return skip(&why),
    };
    let dir = disk.0.join("replica");
    let replica = open(&dir, "p1").await.expect("opens");
    replica.bootstrap(fabric::init("p1", "aws", key("p1"))).await.expect("a fabric");
    disk.fill();
    let mut acknowledged = Vec::new();
    let mut end = None;
    for _ in 0..2_000 {
        let id = TokenId(rand::random());
        let mut write = fabric::write(id);
        write.actor = "x".repeat(20_000);
        match replica.propose(write, Duration::from_secs(3)).await {
            Ok(_) => acknowledged.push(id),
            Err(error) => {
                end = Some(error);
                break;
            }
        }
    }
    assert!(matches!(end, Some(ProposeError::OutcomeUnknown | ProposeError::NoQuorum { .. })), "{end:?}");
    replica.shutdown().await;
    drop(replica);
    disk.make_room();

    let replica = open(&dir, "p1").await.expect("opens when there is room again");
    replica.barrier(Duration::from_secs(20)).await.expect("leads");
    let policy = replica.policy().borrow().clone();
    assert!(acknowledged.iter().all(|id| holds(&policy, *id)), "of {}", acknowledged.len());
    replica.shutdown().await;
}
