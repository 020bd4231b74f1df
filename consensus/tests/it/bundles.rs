//! Policy bundles from real replicas: a majority signs, the chain of voters holds, an outsider is
//! convinced.

use std::time::Duration;

use selvedge_consensus::{NoBundle, Replica};
use selvedge_fabric::{
    key::{FabricId, TokenId},
    statement::{Trusted, Verified, VoterSet, verify},
};

use crate::{fabric, fabric::name, virtual_net::Cluster};

const PATIENCE: Duration = Duration::from_secs(20);

fn trusted(voters: VoterSet) -> Trusted {
    Trusted { fabric: FabricId([1; 16]), epoch: voters.epoch, voters }
}

/// What an outsider that trusts `voters` and has revision `have` is convinced of.
async fn convince(replica: &Replica, voters: &VoterSet, have: u64) -> Verified {
    let bundle = replica
        .bundle(voters.epoch, have, voters.sequence, PATIENCE)
        .await
        .expect("a proof")
        .expect("a newer policy");
    verify(&bundle, &trusted(voters.clone()), None, have).expect("it convinces")
}

async fn write(replica: &Replica) -> TokenId {
    let id = TokenId(rand::random());
    replica.propose(fabric::write(id), PATIENCE).await.expect("written");
    id
}

#[tokio::test(start_paused = true)]
async fn any_processor_proves_the_policy_to_who_joined_at_the_start() {
    let cluster = Cluster::empty(31);
    cluster.found("p1", "aws").await;
    let first = cluster.net.replica("p1").voters().expect("the first node");
    assert_eq!((first.sequence, first.voters.len()), (1, 1));
    cluster.join("p2", "azr").await;
    cluster.join("p3", "gcp").await;
    cluster.until("three voters", |replica| replica.status().borrow().voters.len() == 3).await;
    cluster.join("p4", "gcp").await;
    let id = write(&cluster.net.replica("p2")).await;
    let revision = cluster.net.replica("p2").barrier(PATIENCE).await.expect("a quorum");
    for node in ["p1", "p2", "p3", "p4"] {
        let replica = cluster.net.replica(node);
        let mut have = 0;
        let mut voters = first.clone();
        while have < revision || voters.voters.len() < 3 {
            let proved = convince(&replica, &voters, have).await;
            (have, voters) = (proved.policy.revision, proved.voters);
            assert!(have < revision || proved.policy.api_tokens.contains_key(&id), "{node}");
        }
        assert_eq!(
            replica.bundle(0, have, voters.sequence, Duration::from_millis(50)).await,
            Ok(None),
            "nothing newer"
        );
    }
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn bundles_keep_up_with_a_stream_of_writes() {
    let cluster = Cluster::of_three(32).await;
    let writer = cluster.net.replica("p1");
    let reader = cluster.net.replica("p3");
    let voters = reader.voters().expect("voters");
    let writes = async {
        for _ in 0..200 {
            write(&writer).await;
        }
    };
    let follow = async {
        let mut have = 0;
        let mut times = 0;
        while times < 5 {
            have = convince(&reader, &voters, have).await.policy.revision;
            times += 1;
        }
    };
    tokio::join!(writes, follow);
    drop((writer, reader));
    cluster.end().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_majority_nothing_new_is_proved_and_what_was_is_still_given() {
    let cluster = Cluster::of_three(33).await;
    let replica = cluster.net.replica("p1");
    write(&replica).await;
    let revision = replica.barrier(PATIENCE).await.expect("a quorum");
    let voters = replica.voters().expect("voters");
    let mut have = 0;
    while have < revision {
        have = convince(&replica, &voters, have).await.policy.revision;
    }
    cluster.net.cut(&name("p2"));
    cluster.net.cut(&name("p3"));
    assert_eq!(convince(&replica, &voters, 0).await.policy.revision, have, "known proofs need nobody");
    drop(replica);
    cluster.stop("p1").await;
    let restarted = cluster.start("p1").await;
    let alone = restarted.bundle(0, 0, voters.sequence, Duration::from_secs(3)).await;
    assert_eq!(alone, Err(NoBundle::NoMajority));
    cluster.net.heal();
    assert_eq!(
        convince(&restarted, &voters, 0).await.policy.revision,
        have,
        "signed again after the restart"
    );
    drop(restarted);
    cluster.end().await;
}
