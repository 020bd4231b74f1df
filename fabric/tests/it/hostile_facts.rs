//! Facts and signed policy from outside.

use ed25519_dalek::SigningKey;
use selvedge_fabric::{
    cga::CgaParams,
    key::{FabricId, Signature, Signer, TokenId},
    manifest,
    object::Protocol,
    record::{
        Body, EndpointFact, EndpointPort, Enforced, Health, Load, Presence, Record, ServiceProof, Version,
    },
    statement::{Bundle, Revocation, Revocations, SignedRevocation},
    view::verify_endpoint,
};
use selvedge_fuzz::fuzz;

use crate::support::Fabric;

const FABRIC: FabricId = FabricId([7; 16]);

fn endpoint() -> EndpointFact {
    EndpointFact {
        id: "web-1".parse().expect("a name"),
        service: "web@app".parse().expect("a service"),
        ports: vec![EndpointPort { protocol: Protocol::Tcp, contract: 80, local: 8080 }],
        ipv4: Some([100, 64, 1, 2].into()),
        ipv6: None,
        cga: CgaParams::default(),
        health: Health::Passing,
        weight: 100,
        proof: ServiceProof { token: TokenId([3; 9]), not_after_ms: 9, signature: Signature([4; 64]) },
    }
}

fn bodies() -> Vec<Body> {
    let presence = Presence {
        addresses: vec!["127.0.0.1:7401".parse().expect("an address")],
        software: "0.1.0".to_owned(),
        ..Presence::default()
    };
    let hash = selvedge_fabric::key::Hash([1; 32]);
    vec![
        Body::Presence(presence),
        Body::Endpoints(vec![endpoint()]),
        Body::Enforced(Enforced { epoch: 0, revision: 3, hash }),
        Body::Load(Load { cpu_percent: 7, rss_mib: 30 }),
    ]
}

/// A record that opens is one that its key signed; whatever it carries is judged without panic.
#[test]
fn records() {
    let key = SigningKey::from_bytes(&[9; 32]);
    let version = Version { epoch: 0, incarnation: 2, sequence: 5 };
    let sign = |body: &Body| Record::sign(&FABRIC, &key, version, 11, body).expect("within bounds");
    let genuine: Vec<Record> = bodies().iter().map(sign).collect();
    let seeds: Vec<Vec<u8>> = genuine.iter().map(Record::encode).collect();
    fuzz("records", &seeds, |bytes| {
        let Ok(record) = Record::decode(bytes) else { return };
        if record.open(&FABRIC).is_ok() {
            assert!(genuine.contains(&record), "opened, and nobody signed it: {record:?}");
        }
    });
}

/// A malicious node signs what it likes, so bodies are fuzzed under a genuine signature too.
#[test]
fn signed_bodies() {
    let key = SigningKey::from_bytes(&[9; 32]);
    let fabric = Fabric::new();
    let node = fabric.state.nodes.keys().next().expect("a node").clone();
    let bodies: Vec<_> = bodies().iter().map(|b| postcard::to_allocvec(b).expect("postcard")).collect();
    fuzz("signed bodies", &bodies, |bytes| {
        let Ok(body) = postcard::from_bytes::<Body>(bytes) else { return };
        let Ok(record) = Record::sign(&FABRIC, &key, Version::default(), 1, &body) else { return };
        assert_eq!(record.node, key.public_key());
        let opened = record.open(&FABRIC);
        if let Ok(Body::Endpoints(endpoints)) = &opened {
            assert!(endpoints.iter().all(|e| verify_endpoint(&fabric.state, &node, e, 0).is_err()));
        }
    });
}

#[test]
fn bundles() {
    let empty = postcard::to_allocvec(&(1_u32, Vec::<u8>::new(), Vec::<u8>::new())).expect("postcard");
    fuzz("bundles", &[Fabric::new().state.encode(), empty, b"{}".to_vec()], |bytes| {
        if let Ok(bundle) = Bundle::decode(bytes) {
            assert_eq!(Bundle::decode(&bundle.encode()).as_ref(), Ok(&bundle));
        }
    });
}

/// Whatever is decoded, only what the recovery key signed is taken.
#[test]
fn revocations() {
    let recovery = SigningKey::from_bytes(&[8; 32]);
    let mut policy = Fabric::new().state;
    let params = policy.params.as_mut().expect("a fabric");
    params.recovery_key = recovery.public_key();
    let (fabric, key) = (params.id, SigningKey::from_bytes(&[9; 32]).public_key());
    let node = policy.nodes.keys().next().expect("a node").clone();
    let genuine = Revocation { fabric, epoch: 1, node, key, at_ms: 5 }.sign(&recovery);
    let bytes = postcard::to_allocvec(&genuine).expect("postcard");
    let text = serde_json::to_vec(&genuine).expect("JSON");
    fuzz("revocations", &[bytes, text], |bytes| {
        let binary = postcard::from_bytes::<SignedRevocation>(bytes).ok();
        for signed in binary.into_iter().chain(serde_json::from_slice(bytes).ok()) {
            let taken = Revocations::default().take(signed.clone(), &policy);
            assert_eq!(taken.is_ok(), signed == genuine, "{signed:?}");
        }
    });
}

#[test]
fn assertions() {
    let seed = "- deny: {from: '*@a', to: '*@b'}\n- allow: {from: x@a, to: y@a, port: tcp/80-90}\n";
    fuzz("assertions", &[seed.as_bytes().to_vec()], |bytes| {
        let Ok(text) = std::str::from_utf8(bytes) else { return };
        if let Err(problems) = manifest::parse_assertions(text, Some("f")) {
            assert!(!problems.is_empty() && problems.iter().all(|p| p.place.is_some()));
        }
    });
}
