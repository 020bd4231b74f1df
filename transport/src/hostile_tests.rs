//! Certificates from strangers: whatever they are, nothing panics, and only what this fabric's CA signed
//! is believed.

use rustls_pki_types::CertificateDer;
use selvedge_fabric::id::NodeName;
use selvedge_fuzz::fuzz;
use webpki::KeyUsage;

use crate::{
    Alpn, Leaf,
    identity::now_ms,
    judge::{PeerSide, judge},
    testing::{TestCa, TestLeaf},
    tls::provider,
    verify::verify_chain,
};

#[test]
fn certificates() {
    let (ca, foreign) = (TestCa::new("test"), TestCa::new("test"));
    let key = TestCa::node_key();
    let ours = ca.credentials_with(&ca.leaf("p1"), &key);
    let workload = TestLeaf { processor: false, ..ca.leaf("w1") };
    let expired = TestLeaf { begins_in_s: -90, ends_in_s: -30, ..ca.leaf("p2") };
    let genuine: Vec<_> = [ca.leaf("p1"), workload, expired]
        .iter()
        .map(|leaf| ca.credentials_with(leaf, &key).chain[0].clone())
        .chain([ours.chain[0].clone()])
        .collect();
    let stranger = foreign.credentials_with(&foreign.leaf("p1"), &key);
    let others = [stranger.chain[0].clone(), ours.issuing.clone(), ours.root.clone()];
    let seeds: Vec<Vec<u8>> = genuine.iter().chain(&others).map(|der| der.to_vec()).collect();
    let believed: Vec<Leaf> = genuine.iter().map(|der| Leaf::read(der).unwrap()).collect();
    let (provider, now_ms) = (provider(), now_ms());
    let algorithms = &provider.signature_verification_algorithms;
    let p1: NodeName = "p1".parse().unwrap();
    let remote = "127.0.0.1:1".parse().unwrap();
    let intermediates = [ours.issuing.clone()];
    fuzz("certificates", &seeds, |bytes| {
        let der = CertificateDer::from(bytes);
        for side in [PeerSide::Client, PeerSide::Server(&p1)] {
            for alpn in [Alpn::Raft, Alpn::Renew] {
                let Ok(peer) = judge(&der, ca.fabric(), side, alpn, remote, now_ms) else { continue };
                assert!(!peer.expired || (side == PeerSide::Client && alpn == Alpn::Renew));
                assert!(side == PeerSide::Client || peer.node == p1);
            }
        }
        for usage in [KeyUsage::client_auth, KeyUsage::server_auth] {
            let verified = verify_chain(&der, &intermediates, &ours.root, usage(), algorithms);
            if let Ok(leaf) = verified {
                assert!(believed.contains(&leaf), "believed, and nobody issued it: {leaf:?}");
            }
            // As an intermediate and as a root, which a joining node is shown by a seed.
            let chain = [der.clone(), ours.issuing.clone()];
            let _ = verify_chain(&ours.chain[0], &chain, &der, usage(), algorithms);
        }
    });
}
