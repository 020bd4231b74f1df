//! What a follower takes, keeps and refuses.

use std::{collections::BTreeSet, path::Path};

use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    command::Role,
    key::{FabricId, PublicKey, Signer},
    policy::{FabricParams, PolicyState},
    statement::{Bundle, BundleError, Claim, Statement, VoterSet},
};
use selvedge_node::{
    follow::{FollowError, Follower},
    identity::{Identity, Machine},
};

const FABRIC: FabricId = FabricId([1; 16]);

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn voters() -> VoterSet {
    let voters: BTreeSet<_> = [1, 2, 3].map(|n| key(n).public_key()).into();
    VoterSet { epoch: 0, sequence: 1, voters }
}

fn identity(voters: Option<VoterSet>) -> Identity {
    Identity {
        layout: Identity::layout(),
        fabric: "test".parse().unwrap(),
        fabric_id: FABRIC,
        epoch: 0,
        voters,
        recovery_key: None,
        node: "w1".parse().unwrap(),
        role: Role::Workload,
        zone: "aws".parse().unwrap(),
        machine: Machine::this(),
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        node_cert: Vec::new(),
        contacts: Vec::new(),
    }
}

fn bundle(revision: u64, signers: &[u8]) -> Bundle {
    let params = FabricParams {
        name: "test".parse().unwrap(),
        id: FABRIC,
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd; 6],
        ipv4_pool: "127.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        recovery_key: PublicKey([0; 32]),
        created_ms: 0,
    };
    let policy = PolicyState { params: Some(params), revision, ..PolicyState::default() };
    let claim = Claim::of(&policy, &voters()).unwrap();
    let signatures = signers.iter().map(|n| Statement::sign(claim, &key(*n))).map(|s| (s.voter, s.signature));
    Bundle {
        claim,
        signatures: signatures.collect(),
        chain: Vec::new(),
        policy: Bundle::policy_bytes(&policy),
        recovery: None,
    }
}

fn open(path: &Path) -> (Follower, Option<String>) {
    Follower::open(&identity(Some(voters())), path.to_owned()).unwrap()
}

#[tokio::test]
async fn what_was_proved_is_there_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.bundle");
    let (follower, problem) = open(&path);
    assert_eq!((follower.policy().borrow().revision, problem), (0, None));
    assert_eq!(follower.take(bundle(5, &[1, 3]).encode()).await.unwrap(), 5);
    assert_eq!(follower.policy().borrow().revision, 5);
    let (again, problem) = open(&path);
    assert_eq!((again.policy().borrow().revision, problem), (5, None));
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn an_older_or_altered_or_unsigned_policy_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.bundle");
    let (follower, _) = open(&path);
    follower.take(bundle(5, &[1, 2]).encode()).await.unwrap();
    let kept = std::fs::read(&path).unwrap();
    let altered = Bundle { policy: bundle(6, &[1]).policy, ..bundle(5, &[1, 2]) };
    for refused in [bundle(4, &[1, 2, 3]), bundle(6, &[1]), bundle(6, &[1, 9]), altered] {
        let error = follower.take(refused.encode()).await.unwrap_err();
        assert!(matches!(error, FollowError::Bundle(_)), "{error}");
    }
    let error = follower.take(b"nonsense".to_vec()).await.unwrap_err();
    assert!(matches!(error, FollowError::Bundle(BundleError::Malformed(_))), "{error}");
    assert_eq!(follower.policy().borrow().revision, 5);
    assert_eq!(std::fs::read(&path).unwrap(), kept);
}

#[tokio::test]
async fn a_damaged_copy_is_reported_and_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.bundle");
    let (follower, _) = open(&path);
    follower.take(bundle(5, &[1, 2]).encode()).await.unwrap();
    let kept = std::fs::read(&path).unwrap();
    for at in [0, 1, kept.len() / 2, kept.len() - 1] {
        let mut damaged = kept.clone();
        damaged[at] ^= 0xff;
        std::fs::write(&path, damaged).unwrap();
        let (follower, problem) = open(&path);
        assert!(problem.is_some() && follower.policy().borrow().params.is_none(), "byte {at}");
    }
    std::fs::write(&path, &kept[..kept.len() / 2]).unwrap();
    assert!(open(&path).1.is_some());
    std::fs::remove_file(&path).unwrap();
    let (follower, _) = open(&path);
    assert_eq!(follower.take(bundle(6, &[2, 3]).encode()).await.unwrap(), 6);
}

#[tokio::test]
async fn a_full_disk_does_not_hold_up_a_policy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gone").join("policy.bundle");
    let (follower, _) = open(&path);
    let error = follower.take(bundle(5, &[1, 2]).encode()).await.unwrap_err();
    assert!(matches!(error, FollowError::File(_)), "{error}");
    assert_eq!(follower.policy().borrow().revision, 5, "in force, though not kept");
}

#[test]
fn an_identity_without_voters_must_join_again() {
    let refused = Follower::open(&identity(None), "policy.bundle".into()).err().unwrap();
    assert!(refused.to_string().contains("join again"), "{refused}");
}
