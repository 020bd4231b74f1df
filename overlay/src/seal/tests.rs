use std::net::IpAddr;

use aws_lc_rs::agreement::{PrivateKey, X25519};
use proptest::prelude::*;
use selvedge_fabric::abi::Identity;

use super::{
    session::{EXPIRES_AFTER_US, REKEY_AFTER_US},
    *,
};
use crate::frame::{Flags, Kind, tests::any_header};

struct End {
    id: NodeId,
    key: PublicKey,
    sessions: Sessions,
}

fn end(id: u64) -> End {
    let secret = [id as u8 + 1; 32];
    let private = PrivateKey::from_private_key(&X25519, &secret).unwrap();
    let key = PublicKey(private.compute_public_key().unwrap().as_ref().try_into().unwrap());
    let id = NodeId(id);
    End { id, key, sessions: Sessions::new(id, Zeroizing::new(secret), 100 * id.0 as u32) }
}

fn header(from: NodeId, to: NodeId) -> Header {
    let address = |node: NodeId| IpAddr::from([10, 0, 0, node.0 as u8]);
    Header {
        kind: Kind::Sealed,
        flags: Flags::default(),
        hop_limit: 9,
        passed: 0,
        protocol: 17,
        port: 53,
        source_identity: Identity(1),
        destination_identity: Identity(2),
        source_node: from,
        destination_node: to,
        revision: 7,
        flow_label: 3,
        session: 0,
        counter: 0,
        source: address(from),
        destination: address(to),
    }
}

fn first(end: &mut End, to: &End, now: Micros) -> Vec<u8> {
    match end.sessions.seal(&to.key, &mut header(end.id, to.id), b"p", now).unwrap() {
        Sealed::NoSession { first: Some(first) } => first,
        other => panic!("{other:?}"),
    }
}

fn seal(end: &mut End, to: &End, packet: &[u8], now: Micros) -> (Header, Vec<u8>) {
    let mut header = header(end.id, to.id);
    match end.sessions.seal(&to.key, &mut header, packet, now).unwrap() {
        Sealed::Frame { frame, .. } => (header, frame[header.len()..].to_vec()),
        Sealed::NoSession { .. } => panic!("no session"),
    }
}

fn connect(a: &mut End, b: &mut End, now: Micros) {
    let message = first(a, b, now);
    let Handshaken::Answer(answer) = b.sessions.handshake(a.id, &a.key, &message, now).unwrap() else {
        panic!("no answer")
    };
    assert_eq!(a.sessions.handshake(b.id, &b.key, &answer, now), Ok(Handshaken::Ready));
}

#[test]
fn what_one_end_seals_the_other_opens_once() {
    let (mut a, mut b) = (end(1), end(2));
    connect(&mut a, &mut b, 0);
    let (header, sealed) = seal(&mut a, &b, b"a marker that nobody else reads", 1);
    assert!(!sealed.windows(6).any(|w| w == b"marker"));
    assert_eq!(b.sessions.open(&header, &sealed, 1), Ok(b"a marker that nobody else reads".to_vec()));
    assert_eq!(b.sessions.open(&header, &sealed, 1), Err(Refusal::Replayed));
    let (header, sealed) = seal(&mut b, &a, b"back", 1);
    assert_eq!(a.sessions.open(&header, &sealed, 1), Ok(b"back".to_vec()));
}

#[test]
fn the_one_who_answers_sends_only_when_the_other_is_known_to_have_the_session() {
    let (mut a, mut b) = (end(1), end(2));
    let message = first(&mut a, &b, 0);
    b.sessions.handshake(a.id, &a.key, &message, 0).unwrap();
    let unsure = b.sessions.seal(&a.key, &mut header(b.id, a.id), b"p", 0).unwrap();
    assert!(matches!(unsure, Sealed::NoSession { .. }), "{unsure:?}");
}

#[test]
fn both_may_begin_at_once() {
    let (mut a, mut b) = (end(1), end(2));
    let (from_a, from_b) = (first(&mut a, &b, 0), first(&mut b, &a, 0));
    let answers = [
        b.sessions.handshake(a.id, &a.key, &from_a, 0).unwrap(),
        a.sessions.handshake(b.id, &b.key, &from_b, 0).unwrap(),
    ];
    let [Handshaken::Answer(to_a), Handshaken::Answer(to_b)] = answers else { panic!("no answers") };
    assert_eq!(a.sessions.handshake(b.id, &b.key, &to_a, 0), Ok(Handshaken::Ready));
    assert_eq!(b.sessions.handshake(a.id, &a.key, &to_b, 0), Ok(Handshaken::Ready));
    let (header, sealed) = seal(&mut a, &b, b"there", 1);
    assert_eq!(b.sessions.open(&header, &sealed, 1), Ok(b"there".to_vec()));
    let (header, sealed) = seal(&mut b, &a, b"back", 1);
    assert_eq!(a.sessions.open(&header, &sealed, 1), Ok(b"back".to_vec()));
}

