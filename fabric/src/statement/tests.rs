use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use proptest::prelude::*;

use super::*;
use crate::{
    command::{ApiToken, JoinToken, Rights, Role, ServiceToken},
    key::TokenId,
    policy::Admission,
    testing::{self, Build, END_MS, key_of},
};

const FABRIC: FabricId = FabricId([1; 16]);

fn set(sequence: u64, names: &[&str]) -> VoterSet {
    let voters: BTreeSet<_> = names.iter().map(|n| key_of(n).public_key()).collect();
    VoterSet { epoch: 0, sequence, voters }
}

fn trusted(voters: VoterSet) -> Trusted {
    Trusted { fabric: FABRIC, epoch: 0, voters }
}

/// A policy with something of everything that a bundle carries.
fn policy() -> PolicyState {
    let mut policy = testing::fabric().contract("web@shop", "client-server", &[("server", &["tcp/80"])]);
    let zone: crate::id::ZoneName = "aws/eu".parse().expect("a zone");
    let admission = Admission {
        key: key_of("p1").public_key(),
        sealing_key: key_of("s1").public_key(),
        role: Role::Processor,
        zone: zone.clone(),
        state: crate::command::AdmissionState::Active,
        block: 3,
        token: Some(TokenId([1; 9])),
        admitted_ms: 7,
    };
    policy.nodes.insert(crate::id::NodeName::new("p1").expect("a name"), admission);
    let secret_hash = Hash([9; 32]);
    let id = TokenId([1; 9]);
    let join = JoinToken { id, secret_hash, role: Role::Workload, zone, not_after_ms: END_MS, uses_left: 3 };
    policy.join_tokens.insert(id, join);
    let id = TokenId([2; 9]);
    let api =
        ApiToken { id, name: "ann".to_owned(), secret_hash, rights: Rights::Admin, not_after_ms: END_MS };
    policy.api_tokens.insert(id, api);
    let id = TokenId([3; 9]);
    let service = ServiceToken {
        id,
        service: testing::object("web@shop"),
        key: key_of("token").public_key(),
        scope: Default::default(),
        not_after_ms: END_MS,
    };
    policy.service_tokens.insert(id, service);
    policy.clock_ms = 77;
    policy
}

fn successor(before: &VoterSet, next: VoterSet, signers: &[&str]) -> Succession {
    let sign = |name: &&str| {
        let key = key_of(name);
        (key.public_key(), before.sign_successor(&next, &FABRIC, &key))
    };
    Succession { signatures: signers.iter().map(sign).collect(), set: next }
}

fn bundle_of(policy: &PolicyState, voters: &VoterSet, signers: &[&str], chain: Vec<Succession>) -> Bundle {
    let claim = Claim::of(policy, voters).expect("a fabric");
    let sign = |name: &&str| {
        let statement = Statement::sign(claim, &key_of(name));
        (statement.voter, statement.signature)
    };
    let signatures = signers.iter().map(sign).collect();
    Bundle { claim, signatures, chain, policy: Bundle::policy_bytes(policy), recovery: None }
}

/// From one voter over three to three others.
fn grown() -> (Trusted, Bundle) {
    let (one, two, three) = (set(1, &["a"]), set(2, &["a", "b", "c"]), set(3, &["a", "c", "d"]));
    let chain = vec![successor(&one, two.clone(), &["a"]), successor(&two, three.clone(), &["a", "b"])];
    (trusted(one), bundle_of(&policy(), &three, &["c", "d"], chain))
}

#[test]
fn a_majority_over_a_chain_proves_a_policy() {
    let (trusted, bundle) = grown();
    let decoded = Bundle::decode(&bundle.encode()).expect("decodes");
    let proved = verify(&decoded, &trusted, None, 0).expect("is proved");
    assert_eq!(proved.policy.objects, policy().objects);
    assert_eq!(proved.policy.intent_hash(), policy().intent_hash());
    assert_eq!(proved.voters, set(3, &["a", "c", "d"]));
    assert_eq!(proved.policy.api_tokens[&TokenId([2; 9])].secret_hash, Hash([0; 32]), "no secret travels");
}

#[test]
fn half_is_no_majority() {
    let voters = set(1, &["a", "b", "c", "d"]);
    let bundle = bundle_of(&policy(), &voters, &["a", "b"], Vec::new());
    let refused = verify(&bundle, &trusted(voters), None, 0);
    assert_eq!(refused, Err(BundleError::NoMajority { have: 2, voters: 4 }));
}

#[test]
fn strangers_do_not_count() {
    let voters = set(1, &["a", "b", "c"]);
    let bundle = bundle_of(&policy(), &voters, &["a", "x"], Vec::new());
    let refused = verify(&bundle, &trusted(voters), None, 0);
    assert_eq!(refused, Err(BundleError::NotAVoter(key_of("x").public_key())));
}

