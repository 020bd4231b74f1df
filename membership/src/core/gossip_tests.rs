use selvedge_fabric::{
    id::Name,
    key::Signer,
    policy::{FabricParams, PolicyState},
    record::{Body, Load, Topic},
    statement::Revocation,
};

use super::{
    super::testing::{FABRIC, key, load, policy},
    *,
};

fn gossip(n: u8) -> Gossip {
    let mut store = RecordStore::new(FABRIC, 0);
    store.set_policy(&policy(5));
    let own = Own::new(key(n).public_key(), 0, u64::from(n) + 100);
    Gossip::new(store, own, 1_000, u64::from(n))
}

fn id(n: u8) -> NodeId {
    key(n).public_key().node_id()
}

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: mono_ms }
}

fn say(gossip: &mut Gossip, n: u8, cpu_percent: u16, now: Now) {
    gossip.own().say(Body::Load(Load { cpu_percent, rss_mib: 0 }), false);
    let signer = key(n);
    gossip.handle_timeout(&Identity { fabric: FABRIC, epoch: 0, signer: &signer }, now);
}

fn events(gossip: &mut Gossip) -> Vec<Event> {
    std::iter::from_fn(|| gossip.poll_event()).collect()
}

/// Runs all requests between two machines to their end; returns how many there were.
fn converse(one: (&mut Gossip, u8), two: (&mut Gossip, u8), now: Now) -> usize {
    let mut count = 0;
    while let Some(transmit) = one.0.poll_transmit(now) {
        let Transmit::Ask { request, .. } = transmit else { continue };
        count += 1;
        let response = two.0.handle_request(id(one.1), request, now);
        one.0.handle_response(id(two.1), response, now);
    }
    count
}

#[test]
fn one_conversation_makes_two_stores_equal() {
    let (mut one, mut two) = (gossip(1), gossip(2));
    say(&mut one, 1, 10, at(0));
    say(&mut two, 2, 20, at(0));
    (3..=5).for_each(|n| assert_eq!(two.handle_push(id(n), load(n, 1, 1, 1, 1), at(0)), Verdict::Accept));
    one.handle_connected(id(2), at(0));
    assert!(converse((&mut one, 1), (&mut two, 2), at(0)) >= 2);
    assert_eq!(one.store().len(), 5);
    assert_eq!(one.store().sums(), two.store().sums());
    one.handle_connected(id(2), at(10_000));
    assert_eq!(converse((&mut one, 1), (&mut two, 2), at(10_000)), 1, "equal stores cost one request");
}

#[test]
fn forged_records_are_rejected_and_strangers_ignored() {
    let mut one = gossip(1);
    let mut forged = load(2, 1, 1, 1, 1);
    forged.boot_nonce = 9;
    assert_eq!(one.handle_push(id(3), forged, at(0)), Verdict::Reject);
    assert_eq!(one.handle_push(id(3), load(9, 1, 1, 1, 1), at(0)), Verdict::Ignore);
    let dropped = |event: &Event| matches!(event, Event::Dropped { from, .. } if *from == Some(id(3)));
    assert!(events(&mut one).iter().all(dropped));
    assert!(one.store().is_empty());
}

#[test]
fn a_node_that_floods_is_held_back_and_others_are_not() {
    let mut one = gossip(1);
    let taken = (1..500).filter(|&s| one.handle_push(id(2), load(2, 1, s, 1, 1), at(0)) == Verdict::Accept);
    assert_eq!(taken.count(), NODE_BURST as usize);
    assert_eq!(one.handle_push(id(3), load(3, 1, 1, 1, 1), at(0)), Verdict::Accept);
    assert_eq!(one.handle_push(id(2), load(2, 1, 999, 1, 1), at(1_000)), Verdict::Accept);
}

#[test]
fn a_restart_without_its_disk_continues_above_what_peers_hold() {
    let (mut reborn, mut peer) = (gossip(1), gossip(2));
    assert_eq!(peer.handle_push(id(3), load(1, 7, 4, 55, 1), at(0)), Verdict::Accept);
    say(&mut reborn, 1, 80, at(0));
    reborn.handle_connected(id(2), at(0));
    converse((&mut reborn, 1), (&mut peer, 2), at(0));
    assert!(events(&mut reborn).contains(&Event::Raised(8)));
    say(&mut reborn, 1, 80, at(200));
    let entry = reborn.store().get(&Key { node: id(1), topic: Topic::Load }).unwrap();
    assert_eq!(entry.rank.version.incarnation, 8);
    assert!(!reborn.holders().quarantined(id(1), 200));
}

#[test]
fn two_live_holders_of_a_key_are_quarantined_by_a_third() {
    let (mut original, mut clone, mut third) = (gossip(1), gossip(1), gossip(2));
    clone.own = Own::new(key(1).public_key(), 0, 4_242);
    for round in 0..8_u64 {
        let now = at(round * 2_000);
        for machine in [&mut original, &mut clone] {
            say(machine, 1, u16::try_from(round).unwrap(), now);
            machine.handle_connected(id(2), now);
            converse((machine, 1), (&mut third, 2), now);
            // What the third has of the other holder makes this one speak up again.
            say(machine, 1, u16::try_from(round).unwrap(), at(now.mono_ms + 500));
            machine.handle_connected(id(2), at(now.mono_ms + 6_000));
            converse((machine, 1), (&mut third, 2), at(now.mono_ms + 6_000));
        }
    }
    assert!(third.holders().quarantined(id(1), 20_000));
    assert!(events(&mut third).contains(&Event::Quarantined(id(1))));
}

