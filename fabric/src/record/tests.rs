//! Signing, opening, and bytes from outside.

use proptest::prelude::*;

use super::{signed::MAX_ENVELOPE_BYTES, *};
use crate::{
    cga::CgaParams,
    key::{FabricId, Signer},
    testing::*,
};

const FABRIC: FabricId = FabricId([1; 16]);

fn version() -> Version {
    Version { epoch: 1, incarnation: 2, sequence: 3 }
}

fn signed(body: &Body) -> Record {
    Record::sign(&FABRIC, &key_of("p1"), version(), 4, body).expect("within bounds")
}

fn bodies() -> Vec<Body> {
    let policy = voting_app().node("p1", "aws");
    let fact = endpoint(&policy, "p1", "db", "voting-db@voting-app", ("tcp/5432", 5432), 1);
    let presence =
        Presence { addresses: vec!["127.0.0.1:7401".parse().expect("an address")], ..Presence::default() };
    vec![
        Body::Presence(presence),
        Body::Endpoints(vec![fact]),
        Body::Observations(vec![Observation { node: NodeId(1), incarnation: 2, seen: Seen::Silent }]),
        Body::Links(vec![LinkFact { peer: NodeId(1), rtt_us: 900, loss_permille: 1 }]),
        Body::Enforced(Enforced { epoch: 1, revision: 2, hash: Hash([3; 32]) }),
        Body::Load(Load { cpu_percent: 50, rss_mib: 40 }),
    ]
}

#[test]
fn what_was_signed_opens_as_it_was() {
    for body in bodies() {
        let carried = signed(&body).encode();
        assert!(carried.len() <= MAX_RECORD_BYTES);
        let record = Record::decode(&carried).expect("a record");
        assert_eq!((record.topic, record.open(&FABRIC)), (body.topic(), Ok(body)));
    }
}

#[test]
fn the_envelope_is_within_its_bound() {
    let record = Record {
        version: Version { epoch: u64::MAX, incarnation: u64::MAX, sequence: u64::MAX },
        boot_nonce: u64::MAX,
        ..signed(&Body::Load(Load::default()))
    };
    assert!(record.encode().len() - record.body.len() <= MAX_ENVELOPE_BYTES);
}

#[test]
fn every_part_is_under_the_signature() {
    let genuine = signed(&Body::Load(Load::default()));
    let other = version();
    let altered = [
        Record { node: key_of("p2").public_key(), ..genuine.clone() },
        Record { topic: Topic::Links, ..genuine.clone() },
        Record { version: Version { epoch: 9, ..other }, ..genuine.clone() },
        Record { version: Version { incarnation: 9, ..other }, ..genuine.clone() },
        Record { version: Version { sequence: 9, ..other }, ..genuine.clone() },
        Record { boot_nonce: 9, ..genuine.clone() },
        Record { body: [&genuine.body[..], &[0]].concat(), ..genuine.clone() },
        Record { signature: Signature([0; 64]), ..genuine.clone() },
    ];
    for record in altered {
        assert_eq!(record.open(&FABRIC), Err(RecordError::Signature), "{record:?}");
    }
    assert_eq!(genuine.open(&FabricId([2; 16])), Err(RecordError::Signature), "another fabric");
}

/// Signed by the node itself, with a body that `sign` would not have made.
fn forged(topic: Topic, body: Vec<u8>) -> Result<Body, RecordError> {
    let key = key_of("p1");
    let mut record = Record { topic, body, ..signed(&Body::Load(Load::default())) };
    record.signature = Signer::sign(&key, &record.signed_bytes(&FABRIC));
    record.open(&FABRIC)
}

