use bytes::Bytes;
use selvedge_fabric::id::NodeName;

use super::{world::World, *};
use crate::{
    frame::Kind,
    testing::{client_ipv4, contract, name, node_ipv4, path, server_ipv4, udp4, verdicts},
    wire::Datagram,
};

const MARKER: &[u8] = b"a marker that only the ends may see";

fn question(from: u64, to: u64) -> Vec<u8> {
    udp4(client_ipv4(from), server_ipv4(to), 4_000, 53, MARKER)
}

fn answer(from: u64, to: u64) -> Vec<u8> {
    udp4(server_ipv4(from), client_ipv4(to), 53, 4_000, MARKER)
}

/// 1 and 3 are not connected but over 2.
fn relayed() -> World {
    World::new(&[(1, "a"), (2, "b"), (3, "c")], &[(1, 2), (2, 3)])
}

/// The newest sealed frame that went from one node to another, as a datagram.
fn sealed(world: &World, from: u64, to: u64) -> Bytes {
    let is_sealed = |bytes: &Bytes| match Datagram::decode(bytes) {
        Ok(Datagram::Frame(frame)) => Header::decode(&frame).is_ok_and(|h| h.kind == Kind::Sealed),
        _ => false,
    };
    let found = world.wire.iter().rev().find(|(a, b, bytes)| (*a, *b) == (from, to) && is_sealed(bytes));
    found.expect("a sealed frame").2.clone()
}

fn names(ids: &[u64]) -> Vec<NodeName> {
    ids.iter().map(|id| name(*id)).collect()
}

#[test]
fn neighbours_exchange_packets() {
    let mut world = World::new(&[(1, "a"), (2, "b")], &[(1, 2)]);
    world.send(1, &question(1, 2));
    assert_eq!(world.arrived_at(2), [question(1, 2)]);
    world.send(2, &answer(2, 1));
    assert_eq!(world.arrived_at(1), [answer(2, 1)]);
    let ping = {
        let mut p = udp4([100, 64, 1, 1], [100, 64, 2, 1], 0x0800, 0, b"");
        p[9] = 1;
        p
    };
    assert_eq!(node_ipv4(1).octets(), [100, 64, 1, 1]);
    world.send(1, &ping);
    assert_eq!(world.arrived_at(2), [ping]);
}

#[test]
fn what_the_source_refuses_does_not_leave() {
    let mut world = World::new(&[(1, "a"), (2, "b")], &[(1, 2)]);
    let before = world.wire.len();
    for (packet, why) in [
        (udp4(client_ipv4(1), server_ipv4(2), 4_000, 54, b""), Refusal::NoContract),
        (udp4(server_ipv4(1), client_ipv4(2), 4_000, 53, b""), Refusal::NoContract),
        (question(2, 1), Refusal::SpoofedSource),
        (question(1, 9), Refusal::UnknownAddress),
        (question(1, 1), Refusal::WrongDestination),
        (udp4(client_ipv4(1), [224, 0, 0, 1], 1, 53, b""), Refusal::NotUnicast),
        (b"garbage".to_vec(), Refusal::NotIp),
    ] {
        world.send(1, &packet);
        assert_eq!(
            world.refused(1, why),
            if why == Refusal::NoContract { world.refused(1, why) } else { 1 },
            "{why}"
        );
    }
    assert_eq!((world.refused(1, Refusal::NoContract), world.wire.len()), (2, before));
}

#[test]
fn a_processor_carries_what_it_cannot_read() {
    let mut world = relayed();
    world.send(1, &question(1, 3));
    assert_eq!(world.arrived_at(3), [question(1, 3)]);
    world.send(3, &answer(3, 1));
    assert_eq!(world.arrived_at(1), [answer(3, 1)]);
    let readable = |bytes: &Bytes| bytes.windows(MARKER.len()).any(|window| window == MARKER);
    assert!(!world.wire.iter().any(|(_, _, bytes)| readable(bytes)), "the marker was in clear");
    assert!(world.routers[&2].counters().carried >= 2);
    // Direct, QUIC keeps it secret, and the marker is in clear within.
    world.connected.insert((1, 3));
    world.run(1_000);
    world.send(1, &question(1, 3));
    assert!(world.wire.iter().any(|(from, to, bytes)| (*from, *to) == (1, 3) && readable(bytes)));
}

