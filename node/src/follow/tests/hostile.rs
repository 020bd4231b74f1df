//! Bytes of workload nodes, and of processors that they follow: only what a majority signed is taken.

use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    key::{FabricId, PublicKey, Signer},
    policy::{FabricParams, PolicyState},
    statement::{Bundle, Claim, Statement, Succession, Trusted, VoterSet, verify},
};
use selvedge_fuzz::fuzz;

use crate::follow::{Answer, Ask, QuorumWord, decode, encode, follower};

pub(super) const FABRIC: FabricId = FabricId([1; 16]);

fn key(n: u8) -> SigningKey {
    SigningKey::from_bytes(&[n; 32])
}

pub(super) fn set(sequence: u64, voters: [u8; 3]) -> VoterSet {
    VoterSet { epoch: 0, sequence, voters: voters.map(|n| key(n).public_key()).into() }
}

/// A bundle that `signers` signed for the voters `of`, by way of a succession when they are not the first.
pub(super) fn bundle(revision: u64, of: &VoterSet, signers: &[u8]) -> Bundle {
    let params = FabricParams {
        name: "test".parse().expect("a name"),
        id: FABRIC,
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd; 6],
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        recovery_key: PublicKey([0; 32]),
        created_ms: 0,
    };
    let policy = PolicyState { params: Some(params), revision, ..PolicyState::default() };
    let claim = Claim::of(&policy, of).expect("a claim");
    let signed = signers.iter().map(|n| Statement::sign(claim, &key(*n))).map(|s| (s.voter, s.signature));
    let first = set(1, [1, 2, 3]);
    let links = [1, 3].map(|n| (key(n).public_key(), first.sign_successor(of, &FABRIC, &key(n))));
    let chain = if *of == first {
        Vec::new()
    } else {
        vec![Succession { set: of.clone(), signatures: links.into() }]
    };
    let policy = Bundle::policy_bytes(&policy);
    Bundle { claim, signatures: signed.collect(), chain, policy, recovery: None }
}

#[test]
fn policy_messages() {
    let trusted = Trusted { fabric: FABRIC, epoch: 0, voters: set(1, [1, 2, 3]) };
    let genuine = [bundle(5, &trusted.voters, &[1, 2]), bundle(6, &set(2, [2, 3, 4]), &[2, 4])];
    // Of voters that nobody appointed, too old, and by too few.
    let lies = [
        bundle(7, &set(1, [7, 8, 9]), &[7, 8, 9]),
        bundle(3, &trusted.voters, &[1, 2, 3]),
        bundle(8, &trusted.voters, &[1]),
    ];
    let proved = genuine.iter().map(|good| verify(good, &trusted, None, 4).expect("proved").policy);
    let proved: Vec<PolicyState> = proved.collect();
    let messages = genuine.iter().chain(&lies).map(|bundle| {
        let quorum = QuorumWord { term: 3, quorum: true, ..QuorumWord::default() };
        encode(&Answer::Policy { bundle: Some(bundle.encode()), quorum })
    });
    let asks = [
        Ask::Policy { have: 3, voters: 1, wait_ms: 900 },
        Ask::Alive { incarnation: 3 },
        Ask::Barrier { within_ms: 900 },
    ];
    let copies = genuine.iter().map(|bundle| follower::keep(&trusted, bundle));
    let seeds: Vec<Vec<u8>> = messages
        .chain(asks.iter().map(encode))
        .chain([encode(&Answer::Barrier(9))])
        .chain(genuine.iter().chain(&lies).map(Bundle::encode))
        .chain(copies)
        .collect();
    fuzz("policy messages", &seeds, |bytes| {
        let _ = decode::<Ask>(bytes);
        let carried = match decode(bytes) {
            Ok(Answer::Policy { bundle, .. }) => bundle,
            _ => None,
        };
        for bytes in carried.iter().map(Vec::as_slice).chain([bytes]) {
            if let Ok(bundle) = Bundle::decode(bytes)
                && let Ok(verified) = verify(&bundle, &trusted, None, 4)
            {
                assert!(proved.contains(&verified.policy), "taken, and no majority signed it: {bundle:?}");
            }
        }
        // As the copy on disk.
        if let Ok((kept, verified)) = follower::read(bytes, &trusted) {
            assert!(kept.voters.sequence >= 1 && verified.policy.params.is_some());
        }
    });
}