#[test]
fn never_backwards_but_the_same_again() {
    let (trusted, bundle) = grown();
    let revision = bundle.claim.revision;
    assert!(verify(&bundle, &trusted, None, revision).is_ok());
    let refused = verify(&bundle, &trusted, None, revision + 1);
    assert_eq!(refused, Err(BundleError::Backwards { found: revision, have: revision + 1 }));
}

#[test]
fn each_set_needs_the_majority_of_the_one_before() {
    let (one, two) = (set(1, &["a", "b", "c"]), set(2, &["x", "y", "z"]));
    for signers in [&["a"][..], &["x", "y"], &["a", "x"]] {
        let chain = vec![successor(&one, two.clone(), signers)];
        let bundle = bundle_of(&policy(), &two, &["x", "y"], chain);
        let refused = verify(&bundle, &trusted(one.clone()), None, 0);
        assert!(matches!(refused, Err(BundleError::Chain { sequence: 2, .. })), "{signers:?}: {refused:?}");
    }
}

#[test]
fn a_link_left_out_or_doubled_breaks_the_chain() {
    let (trusted, bundle) = grown();
    for chain in [
        vec![],
        vec![bundle.chain[0].clone()],
        vec![bundle.chain[1].clone()],
        vec![bundle.chain[0].clone(), bundle.chain[0].clone(), bundle.chain[1].clone()],
        vec![bundle.chain[1].clone(), bundle.chain[0].clone()],
    ] {
        let refused = verify(&Bundle { chain, ..bundle.clone() }, &trusted, None, 0);
        assert!(matches!(refused, Err(BundleError::Chain { .. })), "{refused:?}");
    }
}

#[test]
fn another_fabric_and_another_epoch_are_refused() {
    let (trusted, bundle) = grown();
    let other = Trusted { fabric: FabricId([2; 16]), ..trusted.clone() };
    assert_eq!(verify(&bundle, &other, None, 0), Err(BundleError::Fabric(FABRIC)));
    let later = Trusted { epoch: 1, ..trusted };
    assert_eq!(verify(&bundle, &later, None, 0), Err(BundleError::Epoch { found: 0, trusted: 1 }));
}

#[test]
fn a_recovery_starts_the_chain_anew_for_who_trusts_an_older_epoch() {
    let (trusted, old) = grown();
    let start = VoterSet { epoch: next_epoch(0, 5), ..set(3, &["c", "x"]) };
    let next = VoterSet { sequence: 4, ..start.clone() };
    let next = VoterSet { voters: set(4, &["c", "x", "y"]).voters, ..next };
    let base = Base { term: 2, index: 9, revision: 1, image: Hash([1; 32]) };
    let recovery = Recovery { fabric: FABRIC, base, voters: start.clone(), at_ms: 1 };
    let signed = recovery.clone().sign(&key_of("recovery"));
    let chain = vec![successor(&start, next.clone(), &["c", "x"])];
    let bundle =
        Bundle { recovery: Some(Box::new(signed)), ..bundle_of(&policy(), &next, &["x", "y"], chain) };
    let key = key_of("recovery").public_key();
    let decoded = Bundle::decode(&bundle.encode()).expect("decodes");
    assert_eq!(decoded, bundle);
    let have = bundle.claim.revision + 7;
    let proved =
        verify(&bundle, &trusted, Some(&key), have).expect("a higher epoch may have lower revisions");
    assert_eq!(proved.voters, next);

    let unknown = BundleError::Epoch { found: start.epoch, trusted: 0 };
    assert_eq!(verify(&bundle, &trusted, None, 0), Err(unknown.clone()));
    let bare = Bundle { recovery: None, ..bundle.clone() };
    assert_eq!(verify(&bare, &trusted, Some(&key), 0), Err(unknown));
    let forged = Bundle { recovery: Some(Box::new(recovery.sign(&key_of("a")))), ..bundle.clone() };
    assert!(matches!(verify(&forged, &trusted, Some(&key), 0), Err(BundleError::Recovery(_))));
    // Who is there already goes neither back to the old epoch nor back in revisions.
    let there = Trusted { epoch: start.epoch, voters: start, ..trusted };
    assert!(matches!(verify(&old, &there, Some(&key), 0), Err(BundleError::Epoch { .. })));
    assert!(matches!(verify(&bundle, &there, Some(&key), have), Err(BundleError::Backwards { .. })));
    assert!(verify(&bare, &there, Some(&key), 0).is_ok(), "and needs the statement no more");
}

