//! Which endpoints are believed.

use super::*;
use crate::{
    address,
    command::{AdmissionState, TokenScope},
    policy::PolicyState,
    testing::*,
};

const DB: &str = "voting-db@voting-app";

fn scope(nodes: &[&str], zones: &[&str]) -> TokenScope {
    TokenScope {
        nodes: nodes.iter().map(|n| name(n)).collect(),
        zones: zones.iter().map(|z| z.parse().expect("a zone")).collect(),
    }
}

fn policy(scope: TokenScope) -> PolicyState {
    voting_app().node("p1", "aws/a").node("p2", "gcp/a").token(DB, scope)
}

fn fact(policy: &PolicyState) -> EndpointFact {
    endpoint(policy, "p1", "db", DB, ("tcp/5432", 5432), 1)
}

fn verify(policy: &PolicyState, fact: &EndpointFact) -> Result<(), EndpointError> {
    verify_endpoint(policy, &name("p1"), fact, NOW_MS)
}

fn refused(policy: &PolicyState, fact: &EndpointFact, word: &str) {
    let error = verify(policy, fact).expect_err(word).to_string();
    assert!(error.contains(word), "{error}");
}

#[test]
fn a_genuine_endpoint_is_believed_on_its_own_node_only() {
    let policy = policy(TokenScope::default());
    assert_eq!(verify(&policy, &fact(&policy)), Ok(()));
    assert!(verify_endpoint(&policy, &name("p2"), &fact(&policy), NOW_MS).is_err());
    let elsewhere = EndpointFact { ipv4: None, ipv6: None, ..fact(&policy) };
    let error = verify_endpoint(&policy, &name("p2"), &elsewhere, NOW_MS).expect_err("another node's proof");
    assert!(matches!(error, EndpointError::Proof(_)), "{error}");
}

#[test]
fn the_node_must_be_admitted_and_in_service() {
    let mut policy = policy(TokenScope::default());
    let fact = fact(&policy);
    assert_eq!(verify_endpoint(&policy, &name("p9"), &fact, NOW_MS), Err(EndpointError::NotAdmitted));
    for (state, believed) in
        [(AdmissionState::Active, true), (AdmissionState::Draining, true), (AdmissionState::Revoked, false)]
    {
        policy.nodes.get_mut(&name("p1")).expect("p1").state = state;
        assert_eq!(verify(&policy, &fact).is_ok(), believed, "{state:?}");
    }
    assert_eq!(verify(&PolicyState::default(), &fact), Err(EndpointError::NotAdmitted));
}

#[test]
fn the_token_must_be_known_of_that_service_and_last() {
    let mut policy = policy(TokenScope::default()).token("worker@voting-app", TokenScope::default());
    let fact = fact(&policy);
    let foreign = EndpointFact { service: object("worker@voting-app"), ..fact.clone() };
    refused(&policy, &foreign, "is of voting-db@voting-app, not of worker@voting-app");
    assert!(verify_endpoint(&policy, &name("p1"), &fact, END_MS - 1).is_ok());
    assert!(verify_endpoint(&policy, &name("p1"), &fact, END_MS).is_err());
    let mut ended = fact.clone();
    ended.proof.not_after_ms = NOW_MS;
    refused(&policy, &ended, "the proof has expired");
    policy.service_tokens.get_mut(&fact.proof.token).expect("a token").not_after_ms = NOW_MS;
    refused(&policy, &fact, "has expired");
    policy.service_tokens.clear();
    refused(&policy, &fact, "is not known here");
}

#[test]
fn a_proof_cannot_be_stretched_or_moved() {
    let policy = policy(TokenScope::default());
    let genuine = fact(&policy);
    let mut longer = genuine.clone();
    longer.proof.not_after_ms += 1;
    refused(&policy, &longer, "the signature is not of token");
    refused(&policy, &EndpointFact { id: name("db2"), ..genuine.clone() }, "the signature is not of token");
    // Health, weight and ports are the node's own to say.
    assert_eq!(verify(&policy, &EndpointFact { weight: 1, ports: Vec::new(), ..genuine }), Ok(()));
}

#[test]
fn the_scope_of_a_token_is_kept() {
    for (nodes, zones, believed) in [
        (&[][..], &[][..], true),
        (&["p1"], &[], true),
        (&["p2"], &[], false),
        (&[], &["aws/a"], true),
        (&[], &["aws"], true),
        (&[], &["aws/b"], false),
        (&[], &["gcp"], false),
        (&["p2"], &["aws"], true),
    ] {
        let policy = policy(scope(nodes, zones));
        assert_eq!(verify(&policy, &fact(&policy)).is_ok(), believed, "{nodes:?} {zones:?}");
    }
}

#[test]
fn addresses_must_be_of_the_node() {
    let policy = policy(TokenScope::default());
    let genuine = fact(&policy);
    for (last, believed) in [(0, false), (1, false), (2, true), (254, true), (255, false)] {
        let ipv4 = Some(std::net::Ipv4Addr::new(127, 64, 1, last));
        assert_eq!(verify(&policy, &EndpointFact { ipv4, ..genuine.clone() }).is_ok(), believed, "{last}");
    }
    refused(
        &policy,
        &EndpointFact { ipv4: Some([127, 64, 2, 2].into()), ..genuine.clone() },
        "127.64.1.0/24",
    );

    let params = policy.params.as_ref().expect("params");
    let p1 = &policy.nodes[&name("p1")];
    let own = address::node_ipv6(params, &p1.zone, &p1.key);
    refused(&policy, &EndpointFact { ipv6: Some(own), ..genuine.clone() }, "the node's own");
    let of_p2 = endpoint(&policy, "p2", "db", DB, ("tcp/5432", 5432), 1);
    refused(&policy, &EndpointFact { ipv6: of_p2.ipv6, ..genuine.clone() }, "does not lie in the subnet");
    let flipped = genuine.ipv6.map(|a| (u128::from(a) ^ (1 << 40)).into());
    refused(&policy, &EndpointFact { ipv6: flipped, ..genuine }, "is not the hash");
}
