//! Elections, refusals without a quorum, restarts; in virtual time.

use std::time::Duration;

use selvedge_consensus::{NO_LEADER_PATIENCE, ProposeError, TransferError};
use selvedge_fabric::{command::Command, key::TokenId};
use tokio::time::{Instant, sleep};

use crate::{
    fabric::{self, holds, name, propose},
    virtual_net::{Cluster, key},
};

const PATIENCE: Duration = Duration::from_secs(20);

#[tokio::test(start_paused = true)]
async fn one_node_starts_writes_and_comes_back_alone() {
    let cluster = Cluster::empty(1);
    cluster.found("p1", "aws").await;
    let id = TokenId([1; 9]);
    let replica = cluster.net.replica("p1");
    let applied = replica.propose(fabric::write(id), PATIENCE).await.expect("written");
    assert!(holds(&replica.policy().borrow(), id));
    drop(replica);
    cluster.stop("p1").await;

    let replica = cluster.start("p1").await;
    assert_eq!(replica.policy().borrow().revision, applied.revision, "published before anybody leads");
    assert_eq!(replica.barrier(PATIENCE).await, Ok(applied.revision));
    drop(replica);
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_proposal_is_applied_once() {
    let cluster = Cluster::of_three(2).await;
    let proposal = fabric::write(TokenId([2; 9]));
    let first = cluster.net.replica("p2").propose(proposal.clone(), PATIENCE).await.expect("written");
    let again = cluster.net.replica("p3").propose(proposal, PATIENCE).await.expect("remembered");
    assert_eq!(first, again);
    let refused = cluster.net.replica("p2").propose(fabric::init("p9", "aws", key("p9")), PATIENCE).await;
    assert!(matches!(refused, Err(ProposeError::Refused(_))), "{refused:?}");
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_voter_that_returns_does_not_depose_the_leader() {
    let cluster = Cluster::of_three(3).await;
    let leader = cluster.leader().await;
    let term = cluster.net.replica(leader.as_str()).status().borrow().term;
    let others: Vec<_> = ["p1", "p2", "p3"].into_iter().filter(|n| *n != leader.as_str()).collect();
    for cycle in 0..20 {
        cluster.net.cut(&name(others[cycle % 2]));
        sleep(Duration::from_secs(5)).await;
        cluster.net.heal();
        sleep(Duration::from_secs(3)).await;
        let status = cluster.net.replica(others[cycle % 2]).status().borrow().clone();
        assert_eq!((status.leader.as_ref(), status.term), (Some(&leader), term), "cycle {cycle}");
    }
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_leader_is_followed_by_another_within_a_second_and_a_half() {
    let cluster = Cluster::of_three(4).await;
    let leader = cluster.leader().await;
    let survivor = if leader == name("p2") { "p3" } else { "p2" };
    cluster.net.cut(&leader);
    let start = Instant::now();
    let written = cluster.net.replica(survivor).propose(fabric::write(TokenId([4; 9])), PATIENCE).await;
    let gap = start.elapsed();
    written.expect("written under a new leader");
    // Virtual time: how long the protocol waits, whatever the machine does.
    assert!(gap < Duration::from_millis(1_500), "{gap:?}");
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_known_to_be_dead_is_followed_by_another_before_its_time_is_out() {
    for seed in 40..45 {
        let cluster = Cluster::of_three(seed).await;
        let leader = cluster.leader().await;
        let survivor = if leader == name("p2") { "p3" } else { "p2" };
        cluster.net.cut(&leader);
        let start = Instant::now();
        sleep(Duration::from_millis(250)).await;
        cluster.hold_for_dead(&leader);
        let written = cluster.net.replica(survivor).propose(fabric::write(TokenId([4; 9])), PATIENCE).await;
        written.expect("written under a new leader");
        // Virtual time, as above; alone the time-out is 600 ms.
        assert!(start.elapsed() < Duration::from_millis(600), "seed {seed}: {:?}", start.elapsed());
        cluster.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn leadership_goes_to_the_voter_of_ones_choice() {
    let cluster = Cluster::of_three(47).await;
    let all = ["p1", "p2", "p3"].map(name);
    for turn in 0..6 {
        let (from, to) = (&all[turn % 3], &all[(turn + 1) % 3]);
        // Whoever is asked, and whoever led before.
        let asked = cluster.net.replica(from.as_str());
        asked.transfer(to).await.expect("it is taken");
        assert_eq!(cluster.leader().await, *to, "turn {turn}");
        asked.propose(fabric::write(TokenId(rand::random())), PATIENCE).await.expect("written");
    }
    let leader = cluster.leader().await;
    let refused = cluster.net.replica(leader.as_str()).transfer(&name("p9")).await;
    assert_eq!(refused, Err(TransferError::NotAVoter(name("p9"))));
    let other = all.iter().find(|node| **node != leader).expect("another");
    cluster.net.cut(other);
    sleep(Duration::from_secs(3)).await;
    let refused = cluster.net.replica(leader.as_str()).transfer(other).await;
    assert_eq!(refused, Err(TransferError::Silent(other.clone())));
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_stops_hands_over_first_and_writes_go_on() {
    let cluster = Cluster::of_three(48).await;
    let leader = cluster.leader().await;
    let survivor = cluster.net.replica(if leader == name("p2") { "p3" } else { "p2" });
    let retiring = cluster.net.replica(leader.as_str());
    let start = Instant::now();
    let writing = survivor.propose(fabric::write(TokenId([8; 9])), PATIENCE);
    let (written, ()) = tokio::join!(writing, retiring.retire());
    drop((survivor, retiring));
    written.expect("nobody is refused");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert_ne!(cluster.leader().await, leader);
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_living_leader_is_kept_whatever_failure_detection_says() {
    let cluster = Cluster::of_three(46).await;
    let leader = cluster.leader().await;
    let term = cluster.net.replica(leader.as_str()).status().borrow().term;
    cluster.hold_for_dead(&leader);
    sleep(Duration::from_secs(30)).await;
    for replica in cluster.replicas() {
        let status = replica.status().borrow().clone();
        assert_eq!((status.leader.as_ref(), status.term), (Some(&leader), term));
    }
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_quorum_a_write_is_refused_in_time_and_names_who_is_missing() {
    let cluster = Cluster::of_three(5).await;
    let leader = cluster.leader().await;
    let dead: Vec<_> = ["p1", "p2", "p3"].into_iter().filter(|n| *n != leader.as_str()).collect();
    for cut in [&dead[..], &[leader.as_str(), dead[0]]] {
        cut.iter().for_each(|node| cluster.net.cut(&name(node)));
        sleep(Duration::from_secs(3)).await;
        let alive = ["p1", "p2", "p3"].into_iter().find(|n| !cut.contains(n)).expect("one is left");
        let replica = cluster.net.replica(alive);
        let start = Instant::now();
        let refused = replica.propose(fabric::write(TokenId(rand::random())), PATIENCE).await;
        assert!(start.elapsed() <= NO_LEADER_PATIENCE + Duration::from_secs(1), "{:?}", start.elapsed());
        let Err(ProposeError::NoQuorum { missing, remedy }) = refused else { panic!("{refused:?}") };
        let expected: Vec<_> = cut.iter().map(|n| name(n)).collect();
        let mut missing = missing;
        missing.sort();
        let mut expected = expected;
        expected.sort();
        assert_eq!(missing, expected);
        assert!(remedy.contains("quorum recover --recovery-key"));
        assert!(matches!(replica.barrier(PATIENCE).await, Err(ProposeError::NoQuorum { .. })));
        let status = replica.status().borrow().clone();
        assert!(!status.quorum && status.leader.is_none(), "{status:?}");
        assert!(cluster.events.tells("quorum-lost"));
        cluster.net.heal();
        let after = replica.propose(fabric::write(TokenId(rand::random())), PATIENCE).await;
        after.expect("writes go on");
    }
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_write_that_was_appended_without_a_quorum_is_unknown() {
    let cluster = Cluster::of_three(6).await;
    let leader = cluster.leader().await;
    let replica = cluster.net.replica(leader.as_str());
    ["p1", "p2", "p3"].iter().filter(|n| **n != leader.as_str()).for_each(|n| cluster.net.cut(&name(n)));
    let outcome = replica.propose(fabric::write(TokenId([6; 9])), Duration::from_secs(6)).await;
    assert_eq!(outcome, Err(ProposeError::OutcomeUnknown));
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn all_voters_restart_from_disk() {
    let cluster = Cluster::of_three(7).await;
    let id = TokenId([7; 9]);
    let written = cluster.net.replica("p2").propose(fabric::write(id), PATIENCE).await.expect("written");
    for node in ["p1", "p2", "p3"] {
        cluster.stop(node).await;
    }
    for node in ["p1", "p2", "p3"] {
        cluster.start(node).await;
    }
    assert!(cluster.net.replica("p3").barrier(PATIENCE).await.expect("a leader") >= written.revision);
    assert!(holds(&cluster.net.replica("p3").policy().borrow(), id));
    cluster.end().await;
}

/// Voters that start so far apart that no answer comes within the shortest time-outs, and that have not
/// measured yet how far that is; and who led before does not come back.
#[tokio::test(start_paused = true)]
async fn voters_far_apart_elect_from_cold() {
    for (seed, one_way_ms) in [(9, 110), (10, 150), (11, 250)] {
        let what = format!("{one_way_ms} ms one way");
        let cluster = Cluster::of_three(seed).await;
        let dead = cluster.leader().await;
        let mut nodes = ["p1", "p2", "p3"];
        // It goes last, so that nobody leads after it.
        nodes.sort_by_key(|node| *node == dead.as_str());
        for node in nodes {
            cluster.stop(node).await;
            cluster.net.slow(&name(node), Duration::from_millis(one_way_ms));
        }
        let started = Instant::now();
        for node in &nodes[..2] {
            cluster.start(node).await;
        }
        let leads = |node: &&&str| cluster.net.replica(node).status().borrow().leader == Some(name(node));
        while !nodes[..2].iter().any(|node| leads(&node)) {
            assert!(started.elapsed() < PATIENCE * 2, "{what}: nobody leads");
            sleep(Duration::from_millis(100)).await;
        }
        let leader = name(nodes[..2].iter().find(leads).expect("one leads"));
        println!("{what}: a leader after {:?}", started.elapsed());
        let replica = cluster.net.replica(leader.as_str());
        let deadline = Instant::now() + PATIENCE * 2;
        while let Err(error) = replica.propose(fabric::write(TokenId(rand::random())), PATIENCE).await {
            assert!(Instant::now() < deadline, "{what}: {error}");
        }
        println!("{what}: written after {:?}", started.elapsed());
        // And it stays so, once they have measured.
        sleep(Duration::from_secs(60)).await;
        let term = replica.status().borrow().term;
        sleep(Duration::from_secs(60)).await;
        let status = replica.status().borrow().clone();
        assert_eq!((status.leader.as_ref(), status.term), (Some(&leader), term), "{what}");
        assert!(status.quorum, "{what}");
        drop(replica);
        cluster.end().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_voter_is_replaced_in_its_own_cloud_only() {
    let cluster = Cluster::of_three(8).await;
    for (node, cloud) in [("q1", "aws"), ("q2", "azr"), ("q3", "gcp")] {
        cluster.join(node, cloud).await;
    }
    cluster.until("three learners", |r| r.status().borrow().learners.len() == 3).await;
    let leader = cluster.leader().await;
    let (dead, heir) = if leader == name("p2") { ("p3", "q3") } else { ("p2", "q2") };
    cluster.stop(dead).await;
    cluster
        .until("the heir votes", |r| r.status().borrow().voters.iter().any(|v| v.name == name(heir)))
        .await;
    let status = cluster.net.replica(leader.as_str()).status().borrow().clone();
    assert_eq!(status.survives[0], "any one of aws, azr, gcp");

    // The heir dies too: nobody is left in that cloud, so the seat stays.
    cluster.stop(heir).await;
    sleep(Duration::from_secs(60)).await;
    let status = cluster.net.replica(leader.as_str()).status().borrow().clone();
    assert!(status.voters.iter().any(|v| v.name == name(heir) && !v.live), "{status:#?}");
    assert_eq!(status.voters.len(), 3);
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_revoked_processor_is_no_member_any_more() {
    let cluster = Cluster::of_three(9).await;
    let leader = cluster.leader().await;
    let gone = if leader == name("p2") { "p3" } else { "p2" };
    let revoke =
        Command::SetNodeState { node: name(gone), state: selvedge_fabric::command::AdmissionState::Revoked };
    let replica = cluster.net.replica(leader.as_str());
    replica.propose(propose(revoke), PATIENCE).await.expect("revoked");
    cluster.net.cut(&name(gone));
    for _ in 0..600 {
        let status = replica.status().borrow().clone();
        if status.voters.iter().chain(&status.learners).all(|member| member.name != name(gone)) {
            return cluster.end().await;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("{:#?}", replica.status().borrow().clone());
}