#[test]
fn a_signature_is_good_for_one_purpose() {
    let (one, two) = (set(1, &["a"]), set(2, &["b"]));
    let claim = Claim::of(&policy(), &one).expect("a fabric");
    let signature = Statement::sign(claim, &key_of("a")).signature;
    assert!(!one.signed_successor(&two, &FABRIC, &key_of("a").public_key(), &signature));
    let key: SigningKey = key_of("a");
    let succession = one.sign_successor(&two, &FABRIC, &key);
    assert!(!Statement { claim, voter: key.public_key(), signature: succession }.is_genuine());
}

/// Every leaf of a JSON value, altered one at a time.
fn alterations(value: &serde_json::Value) -> Vec<serde_json::Value> {
    use serde_json::Value;
    match value {
        Value::Null => vec![Value::from(1)],
        Value::Bool(b) => vec![Value::from(!b)],
        Value::Number(n) => vec![Value::from(n.as_u64().unwrap_or(0) + 1)],
        Value::String(s) => {
            vec![Value::from(format!("{s}x")), Value::from(s.replacen(char::is_alphanumeric, "q", 1))]
        }
        Value::Array(items) => {
            let altered = items.iter().enumerate().flat_map(|(i, item)| {
                alterations(item).into_iter().map(move |new| {
                    let mut items = items.clone();
                    items[i] = new;
                    Value::Array(items)
                })
            });
            let shorter = (!items.is_empty()).then(|| Value::Array(items[1..].to_vec()));
            altered.chain(shorter).collect()
        }
        Value::Object(fields) => {
            let altered = fields.iter().flat_map(|(key, field)| {
                alterations(field).into_iter().map(move |new| {
                    let mut fields = fields.clone();
                    fields.insert(key.clone(), new);
                    Value::Object(fields)
                })
            });
            let without = fields.keys().map(|key| {
                let mut fields = fields.clone();
                fields.remove(key);
                Value::Object(fields)
            });
            altered.chain(without).collect()
        }
    }
}

#[test]
fn a_policy_altered_in_any_field_is_refused() {
    let (trusted, bundle) = grown();
    let genuine = PolicyState::decode(&bundle.policy).expect("decodes");
    let value: serde_json::Value = serde_json::from_slice(&bundle.policy).expect("is JSON");
    let mut refused = 0;
    for altered in alterations(&value) {
        let policy = serde_json::to_vec(&altered).expect("encodes");
        // Some alterations mean the same, for instance a default that is left out.
        if PolicyState::decode(&policy).as_ref() == Ok(&genuine) {
            continue;
        }
        let outcome = verify(&Bundle { policy, ..bundle.clone() }, &trusted, None, 0);
        assert!(matches!(outcome, Err(BundleError::Policy(_))), "{altered}: {outcome:?}");
        refused += 1;
    }
    assert!(refused > 50, "only {refused} alterations were tried");
}

#[test]
fn secrets_and_history_are_not_carried_in() {
    let (trusted, bundle) = grown();
    let mut policy = PolicyState::decode(&bundle.policy).expect("decodes");
    policy.api_tokens.get_mut(&TokenId([2; 9])).expect("it").secret_hash = Hash([5; 32]);
    let outcome = verify(&Bundle { policy: policy.encode(), ..bundle }, &trusted, None, 0);
    assert!(matches!(outcome, Err(BundleError::Policy(_))), "{outcome:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_bundle_altered_anywhere_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
        let (trusted, bundle) = grown();
        let mut bytes = bundle.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        if let Ok(altered) = Bundle::decode(&bytes) {
            let outcome = verify(&altered, &trusted, None, 0);
            let genuine = verify(&bundle, &trusted, None, 0);
            // The text of a policy may be written otherwise and mean the same; nothing else may.
            prop_assert!(outcome.is_err() || (outcome == genuine && altered.policy != bundle.policy));
        }
    }

    #[test]
    fn hostile_bytes_never_panic(bytes: Vec<u8>, cut in any::<prop::sample::Index>()) {
        let (trusted, bundle) = grown();
        let _ = Bundle::decode(&bytes);
        let genuine = bundle.encode();
        prop_assert!(Bundle::decode(&genuine[..cut.index(genuine.len())]).is_err());
        let _ = verify(&Bundle { policy: bytes, ..bundle }, &trusted, None, 0);
    }

    #[test]
    fn exactly_a_majority_is_enough(voters in 1_usize..=MAX_VOTERS, signers in 0_usize..=MAX_VOTERS) {
        let names: Vec<String> = (0..voters).map(|i| format!("v{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let voters = set(1, &names);
        let signers = signers.min(names.len());
        let bundle = bundle_of(&policy(), &voters, &names[..signers], Vec::new());
        prop_assert_eq!(verify(&bundle, &trusted(voters), None, 0).is_ok(), signers * 2 > names.len());
    }
}
