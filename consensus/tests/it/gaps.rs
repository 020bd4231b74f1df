//! How long a fabric is without a leader when its leader dies, again and again; in virtual time.
//!
//! A node that starts is slow at first: it reads its log, its peers shake hands with it anew, and often
//! a whole cloud starts at once. That must not be taken for the distance between the voters, by which the
//! patience of an election is measured.

use std::time::Duration;

use selvedge_fabric::key::TokenId;
use tokio::time::{Instant, sleep};

use crate::{
    fabric::{self, name},
    virtual_net::Cluster,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// How slow a node answers that has just been started, and for how long.
const SLOW: Duration = Duration::from_millis(350);
const SLOW_FOR: Duration = Duration::from_millis(3_000);
/// No gap may be longer; when slow starts counted as distance, half of them were longer than four seconds.
const LONGEST: Duration = Duration::from_secs(3);

/// Kills the leader `kills` times; returns how long each time no write was accepted, shortest first.
async fn gaps(seed: u64, kills: usize) -> Vec<Duration> {
    let cluster = Cluster::of_three(seed).await;
    let mut gaps = Vec::new();
    for _ in 0..kills {
        let leader = cluster.leader().await;
        let survivors: Vec<_> = ["p1", "p2", "p3"].into_iter().filter(|n| *n != leader.as_str()).collect();
        let through = survivors[cluster.net.choose(2)];
        cluster.net.cut(&leader);
        let start = Instant::now();
        let write = fabric::write(TokenId(rand::random()));
        cluster.net.replica(through).propose(write, PATIENCE).await.expect("written");
        gaps.push(start.elapsed());
        cluster.stop(leader.as_str()).await;
        cluster.net.slow(&name(leader.as_str()), SLOW);
        cluster.net.heal();
        cluster.start(leader.as_str()).await;
        sleep(SLOW_FOR).await;
        cluster.net.slow(&name(leader.as_str()), Duration::ZERO);
        sleep(Duration::from_millis(2_000 + 100 * cluster.net.choose(30) as u64)).await;
    }
    cluster.end().await;
    gaps.sort();
    gaps
}

#[tokio::test(start_paused = true)]
async fn slow_starts_do_not_lengthen_elections() {
    let kills = std::env::var("SELVEDGE_LEADER_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(8);
    let mut all = Vec::new();
    for seed in 20..25 {
        all.extend(gaps(seed, kills).await);
    }
    all.sort();
    let at = |percent: usize| all[(all.len() - 1) * percent / 100];
    println!(
        "{} leaders killed: least {:?}, median {:?}, p95 {:?}, largest {:?}",
        all.len(),
        at(0),
        at(50),
        at(95),
        at(100)
    );
    assert!(at(100) <= LONGEST, "{all:?}");
}
