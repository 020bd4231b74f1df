//! Acknowledged writes survive partitions, losses, repetitions and crashes. Seeded: a failing seed
//! repeats the same faults (the interleaving of syncs is the machine's).

use std::time::Duration;

use selvedge_consensus::Timers;
use selvedge_fabric::key::TokenId;
use tokio::time::sleep;

use crate::{
    fabric::{self, holds, name},
    virtual_net::{Cluster, Weather},
};

const NODES: [&str; 3] = ["p1", "p2", "p3"];
const ROUNDS: usize = 12;
const WRITES_PER_ROUND: usize = 4;

/// One run: faults while writing, then calm, then everything acknowledged must be everywhere.
async fn run(seed: u64) {
    let cluster = Cluster::of_three(seed).await;
    let storm = Weather { max_delay_ms: 40, loss: 0.03, repeat: 0.05 };
    cluster.net.set_weather(storm);
    let mut acknowledged = Vec::new();
    for _ in 0..ROUNDS {
        let victim = NODES[cluster.net.choose(3)];
        let crash = cluster.net.choose(4) == 0;
        if crash {
            cluster.stop(victim).await;
        } else {
            cluster.net.cut(&name(victim));
        }
        for _ in 0..WRITES_PER_ROUND {
            let id = TokenId(rand::random());
            let replicas = cluster.replicas();
            let replica = &replicas[cluster.net.choose(replicas.len())];
            if replica.propose(fabric::write(id), Duration::from_secs(4)).await.is_ok() {
                acknowledged.push(id);
            }
        }
        if crash {
            cluster.start(victim).await;
        }
        cluster.net.heal();
        sleep(Duration::from_millis(500)).await;
    }
    cluster.net.set_weather(Weather { max_delay_ms: 4, ..Weather::default() });
    for replica in cluster.replicas() {
        replica.barrier(Duration::from_secs(30)).await.expect("calm weather");
    }
    let hashes: Vec<_> = cluster.replicas().iter().map(|r| r.policy().borrow().intent_hash()).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}: the replicas differ");
    for replica in cluster.replicas() {
        let policy = replica.policy().borrow().clone();
        let lost = acknowledged.iter().filter(|id| !holds(&policy, **id)).count();
        assert_eq!(lost, 0, "seed {seed}: of {} acknowledged writes", acknowledged.len());
    }
    assert!(acknowledged.len() >= ROUNDS, "seed {seed}: hardly anything was written");
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn acknowledged_writes_survive_partitions_losses_and_crashes() {
    for seed in 100..104 {
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_was_away_for_long_catches_up_by_snapshot() {
    let mut cluster = Cluster::empty(11);
    cluster.timers = Timers { snapshot_entries: 20, keep_entries: 5, ..Timers::default() };
    cluster.found("p1", "aws").await;
    cluster.join("p2", "azr").await;
    cluster.join("p3", "gcp").await;
    cluster.until("three voters", |replica| replica.status().borrow().voters.len() == 3).await;
    let leader = cluster.leader().await;
    let away = if leader == name("p3") { "p2" } else { "p3" };
    cluster.net.cut(&name(away));
    let mut last = TokenId([0; 9]);
    for _ in 0..120 {
        last = TokenId(rand::random());
        let replica = cluster.net.replica(leader.as_str());
        replica.propose(fabric::write(last), Duration::from_secs(20)).await.expect("written");
    }
    cluster.net.heal();
    cluster.until("the snapshot is there", |replica| holds(&replica.policy().borrow(), last)).await;
    cluster.stop(away).await;
    let replica = cluster.start(away).await;
    assert!(holds(&replica.policy().borrow(), last), "it is on its disk too");
    drop(replica);
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_large_command_goes_through_and_too_large_a_one_is_refused() {
    let cluster = Cluster::of_three(12).await;
    let big = |bytes: usize| {
        let mut proposal = fabric::write(TokenId(rand::random()));
        proposal.actor = "x".repeat(bytes);
        proposal
    };
    let replica = cluster.net.replica("p2");
    replica.propose(big(3 << 20), Duration::from_secs(60)).await.expect("three megabytes");
    let refused = replica.propose(big(5 << 20), Duration::from_secs(60)).await.expect_err("five");
    assert!(refused.to_string().contains("apply the objects in several steps"), "{refused}");
    for node in NODES {
        let blobs = cluster.dir_of(node).join("store/blobs");
        assert_eq!(std::fs::read_dir(blobs).expect("sled's directory").count(), 0, "nothing evades the sync");
    }
    cluster.end().await;
}
