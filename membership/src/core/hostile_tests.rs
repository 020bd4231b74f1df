//! Bytes from outside: whatever peers send, nothing panics, nothing unsigned is taken, and what this node
//! says in turn stays within its bounds.

use std::collections::BTreeSet;

use bytes::Bytes;
use selvedge_fabric::{
    key::{NodeId, Signer},
    policy::PolicyState,
    record::{Body, LinkFact, Load, Observation, Presence, Record, Seen, Topic, Version},
    statement::Revocation,
};
use selvedge_fuzz::fuzz;

use super::{
    MAX_INCARNATION, Now,
    detector::{Detector, MAX_PACKET_BYTES},
    gossip::{Gossip, Transmit},
    own::{Identity, Own},
    store::{BUCKETS, Key, RecordStore},
    testing::{FABRIC, key, load, policy},
    wire::{Bucket, Request, Response, decode, encode},
};
use crate::{Timers, probes::Probe};

fn id(n: u8) -> NodeId {
    key(n).public_key().node_id()
}

fn gossip(policy: &PolicyState) -> Gossip {
    let mut store = RecordStore::new(FABRIC, 0);
    store.set_policy(policy);
    let own = policy.nodes.first_key_value().unwrap().1.key;
    Gossip::new(store, Own::new(own, 0, 101), 1_000, 1)
}

/// What two machines with some records say to each other.
fn conversation(records: &[Record]) -> Vec<Vec<u8>> {
    let keys: Vec<Key> = records.iter().map(Key::of).collect();
    let mut store = RecordStore::new(FABRIC, 0);
    store.set_policy(&policy(5));
    for record in records {
        store.merge(record.clone(), 0, true).unwrap();
    }
    let heads =
        |bucket: usize| Bucket { index: u8::try_from(bucket).unwrap(), heads: store.heads(bucket).collect() };
    let (node, key_of_5) = ("p5".parse().unwrap(), key(5).public_key());
    let revocation = Revocation { fabric: FABRIC, epoch: 0, node, key: key_of_5, at_ms: 7 };
    let requests = [
        Request::Sums { from: 9, sums: store.sums().to_vec() },
        Request::Sums { from: 0, sums: vec![0; BUCKETS] },
        Request::Exchange { give: records.to_vec(), want: keys.clone() },
        Request::Exchange { give: Vec::new(), want: keys.clone() },
        Request::Revocations(vec![revocation.sign(&key(9))]),
    ];
    let responses = [
        Response::Heads(keys.iter().map(|key| heads(key.bucket())).collect()),
        Response::Records(records.to_vec()),
        Response::Refused,
        Response::Noted,
    ];
    let requests = requests.iter().map(|message| encode(message).unwrap());
    let responses = responses.iter().map(|message| encode(message).unwrap());
    requests.chain(responses).chain(records.iter().map(Record::encode)).collect()
}

/// The next things a machine does; each fits into a message.
fn let_it_act(gossip: &mut Gossip, signer: &dyn Signer) {
    let identity = Identity { fabric: FABRIC, epoch: 0, signer };
    for mono_ms in [0, 50, 2_000, 10_000] {
        let now = Now { mono_ms, unix_ms: mono_ms };
        gossip.handle_timeout(&identity, now);
        while let Some(transmit) = gossip.poll_transmit(now) {
            if let Transmit::Ask { request, .. } = transmit {
                request.check().unwrap();
                encode(&request).unwrap();
            }
        }
        while gossip.poll_event().is_some() {}
    }
}

#[test]
fn gossip_messages() {
    let records: Vec<Record> = (2..=5).map(|n| load(n, 2, 3, u64::from(n), 7)).collect();
    let (policy, signer, now) = (policy(5), key(1), Now::default());
    let [one, two, three] = [1, 2, 3].map(id);
    fuzz("gossip messages", &conversation(&records), |bytes| {
        let mut gossip = gossip(&policy);
        for record in &records[..2] {
            gossip.handle_push(two, record.clone(), now);
        }
        gossip.own().say(Body::Load(Load::default()), false);
        gossip.handle_connected(two, now);
        if let Ok(request) = decode::<Request>(bytes) {
            encode(&gossip.handle_request(two, request, now)).unwrap();
        }
        if let Ok(response) = decode::<Response>(bytes) {
            gossip.handle_response(two, response, now);
        }
        if let Ok(record) = Record::decode(bytes) {
            gossip.handle_push(three, record, now);
        }
        let_it_act(&mut gossip, &signer);
        for (key, entry) in gossip.store().iter().filter(|(key, _)| key.node != one) {
            assert!(records.contains(&entry.record), "taken, and nobody signed it: {key:?}");
        }
    });
}