#[test]
fn replayed_and_altered_frames_are_dropped_and_told_apart() {
    let mut world = relayed();
    world.send(1, &question(1, 3));
    assert_eq!(world.arrived_at(3).len(), 1);
    let frame = sealed(&world, 2, 3);
    world.inject(2, 3, &frame);
    assert_eq!((world.refused(3, Refusal::Replayed), world.arrived_at(3).len()), (1, 0));
    // The carrier takes a fresh frame and alters the payload, then what the header says.
    let mut altered = frame.to_vec();
    let counter_ends = 1 + 56;
    altered[counter_ends - 1] = altered[counter_ends - 1].wrapping_add(1);
    world.inject(2, 3, &altered.clone().into());
    *altered.last_mut().unwrap() ^= 1;
    world.inject(2, 3, &altered.into());
    assert_eq!((world.refused(3, Refusal::Altered), world.arrived_at(3).len()), (2, 0));
    let lie = |at: usize, value: u8| {
        let mut bytes = frame.to_vec();
        bytes[1 + at] = value;
        Bytes::from(bytes)
    };
    world.inject(2, 3, &lie(7, 54));
    assert_eq!(world.refused(3, Refusal::NoContract), 1);
    world.inject(2, 3, &lie(11, 2));
    assert_eq!(world.refused(3, Refusal::ForeignIdentity), 1);
    world.inject(2, 3, &lie(23, 2));
    assert_eq!(world.refused(3, Refusal::SpoofedSource), 1);
    assert_eq!(world.arrived_at(3).len(), 0);
}

#[test]
fn nothing_unsealed_comes_over_a_third_node() {
    let mut world = World::new(&[(1, "a"), (2, "b"), (3, "c")], &[(1, 2), (2, 3), (1, 3)]);
    world.send(1, &question(1, 3));
    assert_eq!(world.arrived_at(3).len(), 1);
    let plain = world.wire.iter().rev().find(|(from, to, bytes)| (*from, *to) == (1, 3) && bytes[0] == 1);
    let plain = plain.unwrap().2.clone();
    world.inject(2, 3, &plain);
    world.inject(1, 2, &plain);
    assert_eq!((world.refused(3, Refusal::Unsealed), world.refused(2, Refusal::Unsealed)), (1, 1));
}

#[test]
fn a_dead_link_is_noticed_and_gone_around_within_a_second() {
    let nodes = [(1, "a"), (2, "b"), (3, "c"), (4, "d")];
    let mut world = World::new(&nodes, &[(1, 2), (2, 3), (1, 4), (4, 3)]);
    world.send(1, &question(1, 3));
    world.arrived_at(3);
    let route = world.routers[&1].trace(Some(&contract()), &name(3)).unwrap();
    let through = route[1].clone();
    let dead = if through == name(2) { (1, 2) } else { (1, 4) };
    // The underlay swallows everything and tells nobody.
    world.connected.remove(&dead);
    world.routers.get_mut(&1).unwrap().handle_connection(NodeId(dead.1), Some(1_414), world.now);
    world.run(900);
    world.send(1, &question(1, 3));
    assert_eq!(world.arrived_at(3), [question(1, 3)]);
    assert_ne!(world.routers[&1].trace(Some(&contract()), &name(3)).unwrap()[1], through);
}

