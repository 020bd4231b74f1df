//! Whether a packet may pass, judged by this node's own tables: the same question at its source, on every
//! hop, and where it arrives.
//!
//! A packet that answers is judged by the flow that it answers. Only its receiver knows whether there is
//! such a flow, by its flow table; on the way it is enough that the contract could have one, so that no
//! node on the way needs to remember flows, and answers may take another path.

use selvedge_fabric::{
    abi::{Class, Identity, decide},
    command::Role,
    compile::Origin,
    id::ContractRef,
    key::NodeId,
    plan::{Owner, Routing},
};

use crate::{
    frame::{Flags, Header},
    packet::Packet,
    reason::Refusal,
    route::link_is_permitted,
};

/// Who is at the two ends of a packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ends {
    pub(crate) source: Owner,
    pub(crate) destination: Owner,
}

/// The ends of a packet by its addresses.
pub(crate) fn ends(routing: &Routing, packet: &Packet) -> Result<Ends, Refusal> {
    let owner = |address| routing.owners.get(&address).copied().ok_or(Refusal::UnknownAddress);
    Ok(Ends { source: owner(packet.source)?, destination: owner(packet.destination)? })
}

/// The verdict on a packet at its source: which contract allows it, if it needs one, and whether as an
/// answer.
pub(crate) fn judge_at_source<'a>(
    routing: &'a Routing,
    ends: &Ends,
    packet: &Packet,
) -> Result<(Flags, Option<&'a ContractRef>), Refusal> {
    let flags = |answer| Flags { answer, error: packet.error, later: is_later(packet) };
    let opens = verdict(routing, ends, flags(false), packet.protocol, packet.destination_port);
    match opens {
        Ok(contract) => Ok((flags(false), contract)),
        Err(why) => match verdict(routing, ends, flags(true), packet.protocol, packet.source_port) {
            Ok(contract) => Ok((flags(true), contract)),
            Err(_) => Err(why),
        },
    }
}

/// The verdict on a frame, which `neighbour` handed over.
pub(crate) fn judge_frame<'a>(
    routing: &'a Routing,
    header: &Header,
    neighbour: NodeId,
) -> Result<Option<&'a ContractRef>, Refusal> {
    judge_neighbour(routing, header, neighbour)?;
    let owner = |address| routing.owners.get(address).copied().ok_or(Refusal::UnknownAddress);
    let ends = Ends { source: owner(&header.source)?, destination: owner(&header.destination)? };
    if ends.source.node != header.source_node {
        return Err(Refusal::SpoofedSource);
    }
    if ends.destination.node != header.destination_node {
        return Err(Refusal::WrongDestination);
    }
    let claimed = (header.source_identity, header.destination_identity);
    if claimed != (identity(&ends.source), identity(&ends.destination)) {
        return Err(Refusal::ForeignIdentity);
    }
    let contract = verdict(routing, &ends, header.flags, header.protocol, header.port)?;
    if contract.is_some_and(|contract| is_avoided(routing, contract, neighbour)) {
        return Err(Refusal::NeighbourNotCarrier);
    }
    Ok(contract)
}

/// The contract that allows a frame which this node itself sends.
pub(crate) fn contract_of<'a>(
    routing: &'a Routing,
    header: &Header,
) -> Result<Option<&'a ContractRef>, Refusal> {
    let owner = |address| routing.owners.get(address).copied().ok_or(Refusal::UnknownAddress);
    let ends = Ends { source: owner(&header.source)?, destination: owner(&header.destination)? };
    verdict(routing, &ends, header.flags, header.protocol, header.port)
}

/// Whether a neighbour may hand over this frame at all: its own, or as a processor those of others.
fn judge_neighbour(routing: &Routing, header: &Header, neighbour: NodeId) -> Result<(), Refusal> {
    for end in [header.source_node, header.destination_node] {
        if !routing.nodes.contains_key(&end) {
            return Err(Refusal::UnknownNode);
        }
    }
    let carrier = routing.nodes.get(&neighbour).ok_or(Refusal::UnknownNode)?;
    let permitted = routing.me.is_some_and(|me| link_is_permitted(routing, me, neighbour));
    if !permitted || (neighbour != header.source_node && carrier.role != Role::Processor) {
        return Err(Refusal::NeighbourNotCarrier);
    }
    Ok(())
}

