//! Fixtures for the tests of the core.

use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::{Name, ZoneName},
    key::{FabricId, PublicKey, Signer},
    policy::{Admission, PolicyState},
    record::{Body, Load, Record, Version},
};

pub(super) const FABRIC: FabricId = FabricId([4; 16]);

pub(super) fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

/// A policy that admits nodes 1 to `count`.
pub(super) fn policy(count: u8) -> PolicyState {
    let mut policy = PolicyState::default();
    for n in 1..=count {
        let admission = Admission {
            key: key(n).public_key(),
            sealing_key: PublicKey([0; 32]),
            role: Role::Processor,
            zone: ZoneName::of_cloud(Name::new("a").expect("a name")),
            state: AdmissionState::Active,
            block: u32::from(n),
            token: None,
            admitted_ms: 0,
        };
        policy.nodes.insert(Name::new(&format!("p{n}")).expect("a name"), admission);
    }
    policy
}

/// A genuine record of node `n` on its load.
pub(super) fn load(n: u8, incarnation: u64, sequence: u64, boot_nonce: u64, cpu_percent: u16) -> Record {
    let version = Version { epoch: 0, incarnation, sequence };
    let body = Body::Load(Load { cpu_percent, rss_mib: 0 });
    Record::sign(&FABRIC, &key(n), version, boot_nonce, &body).expect("within bounds")
}