#[test]
fn paths_are_those_that_the_contract_permits() {
    let nodes = [(1, "a"), (2, "b"), (3, "c"), (4, "d")];
    let mut world = World::new(&nodes, &[(1, 2), (2, 3), (1, 4), (4, 3)]);
    let trace = |world: &World| world.routers[&1].trace(Some(&contract()), &name(3));
    for (avoid, over) in [("b", 4), ("d", 2)] {
        world.intent.paths = [(contract(), path(&[avoid], &[], None))].into();
        world.plan();
        world.wire.clear();
        world.send(1, &question(1, 3));
        assert_eq!(world.arrived_at(3), [question(1, 3)], "avoiding {avoid}");
        assert_eq!(trace(&world), Ok(names(&[1, over, 3])));
        let around = |(from, to, bytes): &(u64, u64, Bytes)| {
            bytes[0] > 2 || [from, to].iter().all(|node| [1, over, 3].contains(node))
        };
        assert!(world.wire.iter().all(around));
    }
    world.intent.paths = [(contract(), path(&["b", "d"], &[], None))].into();
    world.plan();
    world.send(1, &question(1, 3));
    assert_eq!((trace(&world), world.refused(1, Refusal::NoRoute)), (Err(Refusal::NoRoute), 1));
    world.intent.paths = [(contract(), path(&[], &[], Some(1)))].into();
    world.plan();
    world.send(1, &question(1, 3));
    assert_eq!(world.refused(1, Refusal::NoRoute), 2);
    world.intent.paths.clear();
    let zones = ["b", "d"].map(|zone| zone.parse().unwrap());
    world.intent.refusals = [(contract(), zones.to_vec())].into();
    world.plan();
    world.send(1, &question(1, 3));
    assert_eq!((world.refused(1, Refusal::TransitRefused), world.arrived_at(3).len()), (1, 0));
}

#[test]
fn a_place_to_pass_is_passed_even_where_there_is_a_direct_link() {
    let mut world = World::new(&[(1, "a"), (2, "b"), (3, "c")], &[(1, 2), (2, 3), (1, 3)]);
    world.intent.paths = [(contract(), path(&[], &["b"], Some(2)))].into();
    world.plan();
    let before = world.routers[&2].counters().carried;
    world.send(1, &question(1, 3));
    assert_eq!(world.arrived_at(3), [question(1, 3)]);
    assert!(world.routers[&2].counters().carried > before);
}

#[test]
fn each_hop_judges_by_its_own_tables_and_waits_for_the_policy_of_the_packet() {
    let mut world = relayed();
    world.send(1, &question(1, 3));
    world.arrived_at(3);
    // 2 withdraws the contract first: it carries no more, whatever the ends think.
    world.frozen = [1, 3].into();
    (world.intent.revision, world.intent.verdicts) = (2, verdicts(false).into());
    world.plan();
    world.send(1, &question(1, 3));
    assert_eq!((world.refused(2, Refusal::NoContract), world.arrived_at(3).len()), (1, 0));
    // Then the contract returns, and 2 is the last one to know.
    world.frozen = [2].into();
    (world.intent.revision, world.intent.verdicts) = (3, verdicts(true).into());
    world.plan();
    world.send(1, &question(1, 3));
    assert_eq!((world.refused(2, Refusal::NoContract), world.arrived_at(3).len()), (1, 0), "it waits");
    world.frozen.clear();
    world.plan();
    world.run(5);
    assert_eq!(world.arrived_at(3), [question(1, 3)]);
    // A wait has an end, and so has the queue.
    world.frozen = [2].into();
    world.intent.revision = 5;
    world.routers.get_mut(&2).unwrap().handle_plan(
        Arc::new(Routing {
            me: Some(NodeId(2)),
            revision: 4,
            verdicts: verdicts(false).into(),
            ..world.intent.clone()
        }),
        world.now,
    );
    world.plan();
    for _ in 0..100 {
        world.send(1, &question(1, 3));
    }
    assert_eq!(world.refused(2, Refusal::PolicyWaitFull), 100 - 64);
    world.run(1_500);
    assert!(world.refused(2, Refusal::PolicyWaitExpired) >= 60);
}

#[test]
fn a_frame_that_may_go_no_further_is_dropped() {
    let mut world = relayed();
    world.send(1, &question(1, 3));
    let frame = sealed(&world, 1, 2);
    for hop_limit in [0, 200] {
        let mut bytes = frame.to_vec();
        bytes[1 + 2] = hop_limit;
        world.inject(1, 2, &bytes.into());
    }
    assert_eq!(world.refused(2, Refusal::HopLimit), 2);
}

#[test]
fn a_node_that_was_restarted_gets_new_sessions() {
    let mut world = relayed();
    world.send(1, &question(1, 3));
    assert_eq!(world.arrived_at(3).len(), 1);
    world.restart(3);
    world.run(2_500);
    world.send(1, &question(1, 3));
    assert_eq!(world.refused(3, Refusal::UnknownSession), 1);
    world.run(50);
    world.send(1, &question(1, 3));
    assert_eq!(world.arrived_at(3), [question(1, 3)]);
}