#[test]
fn hostile_requests_and_answers_do_no_harm() {
    let mut one = gossip(1);
    let now = at(0);
    let short = Request::Sums { from: 0, sums: vec![1; 3] };
    assert_eq!(one.handle_request(id(2), short, now), Response::Refused);
    one.handle_connected(id(2), now);
    let lies = vec![(Key { node: NodeId(u64::MAX), topic: Topic::Load }, Rank::default()); 2 * MAX_HEADS];
    let buckets = (0..=255).map(|index| Bucket { index, heads: lies.clone() }).collect();
    one.handle_response(id(2), Response::Heads(buckets), now);
    one.handle_response(id(4), Response::Heads(Vec::new()), now);
    let want = vec![Key { node: id(3), topic: Topic::Load }; MAX_WANTED];
    let answer = one.handle_request(id(2), Request::Exchange { give: Vec::new(), want }, now);
    assert_eq!(answer, Response::Records(Vec::new()));
}

#[test]
fn own_records_are_paced_and_the_newest_is_sent() {
    let mut one = gossip(1);
    for cpu in 0..50 {
        say(&mut one, 1, cpu, at(u64::from(cpu)));
    }
    let sequence = |gossip: &Gossip| {
        gossip.store().get(&Key { node: id(1), topic: Topic::Load }).unwrap().rank.version.sequence
    };
    assert_eq!(sequence(&one), 1);
    say(&mut one, 1, 49, at(150));
    assert_eq!(sequence(&one), 2);
    assert_eq!(one.store().body(id(1), Topic::Load), Some(&Body::Load(Load { cpu_percent: 49, rss_mib: 0 })));
}

#[test]
fn what_is_said_before_admission_is_sent_after_it() {
    let own = Own::new(key(1).public_key(), 0, 7);
    let mut joining = Gossip::new(RecordStore::new(FABRIC, 0), own, 1_000, 1);
    say(&mut joining, 1, 10, at(0));
    assert_eq!((joining.store().len(), events(&mut joining)), (0, Vec::new()));
    joining.handle_policy(&policy(5), at(100));
    let signer = key(1);
    joining.handle_timeout(&Identity { fabric: FABRIC, epoch: 0, signer: &signer }, at(100));
    assert_eq!(
        joining.store().body(id(1), Topic::Load),
        Some(&Body::Load(Load { cpu_percent: 10, rss_mib: 0 }))
    );
}

/// Node `n` revoked by the recovery key.
fn revoked(n: u8) -> Arc<Revocations> {
    let (recovery, node) = (key(99), Name::new("p").expect("a name"));
    let params = FabricParams {
        name: node.clone(),
        id: FABRIC,
        suffix: "fabric.internal".to_owned(),
        ula_prefix: [0xfd, 0, 0, 0, 0, 1],
        ipv4_pool: "127.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        root_cert: Vec::new(),
        issuing_cert: Vec::new(),
        recovery_key: recovery.public_key(),
        created_ms: 0,
    };
    let policy = PolicyState { params: Some(params), ..policy(5) };
    let revocation = Revocation { fabric: FABRIC, epoch: 0, node, key: key(n).public_key(), at_ms: 1 };
    let mut known = Revocations::default();
    known.take(revocation.sign(&recovery), &policy).expect("genuine");
    Arc::new(known)
}

#[test]
fn forged_revocations_do_not_crowd_out_a_genuine_one() {
    let mut node = gossip(1);
    let forged = |n: u8| {
        let revocation = Revocation {
            fabric: FABRIC,
            epoch: 0,
            node: Name::new("p").expect("a name"),
            key: selvedge_fabric::key::PublicKey([n; 32]),
            at_ms: 1,
        };
        revocation.sign(&key(66))
    };
    let genuine = revoked(5);
    for _ in 0..10 {
        let flood = Request::Revocations((0..=255).map(forged).collect());
        assert_eq!(node.handle_request(id(2), flood, at(0)), Response::Noted);
    }
    let good = Request::Revocations(genuine.iter().cloned().collect());
    assert_eq!(node.handle_request(id(3), good, at(0)), Response::Noted);
    let all = events(&mut node);
    let of =
        |from: NodeId| all.iter().filter(|e| matches!(e, Event::Revocation(by, _) if *by == from)).count();
    assert_eq!(of(id(2)), NODE_BURST as usize, "the sender's share, and no more");
    assert_eq!(of(id(3)), 1);
}

#[test]
fn a_revocation_reaches_every_peer_and_who_was_away() {
    let known = revoked(5);

    let (mut one, mut two) = (gossip(1), gossip(2));
    one.handle_connected(id(2), at(0));
    converse((&mut one, 1), (&mut two, 2), at(0));
    one.handle_revocations(known.clone());
    converse((&mut one, 1), (&mut two, 2), at(0));
    let told = |events: Vec<Event>| events.iter().filter(|e| matches!(e, Event::Revocation(..))).count();
    assert_eq!(told(events(&mut two)), 1, "at once");

    // The message was lost on the way: the next round brings it.
    say(&mut one, 1, 1, at(60_000));
    converse((&mut one, 1), (&mut two, 2), at(60_000));
    assert_eq!(told(events(&mut two)), 1, "again");
    two.handle_revocations(known.clone());
    say(&mut one, 1, 1, at(120_000));
    converse((&mut one, 1), (&mut two, 2), at(120_000));
    assert_eq!(told(events(&mut two)), 0, "known");

    let mut away = gossip(3);
    one.handle_connected(id(3), at(120_000));
    converse((&mut one, 1), (&mut away, 3), at(120_000));
    assert_eq!(told(events(&mut away)), 1, "by connecting");
}
