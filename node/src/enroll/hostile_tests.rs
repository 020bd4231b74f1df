//! Bytes of strangers who ask to join, of nodes that renew, and of processors that answer them.

use std::time::Duration;

use selvedge_fabric::{
    command::{JoinToken, Role},
    key::{FabricId, Hash, Signer, TokenId},
    policy::{FabricParams, PolicyState},
    statement::VoterSet,
    token::{JoinTokenText, Secret},
};
use selvedge_fuzz::fuzz;

use super::{JOIN_VERSION, JoinReply, JoinRequest, RenewReply, RenewRequest, answer, server};
use crate::{
    identity::{Contact, Identity},
    pki::{self, FabricCa, NodeKey},
};

const FABRIC: FabricId = FabricId([7; 16]);
const HOUR: Duration = Duration::from_secs(3_600);

fn token(ca: &FabricCa) -> JoinTokenText {
    JoinTokenText {
        fabric: FABRIC,
        fabric_name: "test".parse().expect("a name"),
        ca_pin: Hash::of(&ca.root_cert),
        seeds: vec!["[::1]:7401".parse().expect("a seed")],
        role: Role::Workload,
        zone: "aws/eu".parse().expect("a zone"),
        not_after_ms: u64::MAX,
        id: TokenId([3; 9]),
        secret: Secret::new([5; 32]),
    }
}

fn params(ca: &FabricCa) -> FabricParams {
    FabricParams {
        name: "test".parse().expect("a name"),
        id: FABRIC,
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd; 6],
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: ca.root_cert.clone(),
        issuing_cert: ca.issuing_cert.clone(),
        recovery_key: NodeKey::generate().expect("a key").public_key(),
        created_ms: 0,
    }
}

#[test]
fn join_and_renewal_requests() {
    let ca = pki::create_fabric_ca(&"test".parse().expect("a name")).expect("a CA");
    let (token, key) = (token(&ca), NodeKey::generate().expect("a key"));
    let mut policy = PolicyState { params: Some(params(&ca)), ..PolicyState::default() };
    let known = JoinToken {
        id: token.id,
        secret_hash: Hash::of(token.secret.expose()),
        role: token.role,
        zone: token.zone.clone(),
        uses_left: 1,
        not_after_ms: 1_000,
    };
    policy.join_tokens.insert(token.id, known);
    let csr = pki::csr(&key).expect("a request");
    let request = JoinRequest {
        version: JOIN_VERSION,
        fabric: FABRIC,
        token: token.id,
        secret: token.secret.expose().to_vec(),
        name: "w1".parse().expect("a name"),
        role: token.role,
        zone: token.zone.clone(),
        csr: csr.clone(),
        sealing_key: key.public_key(),
        addresses: vec!["[::1]:7401".parse().expect("an address")],
    };
    let seeds = [
        serde_json::to_vec(&request).expect("JSON"),
        serde_json::to_vec(&RenewRequest { csr: csr.clone() }).expect("JSON"),
        csr,
    ];
    fuzz("join and renewal requests", &seeds, |bytes| {
        let renewal = serde_json::from_slice::<RenewRequest>(bytes).ok().map(|request| request.csr);
        for csr in renewal.into_iter().chain([bytes.to_vec()]) {
            assert!(pki::csr_key(&csr).map_or(true, |found| found == key.public_key()));
        }
        let Ok(request) = serde_json::from_slice::<JoinRequest>(bytes) else { return };
        if server::check(&policy, &request, 10).is_ok() {
            let (secret, role, zone) = (&request.secret[..], request.role, &request.zone);
            assert_eq!((secret, role, zone), (&token.secret.expose()[..], token.role, &token.zone));
        }
        assert!(server::check(&policy, &request, 1_000).is_err(), "the token has ended");
        assert!(pki::csr_key(&request.csr).map_or(true, |found| found == key.public_key()));
    });
}

#[test]
fn join_and_renewal_replies() {
    let ca = pki::create_fabric_ca(&"test".parse().expect("a name")).expect("a CA");
    let (token, key) = (token(&ca), NodeKey::generate().expect("a key"));
    let certificate = |name: &str, role, key: &NodeKey| {
        ca.issuer.issue(&name.parse().expect("a name"), role, &key.public_key(), HOUR).expect("issued")
    };
    let genuine = certificate("w1", Role::Workload, &key);
    let reply = |certificate| JoinReply {
        params: params(&ca),
        epoch: 0,
        voters: VoterSet { epoch: 0, sequence: 1, voters: [key.public_key()].into() },
        certificate,
        contacts: vec![Contact {
            name: "p1".parse().expect("a name"),
            key: key.public_key(),
            role: Role::Processor,
            fabric: vec!["[::1]:7401".parse().expect("an address")],
            gossip: Vec::new(),
        }],
    };
    let read = |reply| answer::identity(reply, &token, "w1".parse().expect("a name"), &key, 1_000);
    let identity = read(reply(genuine.clone())).expect("a good answer");

    let other_key = certificate("w1", Role::Workload, &NodeKey::generate().expect("a key"));
    let other_name = certificate("w2", Role::Workload, &key);
    let other_role = certificate("w1", Role::Processor, &key);
    for refused in [&other_key, &other_name, &other_role] {
        assert!(read(reply(refused.clone())).is_err());
    }
    let late = answer::identity(reply(genuine.clone()), &token, identity.node.clone(), &key, u64::MAX);
    assert!(late.is_err_and(|e| e.to_string().contains("check the clocks")));

    let mut seeds: Vec<Vec<u8>> = [&genuine, &other_name]
        .map(|der| serde_json::to_vec(&RenewReply { certificate: der.clone() }).expect("JSON"))
        .to_vec();
    seeds.push(serde_json::to_vec(&reply(genuine.clone())).expect("JSON"));
    let leaf = pki::validity(&genuine).expect("a leaf");
    fuzz("join and renewal replies", &seeds, |bytes| {
        if let Ok(reply) = serde_json::from_slice::<JoinReply>(bytes)
            && let Ok(found) = read(reply)
        {
            assert_eq!((&found.root_cert, found.role), (&ca.root_cert, Role::Workload));
            assert_eq!(pki::validity(&found.node_cert).as_ref().ok(), Some(&leaf));
        }
        if let Ok(RenewReply { certificate }) = serde_json::from_slice(bytes) {
            let renewed = Identity { node_cert: certificate, ..identity.clone() };
            if renewed.check_certificate(&key, 1_000).is_ok() {
                assert_eq!(pki::validity(&renewed.node_cert).as_ref().ok(), Some(&leaf));
            }
        }
    });
}