#[test]
fn a_genuine_signature_excuses_nothing() {
    let load = postcard::to_stdvec(&Body::Load(Load::default())).expect("bytes");
    assert_eq!(forged(Topic::Load, load.clone()), Ok(Body::Load(Load::default())));
    assert!(matches!(forged(Topic::Links, load.clone()), Err(RecordError::Malformed(_))));
    assert!(matches!(forged(Topic::Load, [&load[..], &[0]].concat()), Err(RecordError::Malformed(_))));
    assert!(matches!(forged(Topic::Load, vec![0xff; 64]), Err(RecordError::Malformed(_))));
    assert!(matches!(forged(Topic::Load, vec![0; MAX_RECORD_BYTES]), Err(RecordError::Bound { .. })));

    let addresses = vec!["[::1]:1".parse().expect("an address"); MAX_ADDRESSES + 1];
    let crowd = Body::Presence(Presence { addresses, ..Presence::default() });
    let bytes = postcard::to_stdvec(&crowd).expect("bytes");
    let limit =
        RecordError::Bound { what: "fabric addresses", count: MAX_ADDRESSES + 1, limit: MAX_ADDRESSES };
    assert_eq!(forged(Topic::Presence, bytes), Err(limit.clone()));
    let error = Record::sign(&FABRIC, &key_of("p1"), version(), 4, &crowd).expect_err("too many");
    assert_eq!(error, limit);
}

#[test]
fn endpoints_are_bounded_and_named_once() {
    let policy = voting_app().node("p1", "aws");
    let fact = |id: &str| endpoint(&policy, "p1", id, "voting-db@voting-app", ("tcp/5432", 5432), 1);
    let sign = |facts: Vec<EndpointFact>| {
        Record::sign(&FABRIC, &key_of("p1"), version(), 4, &Body::Endpoints(facts)).map(|_| ())
    };
    let many = |count| (0..count).map(|i| fact(&format!("e{i}"))).collect::<Vec<_>>();
    let full = sign(many(MAX_ENDPOINTS));
    assert_eq!(full, Ok(()), "as many endpoints as are allowed fit into one record");
    assert!(matches!(sign(many(MAX_ENDPOINTS + 1)), Err(RecordError::Bound { what: "endpoints", .. })));
    assert!(matches!(sign(vec![fact("a"), fact("a")]), Err(RecordError::Malformed(_))));
    let port = fact("a").ports[0];
    let ports = EndpointFact { ports: vec![port; MAX_ENDPOINT_PORTS + 1], ..fact("a") };
    assert!(matches!(sign(vec![ports]), Err(RecordError::Bound { .. })));
    assert!(matches!(
        sign(vec![EndpointFact { weight: 1_001, ..fact("a") }]),
        Err(RecordError::Bound { .. })
    ));
}

#[test]
fn proofs_of_different_claims_are_different_bytes() {
    let (key, cga) = (key_of("p1").public_key(), CgaParams::default());
    let message =
        |service: &str, id: &str| proof_message(&FABRIC, &object(service), &key, &name(id), &cga, 7);
    let base = message("ab@c", "d");
    for other in [
        message("a@bc", "d"),
        message("ab@cd", "d"),
        message("ab@c", "dd"),
        proof_message(&FabricId([2; 16]), &object("ab@c"), &key, &name("d"), &cga, 7),
        proof_message(&FABRIC, &object("ab@c"), &PublicKey([0; 32]), &name("d"), &cga, 7),
        proof_message(
            &FABRIC,
            &object("ab@c"),
            &key,
            &name("d"),
            &CgaParams { collision_count: 1, ..cga },
            7,
        ),
        proof_message(&FABRIC, &object("ab@c"), &key, &name("d"), &cga, 8),
    ] {
        assert_ne!(base, other);
    }
}

proptest! {
    #[test]
    fn bytes_from_outside_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert!(record.open(&FABRIC).is_err());
        }
        for topic in [Topic::Presence, Topic::Endpoints, Topic::Observations, Topic::Load] {
            // With a genuine signature, so that the body is decoded as well.
            let _ = forged(topic, bytes.clone());
        }
    }

    #[test]
    fn a_flipped_bit_never_opens(which in 0usize..6, at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut carried = signed(&bodies()[which]).encode();
        let at = at.index(carried.len());
        carried[at] ^= 1 << bit;
        if let Ok(record) = Record::decode(&carried) {
            prop_assert!(record.open(&FABRIC).is_err());
        }
    }
}