/// A malicious node signs what it likes: here the bodies are hostile, and their signatures good.
#[test]
fn gossip_bodies() {
    let seen = |node, incarnation, seen| Observation { node, incarnation, seen };
    let bodies = [
        Body::Load(Load { cpu_percent: 7, rss_mib: 30 }),
        Body::Links(vec![LinkFact { peer: id(3), rtt_us: 900, loss_permille: 3 }]),
        Body::Observations(vec![seen(id(3), 1, Seen::Silent), seen(id(4), 9, Seen::Vouched)]),
        Body::Presence(Presence {
            addresses: vec!["127.0.0.1:7401".parse().unwrap()],
            software: "0.1.0".to_owned(),
            ..Presence::default()
        }),
    ];
    // The first bytes are the version, which a malicious node chooses as well.
    let seeds = bodies.iter().map(|body| {
        let version = Version { epoch: 0, incarnation: 2, sequence: 3 };
        postcard::to_stdvec(&(version, 17_u64, body)).unwrap()
    });
    let seeds: Vec<_> = seeds.collect();
    let (policy, signer, other, two) = (policy(5), key(1), key(2), id(2));
    fuzz("gossip bodies", &seeds, |bytes| {
        let Ok((version, nonce, body)) = postcard::from_bytes::<(Version, u64, Body)>(bytes) else { return };
        let mut gossip = gossip(&policy);
        gossip.handle_connected(two, Now::default());
        // Of another node, and as if this node had said it in an earlier life.
        for signer in [&other, &signer] {
            let Ok(record) = Record::sign(&FABRIC, signer, version, nonce, &body) else { return };
            gossip.handle_push(two, record, Now::default());
        }
        let_it_act(&mut gossip, &signer);
        for topic in [Topic::Load, Topic::Links, Topic::Observations, Topic::Presence] {
            let _ = gossip.store().body(two, topic);
        }
        let highest = gossip.store().iter().map(|(_, entry)| entry.rank.version.incarnation).max();
        assert!(highest <= Some(MAX_INCARNATION));
    });
}

fn detector(node: u64) -> Detector {
    let mut detector = Detector::new(NodeId(node), 1, &Timers::default(), node);
    detector.set_members((1..=4).map(NodeId).collect());
    detector
}

/// Lets four detectors talk for some seconds; returns what 2 said to 1.
fn packets() -> Vec<Bytes> {
    let mut all: Vec<_> = (1..=4).map(detector).collect();
    let mut heard = BTreeSet::new();
    for now_ms in (0..6_000).step_by(20) {
        let mut sent = Vec::new();
        for (from, detector) in (1..).zip(&mut all) {
            detector.handle_timeout(now_ms);
            sent.extend(
                std::iter::from_fn(|| detector.poll_transmit()).map(|(to, packet)| (from, to.0, packet)),
            );
        }
        // One falls silent, so that there is something to gossip about.
        for (from, to, packet) in sent.into_iter().filter(|(from, ..)| *from != 4 || now_ms < 2_000) {
            if (from, to) == (2, 1) {
                heard.insert(packet.clone());
            }
            let to = usize::try_from(to - 1).unwrap();
            all[to].handle_packet(NodeId(from), &packet, now_ms).unwrap();
        }
    }
    heard.into_iter().collect()
}

#[test]
fn probes() {
    let packets = packets();
    let mut seeds: Vec<Vec<u8>> =
        packets.iter().map(|packet| Probe::Swim(packet.clone()).encode().to_vec()).collect();
    seeds.extend([Probe::Ping, Probe::Pong].map(|probe| probe.encode().to_vec()));
    fuzz("probes", &seeds, |bytes| {
        let Some(Probe::Swim(packet)) = Probe::decode(Bytes::copy_from_slice(bytes)) else { return };
        let mut one = detector(1);
        one.handle_packet(NodeId(2), &packets[0], 0).unwrap();
        for (at_ms, again_ms) in [(10, 800), (900, 6_000), (7_000, 20_000)] {
            let _ = one.handle_packet(NodeId(2), &packet, at_ms);
            one.handle_timeout(again_ms);
            while let Some((to, packet)) = one.poll_transmit() {
                assert!(packet.len() <= MAX_PACKET_BYTES && (1..=4).contains(&to.0), "to {to}");
            }
        }
        for (node, swim) in one.states() {
            assert!((1..=4).contains(&node.0) && swim.incarnation <= MAX_INCARNATION, "{node}: {swim:?}");
        }
    });
}
