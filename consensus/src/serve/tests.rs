use std::sync::atomic::{AtomicBool, Ordering};

use openraft::raft::AppendEntriesRequest;
use selvedge_fabric::{
    command::{Admit, ApiToken, Command, Rights, Role},
    id::ZoneName,
    key::{CommandId, FabricId, Hash, PublicKey, TokenId},
    policy::FabricParams,
};
use tempfile::TempDir;

use super::*;
use crate::{
    Proposal, ProposeError, Replica,
    store::{Store, sled_engine::SledEngine},
    testing::{FillingDisk, Nobody, key, name, settings},
};

fn proposal(command: Command) -> Proposal {
    Proposal { id: CommandId(rand::random()), actor: "local:0".to_owned(), command }
}

fn init() -> Proposal {
    let params = FabricParams {
        name: name(),
        id: FabricId([1; 16]),
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd, 1, 2, 3, 4, 5],
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: vec![1],
        issuing_cert: vec![2],
        recovery_key: PublicKey([9; 32]),
        created_ms: 1,
    };
    let first = Admit {
        node: name(),
        key: key(),
        sealing_key: PublicKey([3; 32]),
        role: Role::Processor,
        zone: ZoneName::of_cloud(NodeName::new("aws").expect("a name")),
        token: None,
        sealed_issuer: None,
    };
    proposal(Command::Init { params, first })
}

fn write(n: u8) -> Proposal {
    proposal(Command::CreateApiToken(ApiToken {
        id: TokenId([n; 9]),
        name: "ci".to_owned(),
        secret_hash: Hash([0; 32]),
        rights: Rights::Read,
        not_after_ms: 4_000_000_000_000,
    }))
}

async fn ask(replica: &Replica, from: u64, epoch: u64, ask: Ask) -> Answer {
    let body = wire::encode(&Request { epoch, rtt_us: 0, quorum: false, ask }).expect("encodes");
    let peer = NodeName::new("p2").expect("a name");
    let answer = serve(&replica.shared, from, &peer, &body).await.expect("a message");
    wire::decode(&answer).expect("decodes")
}

#[tokio::test]
async fn another_fence_epoch_is_refused_and_the_epoch_survives_a_restart() {
    let dir = TempDir::new().expect("a directory");
    let store = Store::new(Arc::new(SledEngine::open(dir.path(), key().node_id(), &name()).expect("opens")));
    store.set_epoch(3).expect("persisted");
    drop(store);
    let replica = Replica::open_over(settings(dir.path()), Arc::new(Nobody)).await.expect("opens");
    assert_eq!(replica.status().borrow().fence_epoch, 3);
    for foreign in [0, 2, 4] {
        let answer = ask(&replica, 5, foreign, Ask::Leader).await;
        assert!(matches!(answer, Answer::Fenced { epoch: 3, .. }), "{answer:?}");
    }
    assert!(matches!(ask(&replica, 5, 3, Ask::Leader).await, Answer::Leader(_)));
    replica.shutdown().await;
}

#[tokio::test]
async fn nobody_speaks_in_the_name_of_another_leader() {
    let dir = TempDir::new().expect("a directory");
    let replica = Replica::open_over(settings(dir.path()), Arc::new(Nobody)).await.expect("opens");
    let append = AppendEntriesRequest {
        vote: Vote::new_committed(9, 5),
        prev_log_id: None,
        entries: Vec::new(),
        leader_commit: None,
    };
    let answer = ask(&replica, 6, 0, Ask::Append(append)).await;
    assert!(matches!(answer, Answer::Stopped { .. }), "{answer:?}");
    assert_eq!(replica.status().borrow().term, 0);
    replica.shutdown().await;
}

#[tokio::test]
async fn a_snapshot_that_is_none_stops_nobody() {
    let dir = TempDir::new().expect("a directory");
    let replica = Replica::open_over(settings(dir.path()), Arc::new(Nobody)).await.expect("opens");
    let chunk = |offset, data: &[u8], done| {
        let last_log_id = Some(openraft::LogId::new(openraft::CommittedLeaderId::new(9, 5), 7));
        let meta = crate::types::SnapshotMeta {
            last_log_id,
            last_membership: Default::default(),
            snapshot_id: "9-5-7".to_owned(),
        };
        let vote = Vote::new_committed(9, 5);
        Ask::Snapshot(InstallSnapshotRequest { vote, meta, offset, data: data.to_vec(), done })
    };
    let answer = ask(&replica, 5, 0, chunk(1 << 50, b"far out", false)).await;
    assert!(matches!(answer, Answer::Snapshot(Err(_))), "{answer:?}");
    let answer = ask(&replica, 5, 0, chunk(0, b"no ", false)).await;
    assert!(matches!(answer, Answer::Snapshot(Ok(_))), "{answer:?}");
    let answer = ask(&replica, 5, 0, chunk(3, b"snapshot", true)).await;
    assert!(matches!(&answer, Answer::Stopped { why } if why.contains("was not taken")), "{answer:?}");

    let good = crate::image::encode(&Default::default(), &Default::default());
    let answer = ask(&replica, 5, 0, chunk(0, &good, true)).await;
    assert!(matches!(answer, Answer::Snapshot(Ok(_))), "it still takes a good one: {answer:?}");
    assert!(replica.core().stopped().is_none());
    replica.shutdown().await;
}

#[tokio::test]
async fn a_full_disk_ends_acknowledgements_and_loses_none() {
    let dir = TempDir::new().expect("a directory");
    let full = Arc::new(AtomicBool::new(false));
    let inner = SledEngine::open(dir.path(), key().node_id(), &name()).expect("opens");
    let engine = Arc::new(FillingDisk { inner, full: Arc::clone(&full) });
    let replica = Replica::start(settings(dir.path()), engine, Arc::new(Nobody)).await.expect("starts");
    replica.bootstrap(init()).await.expect("a fabric");
    replica.propose(write(1), Duration::from_secs(20)).await.expect("written");

    full.store(true, Ordering::SeqCst);
    let outcome = replica.propose(write(2), Duration::from_secs(3)).await;
    assert!(
        matches!(outcome, Err(ProposeError::OutcomeUnknown | ProposeError::NoQuorum { .. })),
        "{outcome:?}"
    );
    let mut status = replica.status();
    let quorum = {
        let stopped = status.wait_for(|s| s.warning.as_ref().is_some_and(|w| w.contains("has stopped")));
        stopped.await.expect("published").quorum
    };
    assert!(!quorum);
    drop(status);
    replica.shutdown().await;
    drop(replica);

    let again = Replica::open_over(settings(dir.path()), Arc::new(Nobody)).await;
    let replica = again.expect("opens when there is room again");
    replica.barrier(Duration::from_secs(20)).await.expect("leads");
    assert!(replica.policy().borrow().api_tokens.contains_key(&TokenId([1; 9])));
    replica.shutdown().await;
}
