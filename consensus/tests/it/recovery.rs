//! A majority is cut away, alive and committing; the rest is recovered; then the cut heals.

use std::{collections::BTreeSet, time::Duration};

use selvedge_consensus::{
    ProposeError, Replica, Timers,
    recovery::{Draft, RecoverError},
};
use selvedge_fabric::{
    id::NodeName,
    key::{FabricId, TokenId},
    statement::{Recovery, SignedRecovery, Trusted, verify},
};
use tokio::time::{Instant, sleep};

use crate::{
    fabric::{self, holds, name},
    virtual_net::{Cluster, key, signing_key},
};

const PATIENCE: Duration = Duration::from_secs(20);
const BOUND: Duration = Duration::from_secs(30);
/// One cloud; the others hold two of three voters.
const HERE: [&str; 2] = ["p1", "p4"];
const THERE: [&str; 3] = ["p2", "p3", "p5"];

async fn five(seed: u64, timers: Timers) -> Cluster {
    let mut cluster = Cluster::empty(seed);
    cluster.timers = timers;
    cluster.found("p1", "aws").await;
    for (node, cloud) in [("p2", "azr"), ("p3", "gcp"), ("p4", "aws"), ("p5", "azr")] {
        cluster.join(node, cloud).await;
    }
    let seated = |r: &Replica| {
        let status = r.status().borrow().clone();
        status.voters.len() == 3 && status.learners.len() == 2
    };
    cluster.until("three voters and two learners", seated).await;
    cluster
}

async fn write(replica: &Replica) -> TokenId {
    let id = TokenId(rand::random());
    replica.propose(fabric::write(id), PATIENCE).await.expect("written");
    id
}

async fn writes(cluster: &Cluster, node: &str, count: usize) -> Vec<TokenId> {
    let replica = cluster.net.replica(node);
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(write(&replica).await);
    }
    ids
}

fn sign(draft: &Draft, at_ms: u64) -> SignedRecovery {
    let (base, voters) = (draft.plan.base, draft.plan.voters.clone());
    Recovery { fabric: draft.fabric, base, voters, at_ms }.sign(&signing_key("recovery"))
}

/// Waits until the majority is missed, and recovers on `node`.
async fn recover(cluster: &Cluster, node: &str, random: u32) -> (Draft, SignedRecovery) {
    let replica = cluster.net.replica(node);
    let mut status = replica.status();
    let lost = tokio::time::timeout(Duration::from_secs(10), status.wait_for(|s| s.lost.is_some()));
    let named = lost.await.is_ok();
    assert!(named, "{node} does not name it within 10 s: {:?}", *status.borrow());
    drop(status);
    let started = Instant::now();
    let draft = replica.draft_recovery(&BTreeSet::new(), random).await.expect("a draft");
    let signed = sign(&draft, 5);
    let recovered = replica.recover(signed.clone()).await.expect("recovered");
    assert!(started.elapsed() < BOUND, "{:?}", started.elapsed());
    assert_eq!(recovered.missing, Vec::new());
    (draft, signed)
}

async fn all_agree(cluster: &Cluster, epoch: u64) {
    cluster.until("the new epoch everywhere", |r| r.status().borrow().fence_epoch == epoch).await;
    let whole = |r: &Replica| {
        let status = r.status().borrow().clone();
        status.quorum && status.voters.len() == 3 && status.voters.len() + status.learners.len() == 5
    };
    cluster.until("everybody is back and three vote", whole).await;
    for replica in cluster.replicas() {
        replica.barrier(PATIENCE).await.expect("a quorum");
    }
    let hashes: Vec<_> = cluster.replicas().iter().map(|r| r.policy().borrow().intent_hash()).collect();
    assert!(hashes.windows(2).all(|pair| pair[0] == pair[1]), "the replicas differ");
}

fn check(cluster: &Cluster, kept: &[TokenId], gone: &[TokenId]) {
    for replica in cluster.replicas() {
        let policy = replica.policy().borrow().clone();
        assert!(kept.iter().all(|id| holds(&policy, *id)), "an acknowledged write of the survivors is lost");
        assert!(!gone.iter().any(|id| holds(&policy, *id)), "an entry of the other side was merged");
    }
}