fn is_avoided(routing: &Routing, contract: &ContractRef, node: NodeId) -> bool {
    let (Some(path), Some(node)) = (routing.paths.get(contract), routing.nodes.get(&node)) else {
        return false;
    };
    crate::route::covers(&path.avoid, &node.zone)
}

/// Which contract allows a flow, asked in the direction in which it was opened. `port` is the service's.
fn verdict<'a>(
    routing: &'a Routing,
    ends: &Ends,
    flags: Flags,
    protocol: u8,
    port: u16,
) -> Result<Option<&'a ContractRef>, Refusal> {
    match (ends.source.identity, ends.destination.identity) {
        (None, None) if Class::of(protocol) == Class::Icmp || flags.error => return Ok(None),
        // A node says that a packet cannot go on. The way back is open to the handshake of its session.
        (None, Some(_)) | (Some(_), None) if flags.error => return Ok(None),
        (None, _) | (_, None) => return Err(Refusal::NodeAddress),
        (Some(_), Some(_)) => {}
    }
    let (source, destination) = (identity(&ends.source), identity(&ends.destination));
    let (from, to) = if flags.answer { (destination, source) } else { (source, destination) };
    let verdict = decide(from, to, protocol, port, &*routing.verdicts);
    if !verdict.allow {
        return Err(Refusal::of_verdict(verdict.reason));
    }
    Ok(match routing.verdicts.rule(verdict.rule).map(|rule| &rule.origin) {
        Some(Origin::Contract(contract)) => Some(contract),
        Some(Origin::Guardrail(_)) | None => None,
    })
}

/// The number of the service behind an address; 0, which is nobody, for a node's own.
pub(crate) fn identity(owner: &Owner) -> Identity {
    owner.identity.unwrap_or_default()
}

/// Whether header and packet say the same.
pub(crate) fn agrees(header: &Header, packet: &Packet) -> bool {
    let port = if header.flags.answer { packet.source_port } else { packet.destination_port };
    let later = is_later(packet);
    (header.source, header.destination) == (packet.source, packet.destination)
        && (header.protocol, header.flags.error) == (packet.protocol, packet.error)
        && header.flags.later == later
        && (later || header.port == port)
}

