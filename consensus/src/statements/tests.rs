use std::collections::BTreeSet;

use ed25519_dalek::SigningKey;
use openraft::Membership;
use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::NodeName,
    key::{FabricId, Hash, NodeId, PublicKey},
    policy::{Admission, FabricParams, PolicyState},
};

use super::{
    book::{Stated, Taken},
    *,
};
use crate::{types::Member, voters::VoterHistory};

const FABRIC: FabricId = FabricId([1; 16]);

fn key(number: u8) -> SigningKey {
    SigningKey::from_bytes(&[number; 32])
}

fn policy(nodes: &[u8]) -> PolicyState {
    let params = FabricParams {
        name: NodeName::new("test").unwrap(),
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
    let mut state = PolicyState { params: Some(params), revision: 1, ..PolicyState::default() };
    for number in nodes {
        let admission = Admission {
            key: key(*number).public_key(),
            sealing_key: PublicKey([0; 32]),
            role: Role::Processor,
            zone: "aws".parse().unwrap(),
            state: AdmissionState::Active,
            block: u32::from(*number),
            token: None,
            admitted_ms: 0,
        };
        state.nodes.insert(NodeName::new(&format!("p{number}")).unwrap(), admission);
    }
    state
}

fn id(number: u8) -> u64 {
    let NodeId(id) = key(number).public_key().node_id();
    id
}

fn membership(configs: &[&[u8]]) -> Membership<u64, Member> {
    let configs = configs.iter().map(|c| c.iter().map(|n| id(*n)).collect::<BTreeSet<u64>>()).collect();
    Membership::new(configs, None)
}

fn history(sets: &[&[u8]], policy: &PolicyState) -> VoterHistory {
    let mut history = VoterHistory::default();
    for set in sets {
        history.note(&membership(&[set]));
        history.resolve(policy, 0);
    }
    history
}

fn stated(policy: &PolicyState, voters: &VoterHistory) -> Stated {
    let set = voters.present().expect("voters").clone();
    Stated { claim: Claim::of(policy, &set).expect("a fabric"), policy: Arc::new(policy.clone()), set }
}

#[test]
fn voters_are_numbered_when_their_keys_are_known() {
    let mut history = VoterHistory::default();
    history.note(&membership(&[&[1]]));
    history.resolve(&PolicyState::default(), 0);
    assert_eq!(history.present(), None, "the first membership precedes the first admission");
    history.resolve(&policy(&[1]), 0);
    assert_eq!(history.present().map(|set| set.sequence), Some(1));
    history.note(&membership(&[&[1], &[1, 2, 3]]));
    assert!(!history.is_pending(), "while both sets must agree, the old one speaks");
    history.note(&membership(&[&[1, 2, 3]]));
    history.resolve(&policy(&[1, 2, 3]), 0);
    assert_eq!(history.present().map(|set| (set.sequence, set.voters.len())), Some((2, 3)));
    history.note(&membership(&[&[3, 2, 1]]));
    history.resolve(&policy(&[1, 2, 3]), 0);
    assert_eq!(history.present().map(|set| set.sequence), Some(2), "a learner that came changes no voter");
}

#[test]
fn a_majority_of_the_present_voters_is_needed() {
    let policy = policy(&[1, 2, 3]);
    let voters = history(&[&[1, 2, 3]], &policy);
    let mut book = Book::default();
    let state = stated(&policy, &voters);
    book.note(state.clone(), false);
    book.keep(Statement::sign(state.claim, &key(1)));
    assert!(book.agreed_by_majority().is_none());
    assert_eq!(book.take(&Statement::sign(state.claim, &key(9))), Taken::Ignored, "no voter");
    let forged = Statement { voter: key(2).public_key(), ..Statement::sign(state.claim, &key(9)) };
    assert_eq!(book.take(&forged), Taken::Ignored);
    let other = Claim { policy: Hash([7; 32]), ..state.claim };
    assert_eq!(book.take(&Statement::sign(other, &key(2))), Taken::Diverged);
    assert!(book.agreed_by_majority().is_none());
    assert_eq!(book.take(&Statement::sign(state.claim, &key(3))), Taken::Counted);
    assert_eq!(
        book.agreed_by_majority().map(|(s, signatures)| (s.claim, signatures.len())),
        Some((state.claim, 2))
    );
}

#[test]
fn a_checkpoint_is_handed_out_while_the_newest_revision_is_not_signed() {
    let before = policy(&[1, 2, 3]);
    let voters = history(&[&[1, 2, 3]], &before);
    let after = PolicyState { revision: 2, ..before.clone() };
    let mut book = Book::default();
    let checkpoint = stated(&before, &voters);
    book.note(checkpoint.clone(), true);
    book.note(stated(&after, &voters), false);
    assert_eq!(book.wanted(), [1, 2]);
    for number in [1, 2] {
        book.take(&Statement::sign(checkpoint.claim, &key(number)));
    }
    assert_eq!(book.agreed_by_majority().map(|(s, _)| s.claim.revision), Some(1));
    for number in [2, 3] {
        book.take(&Statement::sign(stated(&after, &voters).claim, &key(number)));
    }
    assert_eq!(book.agreed_by_majority().map(|(s, _)| s.claim.revision), Some(2));
}

#[test]
fn successions_are_signed_by_those_who_hand_over() {
    let policy = policy(&[1, 2, 3, 4]);
    let voters = history(&[&[1], &[1, 2, 3], &[2, 3, 4]], &policy);
    let (mut one, mut four) = (Book::default(), Book::default());
    assert!(one.sign_links(&voters, &FABRIC, &key(1)));
    assert!(!one.sign_links(&voters, &FABRIC, &key(1)), "once is enough");
    assert!(!four.sign_links(&voters, &FABRIC, &key(4)), "it has not handed over anything");
    assert_eq!(four.unsigned(&voters).map(|(first, _)| first), Some(2));
    for link in one.links(&voters, 1, 8) {
        assert!(four.take_link(&voters, &FABRIC, &link));
    }
    assert_eq!(four.unsigned(&voters).map(|(first, _)| first), Some(3), "one of three is no majority");
    assert_eq!(four.chain(&voters, 1, 3), None);
    let mut two = Book::default();
    two.sign_links(&voters, &FABRIC, &key(2));
    for mut link in two.links(&voters, 2, 8) {
        link.signatures.insert(key(3).public_key(), selvedge_fabric::key::Signature([0; 64]));
        assert!(four.take_link(&voters, &FABRIC, &link));
    }
    let chain = four.chain(&voters, 1, 3).expect("complete");
    assert_eq!(
        chain.iter().map(|link| link.signatures.len()).collect::<Vec<_>>(),
        [1, 2],
        "no forged signature"
    );
    assert_eq!(four.chain(&voters, 3, 3), Some(Vec::new()));
    assert_eq!(four.chain(&voters, 0, 3), None, "nothing comes before the first set");
}