/// One run; the seed decides delays and elections.
async fn run(seed: u64) {
    let cluster = five(seed, Timers::default()).await;
    let before = writes(&cluster, "p4", 4).await;
    for replica in cluster.replicas() {
        replica.barrier(PATIENCE).await.expect("a quorum");
    }
    cluster.net.part(&HERE);
    let lost = writes(&cluster, "p5", 5).await;
    let refused = cluster.net.replica("p1").propose(fabric::write(TokenId([7; 9])), PATIENCE).await;
    assert!(
        matches!(refused, Err(ProposeError::NoQuorum { .. } | ProposeError::OutcomeUnknown)),
        "{refused:?}"
    );

    let (draft, signed) = recover(&cluster, "p4", 3).await;
    let reached: Vec<&NodeName> =
        draft.parties.iter().filter(|p| p.position.is_some()).map(|p| &p.name).collect();
    assert_eq!(reached, [&name("p1"), &name("p4")]);
    let kept = [before, writes(&cluster, "p1", 5).await].concat();
    // The old majority does not know yet, and goes on.
    let lost = [lost, writes(&cluster, "p3", 2).await].concat();

    cluster.net.heal();
    all_agree(&cluster, signed.epoch()).await;
    let kept = [kept, writes(&cluster, "p3", 2).await].concat();
    all_agree(&cluster, signed.epoch()).await;
    check(&cluster, &kept, &lost);

    let lists = cluster.net.replica("p1").lost().await;
    let of: BTreeSet<_> = lists.iter().map(|(node, _)| node.as_str().to_owned()).collect();
    assert_eq!(of, THERE.map(str::to_owned).into());
    for (node, list) in &lists {
        assert_eq!((list.ended, list.began), (0, signed.epoch()));
        let committed = list.entries.iter().filter(|e| e.committed).count();
        assert_eq!(committed, lost.len(), "{node}: {:?}", list.entries);
        assert!(list.entries.iter().all(|e| e.actor == "local:0" && e.revision.is_some()), "{list:?}");
    }
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn the_survivors_go_on_and_the_old_majority_is_fenced_when_it_returns() {
    for seed in 500..503 {
        run(seed).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_recovery_survives_restarts_and_convinces_who_followed_the_old_epoch() {
    let timers = Timers { snapshot_entries: 20, keep_entries: 5, ..Timers::default() };
    let cluster = five(511, timers).await;
    let outsider = cluster.net.replica("p1").voters().expect("voters");
    let before = writes(&cluster, "p1", 30).await;
    cluster.net.part(&HERE);
    // So many that the other side no longer has the log that leads to the base.
    let lost = writes(&cluster, "p2", 60).await;
    let (_, signed) = recover(&cluster, "p1", 9).await;
    for node in HERE {
        cluster.stop(node).await;
        cluster.start(node).await;
    }
    let kept = [before, writes(&cluster, "p4", 3).await].concat();
    cluster.net.heal();
    all_agree(&cluster, signed.epoch()).await;
    for node in ["p1", "p3"] {
        cluster.stop(node).await;
        cluster.start(node).await;
    }
    all_agree(&cluster, signed.epoch()).await;
    check(&cluster, &kept, &lost);
    let lists = cluster.net.replica("p4").lost().await;
    let revisions = |node: &str| -> BTreeSet<u64> {
        let of_node = lists.iter().filter(|(n, _)| *n == name(node));
        of_node.flat_map(|(_, l)| l.entries.iter().filter_map(|e| e.revision)).collect()
    };
    assert!(revisions("p2").len() >= lost.len(), "what its snapshot swallowed is listed from the history");

    let trusted = Trusted { fabric: FabricId([1; 16]), epoch: 0, voters: outsider.clone() };
    let bundle = cluster.net.replica("p3").bundle(0, 1_000, outsider.sequence, PATIENCE).await;
    let bundle = bundle.expect("a proof").expect("of the new epoch");
    let proved = verify(&bundle, &trusted, Some(&key("recovery")), 1_000).expect("it convinces");
    assert_eq!(proved.voters.epoch, signed.epoch());
    assert!(verify(&bundle, &trusted, None, 0).is_err(), "the statement is what convinces");
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_recoveries_that_knew_nothing_of_each_other_one_wins() {
    let cluster = five(521, Timers::default()).await;
    let before = writes(&cluster, "p1", 3).await;
    for node in ["p2", "p3", "p4", "p5"] {
        cluster.net.replica(node).barrier(PATIENCE).await.expect("a quorum");
    }
    // Two voters die, and the third and the rest are parted.
    for node in ["p1", "p2"] {
        cluster.stop(node).await;
    }
    cluster.net.part(&["p4", "p5"]);
    let (_, low) = recover(&cluster, "p3", 1).await;
    let (_, high) = recover(&cluster, "p4", 2).await;
    assert!(low.epoch() < high.epoch());
    let gone = writes(&cluster, "p3", 2).await;
    let kept = [before, writes(&cluster, "p5", 2).await].concat();
    cluster.net.heal();
    for node in ["p1", "p2"] {
        cluster.start(node).await;
    }
    all_agree(&cluster, high.epoch()).await;
    check(&cluster, &kept, &gone);
    let lists = cluster.net.replica("p5").lost().await;
    assert!(lists.iter().any(|(n, l)| *n == name("p3") && l.ended == low.epoch()), "{lists:?}");
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_need_or_the_key_nothing_is_recovered() {
    let cluster = Cluster::of_three(531).await;
    let replica = cluster.net.replica("p1");
    replica.barrier(PATIENCE).await.expect("a quorum");
    let refused = replica.draft_recovery(&BTreeSet::new(), 1).await;
    assert!(matches!(refused, Err(RecoverError::Quorum)), "{refused:?}");
    cluster.net.part(&["p1"]);
    sleep(Duration::from_secs(5)).await;
    let draft = replica.draft_recovery(&BTreeSet::new(), 1).await.expect("a draft");
    let genuine = sign(&draft, 1);
    let forged = genuine.recovery.clone().sign(&signing_key("p1"));
    assert!(matches!(replica.recover(forged).await, Err(RecoverError::Fence(_))));
    let mut other = genuine.recovery.clone();
    other.base.image.0[0] ^= 1;
    let other = other.sign(&signing_key("recovery"));
    assert!(matches!(replica.recover(other).await, Err(RecoverError::NoState)));
    assert_eq!(replica.status().borrow().fence_epoch, 0);
    cluster.net.heal();
    replica.barrier(PATIENCE).await.expect("nothing has happened");
    drop(replica);
    cluster.end().await;
}