fn is_later(packet: &Packet) -> bool {
    packet.fragment.is_some_and(|fragment| !fragment.first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        frame::Kind,
        packet::{ICMP, TCP, UDP},
        testing::{
            CLIENT, SERVER, client_ipv4, contract, icmp_error, node_ipv4, path, routing, server_ipv4, udp4,
            verdicts,
        },
    };

    /// A client on 1, a server on 3, carried by 2; seen from 2, and 101 is a workload node.
    fn fabric() -> Routing {
        routing(2, &[(1, "a"), (2, "b"), (3, "c"), (101, "a")], &[])
    }

    fn question() -> Header {
        Header {
            kind: Kind::Sealed,
            flags: Flags::default(),
            hop_limit: 4,
            passed: 0,
            protocol: UDP,
            port: 53,
            source_identity: CLIENT,
            destination_identity: SERVER,
            source_node: NodeId(1),
            destination_node: NodeId(3),
            revision: 1,
            flow_label: 0,
            session: 0,
            counter: 0,
            source: client_ipv4(1).into(),
            destination: server_ipv4(3).into(),
        }
    }

    fn on_the_way(header: &Header, neighbour: u64) -> Result<(), Refusal> {
        judge_frame(&fabric(), header, NodeId(neighbour)).map(|_| ())
    }

    #[test]
    fn a_stated_flow_and_its_answers_pass() {
        let routing = fabric();
        assert_eq!(judge_frame(&routing, &question(), NodeId(1)), Ok(Some(&contract())));
        assert_eq!(judge_frame(&routing, &question().reversed(), NodeId(3)), Ok(Some(&contract())));
        let opening_back = Header { flags: Flags::default(), ..question().reversed() };
        assert_eq!(on_the_way(&opening_back, 3), Err(Refusal::NoContract));
        assert_eq!(on_the_way(&Header { port: 54, ..question() }, 1), Err(Refusal::NoContract));
        assert_eq!(on_the_way(&Header { protocol: ICMP, ..question() }, 1), Err(Refusal::NoContract));
    }

    #[test]
    fn every_lie_has_its_own_name() {
        let lie = |change: fn(&mut Header)| {
            let mut header = question();
            change(&mut header);
            on_the_way(&header, 1)
        };
        assert_eq!(lie(|h| h.source = client_ipv4(101).into()), Err(Refusal::SpoofedSource));
        assert_eq!(lie(|h| h.source = [100, 64, 1, 9].into()), Err(Refusal::UnknownAddress));
        assert_eq!(lie(|h| h.destination = server_ipv4(2).into()), Err(Refusal::WrongDestination));
        assert_eq!(lie(|h| h.source_identity = SERVER), Err(Refusal::ForeignIdentity));
        assert_eq!(lie(|h| h.destination_identity = CLIENT), Err(Refusal::ForeignIdentity));
        assert_eq!(lie(|h| h.source_node = NodeId(77)), Err(Refusal::UnknownNode));
    }

    #[test]
    fn only_processors_hand_over_what_is_not_theirs() {
        assert_eq!(on_the_way(&question(), 3), Ok(()));
        assert_eq!(on_the_way(&question(), 101), Err(Refusal::NeighbourNotCarrier));
        assert_eq!(on_the_way(&question(), 77), Err(Refusal::UnknownNode));
        let mut routing = fabric();
        routing.declared = Some([].into());
        let undeclared = judge_frame(&routing, &question(), NodeId(1));
        assert_eq!(undeclared, Err(Refusal::NeighbourNotCarrier));
    }

    #[test]
    fn what_comes_through_an_avoided_place_is_refused() {
        let mut routing = fabric();
        routing.paths.insert(contract(), path(&["c"], &[], None));
        assert_eq!(judge_frame(&routing, &question(), NodeId(3)), Err(Refusal::NeighbourNotCarrier));
    }

    #[test]
    fn a_nodes_own_address_takes_part_in_icmp_alone() {
        let routing = fabric();
        let own = Header {
            source: node_ipv4(1).into(),
            destination: node_ipv4(3).into(),
            source_identity: Identity(0),
            destination_identity: Identity(0),
            protocol: ICMP,
            port: 0,
            ..question()
        };
        assert_eq!(judge_frame(&routing, &own, NodeId(1)), Ok(None));
        let tcp = Header { protocol: TCP, port: 22, ..own };
        assert_eq!(judge_frame(&routing, &tcp, NodeId(1)), Err(Refusal::NodeAddress));
        let to_service = Header { destination: server_ipv4(3).into(), destination_identity: SERVER, ..own };
        assert_eq!(judge_frame(&routing, &to_service, NodeId(1)), Err(Refusal::NodeAddress));
    }

    #[test]
    fn the_source_finds_out_whether_it_asks_or_answers() {
        let mut routing = fabric();
        let at_source = |routing: &Routing, bytes: &[u8]| {
            let packet = Packet::parse(bytes).unwrap();
            let ends = ends(routing, &packet).unwrap();
            judge_at_source(routing, &ends, &packet)
                .map(|(flags, contract)| (flags.answer, contract.is_some()))
        };
        let question = udp4(client_ipv4(1), server_ipv4(3), 4000, 53, b"?");
        let answer = udp4(server_ipv4(3), client_ipv4(1), 53, 4000, b"!");
        let unreachable = icmp_error(server_ipv4(3), client_ipv4(1), &question[..28]);
        assert_eq!(at_source(&routing, &question), Ok((false, true)));
        assert_eq!(at_source(&routing, &answer), Ok((true, true)));
        assert_eq!(at_source(&routing, &unreachable), Ok((true, true)));
        let other = udp4(server_ipv4(3), client_ipv4(1), 54, 4000, b"!");
        assert_eq!(at_source(&routing, &other), Err(Refusal::NoContract));
        routing.verdicts = verdicts(false).into();
        assert_eq!(at_source(&routing, &answer), Err(Refusal::NoContract));
    }
}
