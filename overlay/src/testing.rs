//! Fixtures: packets, and fabrics of a few nodes.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use selvedge_fabric::{
    abi::{Class, EdgeKey, Groups, Identity, Mode, Range, Reason},
    command::Role,
    compile::{Member, Origin, Rule, VerdictTables},
    id::{ContractRef, Name, NodeName, ObjectRef},
    key::{NodeId, PublicKey},
    object::PathSpec,
    plan::{Addresses, LinkQuality, Owner, RouteNode, Routing},
};

pub(crate) const GOOD: LinkQuality = LinkQuality { rtt_us: 1_000, loss_permille: 0 };
/// The identities of the two services of the fixture: the first may open UDP port 53 of the second.
pub(crate) const CLIENT: Identity = Identity(1);
pub(crate) const SERVER: Identity = Identity(2);

pub(crate) fn udp4(source: [u8; 4], destination: [u8; 4], from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let udp = udp(from, to, payload);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0];
    let length = (20 + udp.len()) as u16;
    packet[2..4].copy_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&source);
    packet.extend_from_slice(&destination);
    packet.extend_from_slice(&udp);
    packet
}

pub(crate) fn udp6(source: u128, destination: u128, from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let udp = udp(from, to, payload);
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 17, 64];
    packet[4..6].copy_from_slice(&(udp.len() as u16).to_be_bytes());
    packet.extend_from_slice(&Ipv6Addr::from(source).octets());
    packet.extend_from_slice(&Ipv6Addr::from(destination).octets());
    packet.extend_from_slice(&udp);
    packet
}

fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
    let length = (8 + payload.len()) as u16;
    let head = [from.to_be_bytes(), to.to_be_bytes(), length.to_be_bytes(), [0, 0]].concat();
    [&head[..], payload].concat()
}

/// An IPv4 "host unreachable" that quotes `about`.
pub(crate) fn icmp_error(source: [u8; 4], destination: [u8; 4], about: &[u8]) -> Vec<u8> {
    let mut packet = udp4(source, destination, 0x0301, 0, about);
    packet[9] = 1;
    packet
}

/// A zone `a`, `b`, … and nodes in it are named by their ids: processors up to 99, workload nodes above.
pub(crate) fn node(id: u64, zone: &str) -> (NodeId, RouteNode) {
    let role = if id < 100 { Role::Processor } else { Role::Workload };
    let node = RouteNode {
        name: name(id),
        role,
        zone: zone.parse().expect("a zone"),
        sealing_key: public_key(id),
        up: true,
        revision: Some(1),
        addresses: Addresses { ipv4: Some(node_ipv4(id)), ipv6: None },
    };
    (NodeId(id), node)
}

pub(crate) fn name(id: u64) -> NodeName {
    NodeName::new(&format!("n{id}")).expect("a name")
}

pub(crate) fn secret(id: u64) -> [u8; 32] {
    let mut secret = [7; 32];
    secret[..8].copy_from_slice(&id.to_be_bytes());
    secret
}

pub(crate) fn public_key(id: u64) -> PublicKey {
    let private = PrivateKey::from_private_key(&X25519, &secret(id)).expect("a key");
    PublicKey(private.compute_public_key().expect("a key").as_ref().try_into().expect("32 bytes"))
}

pub(crate) fn node_ipv4(id: u64) -> Ipv4Addr {
    Ipv4Addr::new(100, 64, id as u8, 1)
}

/// The client's endpoint on a node ends in 2, the server's in 3.
pub(crate) fn client_ipv4(id: u64) -> [u8; 4] {
    [100, 64, id as u8, 2]
}

pub(crate) fn server_ipv4(id: u64) -> [u8; 4] {
    [100, 64, id as u8, 3]
}

pub(crate) fn contract() -> ContractRef {
    let name = |text| Name::new(text).expect("a name");
    ObjectRef::new(name("dns"), name("test"))
}

/// Nodes with a client and a server each, and one contract.
pub(crate) fn routing(me: u64, nodes: &[(u64, &str)], links: &[(u64, u64)]) -> Routing {
    let nodes: BTreeMap<_, _> = nodes.iter().map(|(id, zone)| node(*id, zone)).collect();
    let mut owners = BTreeMap::new();
    for id in nodes.keys() {
        let mut own = |address: IpAddr, identity| owners.insert(address, Owner { node: *id, identity });
        own(node_ipv4(id.0).into(), None);
        own(client_ipv4(id.0).into(), Some(CLIENT));
        own(server_ipv4(id.0).into(), Some(SERVER));
    }
    let both = |(a, b): &(u64, u64)| [((NodeId(*a), NodeId(*b)), GOOD), ((NodeId(*b), NodeId(*a)), GOOD)];
    Routing {
        revision: 1,
        me: Some(NodeId(me)),
        measured: links.iter().flat_map(both).collect(),
        verdicts: Arc::new(verdicts(true)),
        nodes,
        owners,
        ..Routing::default()
    }
}

/// The tables of the one contract, or with none.
pub(crate) fn verdicts(contract_holds: bool) -> VerdictTables {
    let mut tables = VerdictTables::default();
    for identity in [CLIENT, SERVER] {
        let name = |text: &str| Name::new(text).expect("a name");
        let service =
            ObjectRef::new(name(if identity == CLIENT { "client" } else { "server" }), name("test"));
        tables.members.insert(identity, Member { service, groups: Groups::default() });
    }
    if contract_holds {
        let ports = |class| (EdgeKey::new(CLIENT.0, SERVER.0, class), 53);
        let rule = |port| Range::new(port, port, Reason::Contract, Mode::Enforce, 1);
        for (key, port) in [ports(Class::Udp), ports(Class::Tcp)] {
            tables.contracts.insert(key, vec![rule(port)]);
        }
        tables.rules.push(Rule { origin: Origin::Contract(contract()), text: "clients may ask".to_owned() });
    }
    tables
}

pub(crate) fn path(avoid: &[&str], via: &[&str], max_hops: Option<u8>) -> PathSpec {
    let zones = |names: &[&str]| names.iter().map(|name| name.parse().expect("a zone")).collect();
    PathSpec { avoid: zones(avoid), via: zones(via), max_hops }
}