#[test]
fn a_third_node_can_neither_begin_in_anothers_name_nor_answer() {
    let (mut a, mut b, mut mallory) = (end(1), end(2), end(3));
    mallory.id = a.id;
    mallory.sessions.me = a.id;
    let forged = first(&mut mallory, &b, 0);
    assert_eq!(b.sessions.handshake(a.id, &a.key, &forged, 0), Err(Refusal::BadHandshake));
    let message = first(&mut a, &b, 0);
    mallory.sessions.me = b.id;
    assert_eq!(mallory.sessions.handshake(a.id, &a.key, &message, 0), Err(Refusal::BadHandshake));
    assert_eq!(
        b.sessions.handshake(a.id, &a.key, &message, 1),
        Err(Refusal::HandshakeRate),
        "answers are rationed, forged first messages count"
    );
}

#[test]
fn sessions_are_replaced_in_time_and_those_before_open_what_is_under_way() {
    let (mut a, mut b) = (end(1), end(2));
    connect(&mut a, &mut b, 0);
    let confirms = seal(&mut a, &b, b"confirms", 1);
    b.sessions.open(&confirms.0, &confirms.1, 1).unwrap();
    let under_way = seal(&mut a, &b, b"under way", 1);
    let old = a.sessions.seal(&b.key, &mut header(a.id, b.id), b"p", REKEY_AFTER_US).unwrap();
    let Sealed::Frame { first: Some(message), .. } = old else { panic!("{old:?}") };
    let answer = b.sessions.handshake(a.id, &a.key, &message, REKEY_AFTER_US).unwrap();
    let Handshaken::Answer(answer) = answer else { panic!("no answer") };
    a.sessions.handshake(b.id, &b.key, &answer, REKEY_AFTER_US).unwrap();
    let (header, sealed) = seal(&mut a, &b, b"new", REKEY_AFTER_US);
    assert_ne!(header.session, under_way.0.session);
    assert_eq!(b.sessions.open(&header, &sealed, REKEY_AFTER_US), Ok(b"new".to_vec()));
    assert_eq!(b.sessions.open(&under_way.0, &under_way.1, REKEY_AFTER_US), Ok(b"under way".to_vec()));
    let late = b.sessions.open(&header, &sealed, REKEY_AFTER_US + EXPIRES_AFTER_US);
    assert_eq!(late, Err(Refusal::UnknownSession));
}

#[test]
fn repeated_first_messages_push_out_nothing_in_use() {
    let (mut a, mut b) = (end(1), end(2));
    let message = first(&mut a, &b, 0);
    let Handshaken::Answer(answer) = b.sessions.handshake(a.id, &a.key, &message, 0).unwrap() else {
        panic!("no answer")
    };
    a.sessions.handshake(b.id, &b.key, &answer, 0).unwrap();
    let (header, sealed) = seal(&mut a, &b, b"confirms", 1);
    b.sessions.open(&header, &sealed, 1).unwrap();
    for n in 1..20 {
        b.sessions.handshake(a.id, &a.key, &message, n * MIN_ANSWER_INTERVAL_US).unwrap();
    }
    let (header, sealed) = seal(&mut a, &b, b"still", 2);
    assert_eq!(b.sessions.open(&header, &sealed, 2), Ok(b"still".to_vec()));
    assert!(b.sessions.peers[&a.id].sessions.len() <= MAX_SESSIONS);
}

#[test]
fn a_node_with_a_new_key_is_another_node() {
    let (mut a, mut b) = (end(1), end(2));
    connect(&mut a, &mut b, 0);
    let (header, sealed) = seal(&mut a, &b, b"p", 1);
    b.sessions.retain(|_| Some(end(9).key), 1);
    assert_eq!(b.sessions.open(&header, &sealed, 1), Err(Refusal::UnknownSession));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_altered_bit_is_refused(bit in 0_usize..1_000, other in any_header()) {
        let (mut a, mut b) = (end(1), end(2));
        connect(&mut a, &mut b, 0);
        let (header, mut sealed) = seal(&mut a, &b, b"a packet", 1);
        let bits = sealed.len() * 8;
        sealed[bit % bits / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(b.sessions.open(&header, &sealed, 1), Err(Refusal::Altered));
        sealed[bit % bits / 8] ^= 1 << (bit % 8);
        // A header that says anything else, under the same session and counter.
        let forged = Header {
            session: header.session,
            counter: header.counter,
            source_node: header.source_node,
            ..other
        };
        prop_assert_eq!(b.sessions.open(&forged, &sealed, 1), Err(Refusal::Altered));
        let carried = Header { hop_limit: other.hop_limit, passed: other.passed, ..header };
        prop_assert_eq!(b.sessions.open(&carried, &sealed, 1), Ok(b"a packet".to_vec()));
    }
}
