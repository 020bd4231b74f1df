//! A small fabric: its policy, its nodes' keys and a service token.

use std::sync::Arc;

use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    cga::CgaParams,
    command::{AdmissionState, Role, ServiceToken, TokenScope},
    id::{EndpointId, Name, NodeName, ServiceRef, ZoneName},
    key::{FabricId, PublicKey, Signer, TokenId},
    policy::{Admission, FabricParams, PolicyState},
    record::{EndpointFact, Health, ServiceProof, proof_message},
};

pub(crate) const FABRIC: FabricId = FabricId([7; 16]);
const TOKEN: TokenId = TokenId([3; 9]);
const LATER_MS: u64 = 1 << 50;

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// The seed of the n-th node's key.
pub(crate) fn seed(n: usize) -> [u8; 32] {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&(n as u64).to_be_bytes());
    seed
}

pub(crate) fn key(n: usize) -> SigningKey {
    SigningKey::from_bytes(&seed(n))
}

pub(crate) fn node_name(n: usize) -> NodeName {
    name(&format!("p{n}"))
}

fn token_key() -> SigningKey {
    SigningKey::from_bytes(&[77; 32])
}

pub(crate) fn service() -> ServiceRef {
    "web@shop".parse().unwrap()
}

/// A policy that admits one processor for each of `clouds`, in that order from number 0.
pub(crate) fn policy(clouds: &[&str]) -> PolicyState {
    let mut policy = PolicyState { params: Some(params()), revision: 1, ..PolicyState::default() };
    for (n, cloud) in clouds.iter().enumerate() {
        policy.nodes.insert(node_name(n), admission(n, cloud, Role::Processor));
    }
    let token = ServiceToken {
        id: TOKEN,
        service: service(),
        key: token_key().public_key(),
        scope: TokenScope::default(),
        not_after_ms: LATER_MS,
    };
    policy.service_tokens.insert(TOKEN, token);
    policy
}

pub(crate) fn admission(n: usize, cloud: &str, role: Role) -> Admission {
    Admission {
        key: key(n).public_key(),
        sealing_key: PublicKey([0; 32]),
        role,
        zone: ZoneName::of_cloud(name(cloud)),
        state: AdmissionState::Active,
        block: u32::try_from(n).unwrap(),
        token: None,
        admitted_ms: 0,
    }
}

fn params() -> FabricParams {
    FabricParams {
        name: name("fab"),
        id: FABRIC,
        suffix: "fabric.internal".into(),
        ula_prefix: [0xfd, 0, 0, 0, 0, 1],
        ipv4_pool: "127.64.0.0/10".into(),
        ipv4_block_len: 24,
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        recovery_key: PublicKey([0; 32]),
        created_ms: 0,
    }
}

/// An endpoint of node `n` that proves its service.
pub(crate) fn endpoint(n: usize, id: &str) -> EndpointFact {
    let id: EndpointId = name(id);
    let cga = CgaParams::default();
    let message = proof_message(&FABRIC, &service(), &key(n).public_key(), &id, &cga, LATER_MS);
    EndpointFact {
        id,
        service: service(),
        ports: Vec::new(),
        ipv4: None,
        ipv6: None,
        cga,
        health: Health::Passing,
        weight: 1,
        proof: ServiceProof {
            token: TOKEN,
            not_after_ms: LATER_MS,
            signature: Signer::sign(&token_key(), &message),
        },
    }
}

/// The node's key as a signer that can be shared.
pub(crate) fn signer(n: usize) -> Arc<dyn Signer> {
    Arc::new(key(n))
}
