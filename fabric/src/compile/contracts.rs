//! Contracts to edges between services.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_abi::{EdgeKey, Identity, MAX_RANGES, Range, Reason};

use super::{MAX_CONTRACT_SEGMENTS, Origin, VerdictTables, flatten, flatten::Segment, graph, mode};
use crate::{
    UnixMs,
    id::{ContractRef, Name, NodeName},
    object::{ContractSpec, Mode, PortRange, Protocol},
    policy::PolicyState,
};

/// Every port of every protocol.
const EVERYTHING: PortRange = PortRange { protocol: Protocol::Any, low: 0, high: u16::MAX };

/// Segments of edges, up to a bound.
#[derive(Default)]
struct Edges {
    segments: Vec<(EdgeKey, Segment)>,
    full: bool,
}

impl Edges {
    fn add(&mut self, source: Identity, destination: Identity, ports: PortRange, segment: Segment) {
        for class in graph::classes(ports.protocol) {
            if self.segments.len() >= MAX_CONTRACT_SEGMENTS {
                self.full = true;
                return;
            }
            self.segments.push((EdgeKey::new(source.0, destination.0, *class), segment));
        }
    }
}

pub(super) fn compile(
    policy: &PolicyState,
    now_ms: UnixMs,
    suspended: &BTreeSet<Name>,
    node: Option<&NodeName>,
    tables: &mut VerdictTables,
) {
    let mut members = graph::members(policy);
    let mut staged = BTreeMap::new();
    for (name, rollout) in &policy.rollouts {
        let Some(contract) = policy.contract(name) else { continue };
        if node.is_none_or(|node| rollout.includes(policy, node)) {
            continue;
        }
        staged.insert(name.clone(), rollout.narrowed(contract));
        for (role, of_role) in members.get_mut(name).into_iter().flatten() {
            of_role.retain(|(service, _)| !rollout.added.contains(&((*role).clone(), service.clone())));
        }
    }
    let none = BTreeMap::new();
    let mut edges = Edges::default();
    for (name, contract) in graph::contracts(policy) {
        if !graph::holds(contract, now_ms) || suspended.contains(&name.domain) {
            continue;
        }
        let contract = match staged.get(&name) {
            None => contract,
            Some(Some(narrowed)) => narrowed,
            Some(None) => continue,
        };
        let members = members.get(&name).unwrap_or(&none);
        stated(policy, &name, contract, members, tables, &mut edges);
        unstated(&name, contract, members, tables, &mut edges);
        if edges.full {
            tables.problems.push(format!(
                "part of Contract {name} and all contracts after it allow nothing: the contracts make more \
                 than {MAX_CONTRACT_SEGMENTS} edges; split contracts whose roles have very many members"
            ));
            break;
        }
    }
    tables.contracts = flatten::edges(edges.segments).into_iter().collect();
    bound_ranges(tables);
}

/// What the contract states: its template's flows on its ports.
fn stated(
    policy: &PolicyState,
    name: &ContractRef,
    contract: &ContractSpec,
    members: &graph::Members<'_>,
    tables: &mut VerdictTables,
    edges: &mut Edges,
) {
    let rank = match contract.mode {
        Mode::Enforce => 0,
        Mode::Audit => 1,
        Mode::Learn => 2,
    };
    let Some(template) = policy.template_of(name) else { return };
    for flow in &template.flows {
        let (Some(sources), Some(destinations)) = (members.get(&flow.from), members.get(&flow.to)) else {
            continue;
        };
        for ports in graph::ports_of(contract, &flow.to) {
            let text = format!("Contract {name}: {} may open {ports} to {}", flow.from, flow.to);
            let rule = tables.add_rule(Origin::Contract(name.clone()), text);
            let range = Range::new(ports.low, ports.high, Reason::Contract, mode(contract.mode), rule);
            for (_, source) in sources {
                for (_, destination) in destinations {
                    edges.add(*source, *destination, *ports, Segment { rank, range });
                }
                if edges.full {
                    return;
                }
            }
        }
    }
}

/// What an audit or learn contract lets pass between its members without stating it.
fn unstated(
    name: &ContractRef,
    contract: &ContractSpec,
    members: &graph::Members<'_>,
    tables: &mut VerdictTables,
    edges: &mut Edges,
) {
    let (rank, reason, word) = match contract.mode {
        Mode::Enforce => return,
        Mode::Audit => (3, Reason::Audited, "audit"),
        Mode::Learn => (4, Reason::Learned, "learn"),
    };
    let all: BTreeSet<Identity> = members.values().flatten().map(|(_, identity)| *identity).collect();
    let text = format!("Contract {name}: in {word} mode any flow between its members passes and is recorded");
    let rule = tables.add_rule(Origin::Contract(name.clone()), text);
    let range = Range::new(EVERYTHING.low, EVERYTHING.high, reason, mode(contract.mode), rule);
    for source in &all {
        for destination in &all {
            edges.add(*source, *destination, EVERYTHING, Segment { rank, range });
        }
        if edges.full {
            return;
        }
    }
}

/// The packet path scans at most [`MAX_RANGES`]; what lies beyond is refused there, so it is refused
/// here too, and said.
fn bound_ranges(tables: &mut VerdictTables) {
    let mut cut = BTreeSet::new();
    for (key, ranges) in &mut tables.contracts {
        if ranges.len() > MAX_RANGES {
            ranges.truncate(MAX_RANGES);
            cut.insert((Identity(key.source), Identity(key.destination)));
        }
    }
    let describe = |(from, to): (Identity, Identity)| {
        let name = |id| tables.service(id).map_or_else(|| "?".to_owned(), ToString::to_string);
        format!(
            "{} to {}: contracts state more than {MAX_RANGES} separate port ranges, the highest are refused; \
             join neighbouring ranges",
            name(from),
            name(to)
        )
    };
    let mut problems: Vec<_> = cut.into_iter().map(describe).collect();
    tables.problems.append(&mut problems);
}
