use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _};

use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    command::Role,
    key::{FabricId, Signer},
    policy::{Admission, FabricParams},
    statement::Revocation,
};

use super::*;

const FABRIC: FabricId = FabricId([1; 16]);

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

fn name(text: &str) -> NodeName {
    NodeName::new(text).expect("a name")
}

/// A fabric with the node `p2`, whose recovery key is `key(9)`.
fn policy(state: AdmissionState) -> Arc<PolicyState> {
    let params = FabricParams {
        name: name("test"),
        id: FABRIC,
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd; 6],
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        recovery_key: key(9).public_key(),
        created_ms: 0,
    };
    let admission = Admission {
        key: key(2).public_key(),
        sealing_key: PublicKey([0; 32]),
        role: Role::Processor,
        zone: "aws".parse().expect("a zone"),
        state,
        block: 1,
        token: None,
        admitted_ms: 0,
    };
    let nodes = BTreeMap::from([(name("p2"), admission)]);
    Arc::new(PolicyState { params: Some(params), nodes, ..PolicyState::default() })
}

fn signed(by: u8) -> SignedRevocation {
    let revocation =
        Revocation { fabric: FABRIC, epoch: 0, node: name("p2"), key: key(2).public_key(), at_ms: 1 };
    revocation.sign(&key(by))
}

struct Bench {
    dir: tempfile::TempDir,
    agreed: watch::Sender<Arc<PolicyState>>,
    events: Events,
}

impl Bench {
    fn new(policy: Arc<PolicyState>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { dir, agreed: watch::channel(policy).0, events: Events::default() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("revocations.json")
    }

    fn open(&self) -> Arc<EmergencyRevocations> {
        let (path, agreed) = (self.path(), self.agreed.subscribe());
        EmergencyRevocations::open(path, agreed, self.events.clone()).expect("opens").0
    }
}

fn state_of(revocations: &EmergencyRevocations) -> AdmissionState {
    revocations.enforced().borrow().nodes[&name("p2")].state
}

#[test]
fn a_revocation_outlives_a_restart_and_ends_with_the_policy() {
    let bench = Bench::new(policy(AdmissionState::Active));
    let first = bench.open();
    assert_eq!(first.take(signed(9)), Ok(Taken::New));
    assert_eq!(first.take(signed(9)), Ok(Taken::Known));
    assert_eq!(state_of(&first), AdmissionState::Revoked);
    let mode = std::fs::metadata(bench.path()).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let again = bench.open();
    assert_eq!(state_of(&again), AdmissionState::Revoked);
    bench.agreed.send_replace(policy(AdmissionState::Revoked));
    again.follow();
    assert!(again.known().borrow().is_empty() && !bench.path().exists());
    assert_eq!(state_of(&again), AdmissionState::Revoked, "by policy now");
}

#[test]
fn only_the_recovery_key_is_believed() {
    let bench = Bench::new(policy(AdmissionState::Active));
    let revocations = bench.open();
    assert_eq!(revocations.take(signed(2)), Err(RevocationError::Signature(name("p2"))));
    assert_eq!(state_of(&revocations), AdmissionState::Active);
    let forged = serde_json::to_vec(&[signed(2)]).expect("JSON");
    files::write_private(&bench.path(), &forged).expect("written");
    assert_eq!(state_of(&bench.open()), AdmissionState::Active);
    files::write_private(&bench.path(), b"no JSON").expect("written");
    let opened = EmergencyRevocations::open(bench.path(), bench.agreed.subscribe(), Events::default());
    assert!(opened.is_err(), "fails closed");
}

#[test]
fn what_was_on_disk_waits_for_the_policy() {
    let bench = Bench::new(Arc::default());
    let written = serde_json::to_vec(&[signed(9)]).expect("JSON");
    files::write_private(&bench.path(), &written).expect("written");
    let revocations = bench.open();
    bench.agreed.send_replace(policy(AdmissionState::Active));
    revocations.follow();
    assert_eq!(state_of(&revocations), AdmissionState::Revoked);
}

#[tokio::test]
async fn what_others_hand_on_counts() {
    let bench = Bench::new(policy(AdmissionState::Active));
    let (path, agreed) = (bench.path(), bench.agreed.subscribe());
    let (revocations, queue) = EmergencyRevocations::open(path, agreed, bench.events.clone()).expect("opens");
    let mut known = revocations.known();
    let incoming = revocations.incoming();
    let told = async {
        for statement in [signed(2), signed(9)] {
            incoming.send(statement).await.expect("it runs");
        }
        known.wait_for(|known| !known.is_empty()).await.expect("taken");
    };
    tokio::select! {
        () = revocations.clone().run(queue) => panic!("the policy did not end"),
        () = told => {}
    }
    let codes: Vec<_> = bench.events.since(0, 9).into_iter().map(|e| e.code).collect();
    assert_eq!(codes, ["revocation-refused", "emergency-revocation"]);
}
