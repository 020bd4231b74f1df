//! Guardrails to edges between groups of services.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_abi::{EdgeKey, Groups, MAX_RANGES, Mode, Range, Reason};

use super::{MAX_GUARDRAIL_SEGMENTS, Member, Origin, VerdictTables, flatten, flatten::Segment, graph};
use crate::{
    id::{Name, ServiceRef},
    object::{Action, GuardrailSpec, PortRange, Protocol, Selector, Spec},
    policy::PolicyState,
};

/// A guardrail without ports speaks of all.
const ALL_PORTS: [PortRange; 1] = [PortRange { protocol: Protocol::Any, low: 0, high: u16::MAX }];

pub(super) fn compile(policy: &PolicyState, tables: &mut VerdictTables) {
    let guardrails: Vec<_> = policy
        .objects
        .iter()
        .filter_map(|(key, spec)| match spec {
            Spec::Guardrail(guardrail) => Some((key.name.as_str(), guardrail)),
            _ => None,
        })
        .collect();
    let mut sources = Grouping::new(guardrails.iter().map(|(_, g)| &g.from));
    let mut destinations = Grouping::new(guardrails.iter().map(|(_, g)| &g.to));
    let identities: Vec<_> = tables.services().map(|(service, id)| (service.clone(), id)).collect();
    for (service, identity) in identities {
        let groups =
            Groups { source: sources.group_of(&service), destination: destinations.group_of(&service) };
        tables.members.insert(identity, Member { service, groups });
    }
    match edges(&guardrails, &sources, &destinations, tables) {
        Some(segments) => {
            tables.guardrails =
                flatten::edges(segments).into_iter().map(|(key, ranges)| (key, bounded(ranges))).collect();
        }
        None => refuse_everything(tables),
    }
}

/// The segments of all guardrail edges; `None` when they are too many.
fn edges(
    guardrails: &[(&str, &GuardrailSpec)],
    sources: &Grouping,
    destinations: &Grouping,
    tables: &mut VerdictTables,
) -> Option<Vec<(EdgeKey, Segment)>> {
    let mut segments = Vec::new();
    for (name, guardrail) in guardrails {
        let (rank, reason, verb) = match guardrail.action {
            Action::Deny => (0, Reason::GuardrailDeny, "may not"),
            Action::Allow => (1, Reason::GuardrailAllow, "may"),
        };
        let from = sources.selected_by(&guardrail.from);
        let to = destinations.selected_by(&guardrail.to);
        let ports = if guardrail.ports.is_empty() { &ALL_PORTS } else { &guardrail.ports[..] };
        for ports in ports {
            let text =
                format!("Guardrail {name}: {} {verb} open {ports} to {}", guardrail.from, guardrail.to);
            let rule = tables.add_rule(Origin::Guardrail((*name).to_owned()), text);
            let range = Range::new(ports.low, ports.high, reason, Mode::Enforce, rule);
            let classes = graph::classes(ports.protocol);
            if segments.len() + from.len() * to.len() * classes.len() > MAX_GUARDRAIL_SEGMENTS {
                return None;
            }
            for class in classes {
                for source in &from {
                    let key = |to: &u32| EdgeKey::new(*source, *to, *class);
                    segments.extend(to.iter().map(|to| (key(to), Segment { rank, range })));
                }
            }
        }
    }
    Some(segments)
}

/// An edge with more ranges than the packet path scans. What does not fit can only be refused.
fn bounded(mut ranges: Vec<Range>) -> Vec<Range> {
    if ranges.len() > MAX_RANGES {
        let from = ranges[MAX_RANGES - 1];
        ranges.truncate(MAX_RANGES - 1);
        ranges.push(Range::new(from.low, u16::MAX, Reason::GuardrailDeny, Mode::Enforce, from.rule));
    }
    ranges
}

/// Without members every verdict is a refusal.
fn refuse_everything(tables: &mut VerdictTables) {
    tables.members.clear();
    tables.problems.push(format!(
        "the guardrails make more than {MAX_GUARDRAIL_SEGMENTS} edges, so every flow is refused: replace \
         guardrails on single services by ones on domains"
    ));
}

/// Services by how the selectors of one side see them.
struct Grouping {
    all: bool,
    domains: BTreeSet<Name>,
    services: BTreeSet<ServiceRef>,
    /// What the selectors can tell: the domain if one names it, the service if one names it.
    groups: BTreeMap<(Option<Name>, Option<ServiceRef>), u32>,
}

impl Grouping {
    fn new<'a>(selectors: impl Iterator<Item = &'a Selector>) -> Self {
        let (mut all, mut domains, mut services) = (false, BTreeSet::new(), BTreeSet::new());
        for selector in selectors {
            match selector {
                Selector::All => all = true,
                Selector::Domain(domain) => {
                    domains.insert(domain.clone());
                }
                Selector::Service(service) => {
                    services.insert(service.clone());
                }
            }
        }
        Self { all, domains, services, groups: BTreeMap::new() }
    }

    /// The group of a service, made when it is the first of it. 0 when no selector selects it.
    fn group_of(&mut self, service: &ServiceRef) -> u32 {
        let domain = self.domains.get(&service.domain).cloned();
        let named = self.services.get(service).cloned();
        if !self.all && domain.is_none() && named.is_none() {
            return 0;
        }
        let next = u32::try_from(self.groups.len() + 1).unwrap_or(u32::MAX);
        *self.groups.entry((domain, named)).or_insert(next)
    }

    fn selected_by(&self, selector: &Selector) -> Vec<u32> {
        let selects = |(domain, service): &(Option<Name>, Option<ServiceRef>)| match selector {
            Selector::All => true,
            Selector::Domain(wanted) => domain.as_ref() == Some(wanted),
            Selector::Service(wanted) => service.as_ref() == Some(wanted),
        };
        self.groups.iter().filter(|(key, _)| selects(key)).map(|(_, group)| *group).collect()
    }
}
