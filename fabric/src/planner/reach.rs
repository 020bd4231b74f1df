//! Which contracts a service reaches, and so may resolve: those of which at least one accepting service
//! would take a flow from it on a port of the contract. Asked of the verdict tables themselves, so the
//! DNS never names what the data plane refuses, nor hides what it allows.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_abi::Identity;

use super::targets;
use crate::{
    UnixMs,
    compile::{VerdictTables, graph},
    id::{ContractRef, Name, ServiceRef},
    object::{Action, PortRange, Selector, Spec},
    policy::PolicyState,
};

pub(super) fn reach(
    policy: &PolicyState,
    tables: &VerdictTables,
    now_ms: UnixMs,
) -> BTreeMap<ServiceRef, BTreeSet<ContractRef>> {
    let mut reach: BTreeMap<ServiceRef, BTreeSet<ContractRef>> = BTreeMap::new();
    let members = graph::members(policy);
    let selectors = allowing(policy);
    let allowing: Vec<_> =
        tables.services().filter(|(s, _)| selectors.iter().any(|from| from.selects(s))).collect();
    for (name, contract) in graph::contracts(policy).filter(|(_, contract)| graph::holds(contract, now_ms)) {
        let of_contract = members.get(&name);
        let accepting: Vec<(Identity, Vec<PortRange>)> =
            targets::accepting(policy, &name, contract, of_contract)
                .into_iter()
                .filter_map(|(service, ports)| Some((tables.identity(&service)?, ports)))
                .collect();
        let mut askers: BTreeMap<&ServiceRef, Identity> = BTreeMap::new();
        askers.extend(of_contract.into_iter().flat_map(BTreeMap::values).flatten().map(|(s, id)| (s, *id)));
        askers.extend(allowing.iter().copied());
        for (service, identity) in askers {
            let reaches = if accepting.is_empty() {
                // Nobody serves it yet: its clients may know that it exists.
                opens_flows(policy, &name, of_contract, service)
            } else {
                accepting
                    .iter()
                    .any(|(to, ports)| ports.iter().any(|p| tables.allows_some(identity, *to, *p)))
            };
            if reaches {
                reach.entry(service.clone()).or_default().insert(name.clone());
            }
        }
    }
    reach
}

/// Who may be allowed something without being a member of any contract.
fn allowing(policy: &PolicyState) -> BTreeSet<&Selector> {
    let guardrails = policy.objects.values().filter_map(|spec| match spec {
        Spec::Guardrail(guardrail) if guardrail.action == Action::Allow => Some(&guardrail.from),
        _ => None,
    });
    guardrails.collect()
}

fn opens_flows(
    policy: &PolicyState,
    name: &ContractRef,
    members: Option<&graph::Members<'_>>,
    service: &ServiceRef,
) -> bool {
    let plays = |role: &Name| {
        members.and_then(|m| m.get(role)).is_some_and(|players| players.iter().any(|(s, _)| s == service))
    };
    policy.template_of(name).is_some_and(|template| template.flows.iter().any(|flow| plays(&flow.from)))
}