#[test]
fn the_first_packets_wait_for_the_session_and_the_handshake_is_repeated_when_lost() {
    let mut world = relayed();
    let mut blocked = std::mem::take(&mut world.connected);
    world.send(1, &question(1, 3));
    std::mem::swap(&mut world.connected, &mut blocked);
    assert_eq!(world.arrived_at(3).len(), 0);
    world.run(800);
    assert_eq!(world.arrived_at(3), [question(1, 3)]);
}

#[test]
fn a_narrow_underlay_carries_packets_of_1280_bytes() {
    let mut world = relayed();
    world.max_datagram = 1_162;
    world.run(100);
    let large = udp4(client_ipv4(1), server_ipv4(3), 4_000, 53, &[5; 1_252]);
    assert_eq!(large.len(), 1_280);
    world.send(1, &large);
    assert_eq!(world.arrived_at(3), [large]);
    // What not even two datagrams hold is answered, if it may not be fragmented.
    let mut huge = udp4(client_ipv4(1), server_ipv4(3), 4_000, 53, &[5; 2_400]);
    huge[6] |= 0x40;
    world.send(1, &huge);
    let told = world.arrived_at(1);
    assert_eq!((world.refused(1, Refusal::TooLarge), told.len(), &told[0][20..22]), (1, 1, &[3, 4][..]));
}

#[test]
fn workload_nodes_reach_each_other_over_their_homes_and_directly_where_they_can() {
    let nodes = [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (101, "a"), (102, "b")];
    let mesh = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)];
    let homes = [(1, 101), (2, 101), (3, 102), (4, 102)];
    let mut world = World::new(&nodes, &[&mesh[..], &homes[..]].concat());
    world.send(101, &question(101, 102));
    assert_eq!(world.arrived_at(102), [question(101, 102)]);
    let trace = |world: &World| world.routers[&101].trace(None, &name(102)).unwrap().len();
    assert_eq!(trace(&world), 4);
    world.connected.insert((101, 102));
    world.run(500);
    assert_eq!(trace(&world), 2);
    // Both homes of one die, one after the other.
    world.connected.remove(&(101, 102));
    world.connected.remove(&(1, 101));
    world.run(2_000);
    world.send(101, &question(101, 102));
    assert_eq!(world.arrived_at(102), [question(101, 102)]);
}

#[test]
fn a_revoked_node_is_heard_no_more() {
    let mut world = relayed();
    world.send(1, &question(1, 3));
    world.arrived_at(3);
    let frame = sealed(&world, 1, 2);
    world.intent.nodes.remove(&NodeId(1));
    world.intent.owners.retain(|_, owner| owner.node != NodeId(1));
    world.plan();
    world.inject(1, 2, &frame);
    assert_eq!((world.refused(2, Refusal::UnknownNode), world.arrived_at(3).len()), (1, 0));
    assert!(world.routers[&2].links().iter().all(|link| link.peer != name(1)));
}

#[test]
fn links_and_routes_are_told() {
    let mut world = relayed();
    world.run(1_000);
    let links = world.routers[&2].links();
    let told: Vec<_> = links.iter().map(|link| (link.peer.clone(), link.state, link.loss)).collect();
    assert_eq!(told, [(name(1), LinkState::Up, 0.0), (name(3), LinkState::Up, 0.0)]);
    assert!(links.iter().all(|link| link.rtt_ms.is_some_and(|rtt| rtt > 0.0) && link.tx_bytes > 0));
    let routes = world.routers[&1].routes();
    assert_eq!(routes[1], RouteStatus { node: name(3), path: names(&[1, 2, 3]) });
    let facts = world.routers[&1].facts();
    assert_eq!(facts_differ(&facts, &facts), None);
    assert_eq!(facts_differ(&facts, &[]), Some(Difference::Links));
    let mut slower = facts.clone();
    slower[0].rtt_us += 50_000;
    assert_eq!(facts_differ(&facts, &slower), Some(Difference::Quality));
}
