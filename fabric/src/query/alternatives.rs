//! What came close to allowing a flow that is refused, and what would change it.

use selvedge_abi::Reason;
use serde::{Deserialize, Serialize};

use super::{explain::verdict_on, suggest_service};
use crate::{
    UnixMs,
    compile::{VerdictTables, graph},
    id::{ContractRef, Name, ServiceRef},
    manifest::format_instant,
    object::{ContractSpec, FlowRule, PortRange, Selector},
    policy::PolicyState,
};

/// Most alternatives of one explanation.
pub const MAX_ALTERNATIVES: usize = 8;

/// Something that came close.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alternative {
    /// What was found.
    pub finding: String,
    /// What would make it allow the flow.
    pub remedy: Option<String>,
}

/// A refused flow.
struct Refused<'a> {
    policy: &'a PolicyState,
    tables: &'a VerdictTables,
    now_ms: UnixMs,
    from: &'a ServiceRef,
    to: &'a ServiceRef,
    port: PortRange,
}

pub(super) fn find(
    policy: &PolicyState,
    tables: &VerdictTables,
    now_ms: UnixMs,
    from: &ServiceRef,
    to: &ServiceRef,
    port: PortRange,
    reason: Reason,
) -> Vec<Alternative> {
    let refused = Refused { policy, tables, now_ms, from, to, port };
    let mut found = match reason {
        Reason::UnknownSource => refused.unknown(from),
        Reason::UnknownDestination => refused.unknown(to),
        _ => refused.contracts(reason),
    };
    if reason == Reason::NoContract {
        found.extend(refused.namesakes());
    }
    found.truncate(MAX_ALTERNATIVES);
    found
}

impl Refused<'_> {
    fn unknown(&self, service: &ServiceRef) -> Vec<Alternative> {
        let remedy = suggest_service(self.tables, &Selector::Service(service.clone()));
        vec![Alternative { finding: format!("there is no service {service}"), remedy }]
    }

    /// Contracts in which both have a part, then those in which only the destination has.
    fn contracts(&self, reason: Reason) -> Vec<Alternative> {
        let members = graph::members(self.policy);
        let none = graph::Members::new();
        let (mut both, mut one) = (Vec::new(), Vec::new());
        for (name, contract) in graph::contracts(self.policy) {
            let members = members.get(&name).unwrap_or(&none);
            let Some(template) = self.policy.template_of(&name) else { continue };
            for flow in &template.flows {
                let plays = |service: &ServiceRef, role: &Name| {
                    members.get(role).is_some_and(|players| players.iter().any(|(s, _)| s == service))
                };
                let accepts = plays(self.to, &flow.to);
                if accepts && plays(self.from, &flow.from) {
                    both.extend(self.between_members(&name, contract, flow, reason));
                } else if plays(self.from, &flow.to) && plays(self.to, &flow.from) {
                    both.push(self.turned_round(&name, flow));
                } else if accepts && reason == Reason::NoContract {
                    one.extend(self.not_a_member(&name, contract, flow));
                }
            }
        }
        both.append(&mut one);
        both
    }

    fn between_members(
        &self,
        name: &ContractRef,
        contract: &ContractSpec,
        flow: &FlowRule,
        reason: Reason,
    ) -> Option<Alternative> {
        let ports = graph::ports_of(contract, &flow.to);
        let covered = ports.iter().any(|range| range.covers(&self.port));
        let roles =
            format!("{} plays {}:{name} and {} plays {}:{name}", self.from, flow.from, self.to, flow.to);
        if !covered {
            let named = list(ports);
            return Some(Alternative {
                finding: format!("{roles}, but the contract names {named}, not {}", self.port),
                remedy: Some(format!(
                    "ask for {named}, or add {} to spec.roles.{}.ports of Contract {name}",
                    self.port, flow.to
                )),
            });
        }
        if let Some(end_ms) = contract.expires_at.filter(|_| !graph::holds(contract, self.now_ms)) {
            return Some(Alternative {
                finding: format!("{roles}, but the contract ended at {}", format_instant(end_ms)),
                remedy: Some(format!("apply Contract {name} again with a new ttl, or without one")),
            });
        }
        (reason == Reason::GuardrailDeny).then(|| Alternative {
            finding: format!("Contract {name} states this flow, and no contract overrides a guardrail"),
            remedy: Some("narrow the guardrail if this flow is meant to be".to_owned()),
        })
    }

    fn turned_round(&self, name: &ContractRef, flow: &FlowRule) -> Alternative {
        Alternative {
            finding: format!(
                "in Contract {name} {} is {} and {} is {}: the flow goes the other way",
                self.from, flow.to, self.to, flow.from
            ),
            remedy: Some(format!("ask for --from {} --to {}; replies need no rule", self.to, self.from)),
        }
    }

    fn not_a_member(
        &self,
        name: &ContractRef,
        contract: &ContractSpec,
        flow: &FlowRule,
    ) -> Option<Alternative> {
        let ports = graph::ports_of(contract, &flow.to);
        let fits = graph::holds(contract, self.now_ms) && ports.iter().any(|r| r.covers(&self.port));
        fits.then(|| {
            let binding = if name.domain == self.from.domain {
                format!("{}:{}", flow.from, name.name)
            } else {
                format!("{}:{name}", flow.from)
            };
            Alternative {
                finding: format!(
                    "{} accepts {} in Contract {name}, in which {} is not {}",
                    self.to, self.port, self.from, flow.from
                ),
                remedy: Some(format!("add {binding} to spec.roles of Service {}", self.from)),
            }
        })
    }

    /// Services of the same name in other domains that would be allowed: easily confused.
    fn namesakes(&self) -> Vec<Alternative> {
        let allowed = |from: &ServiceRef, to: &ServiceRef| {
            let ids = self.tables.identity(from).zip(self.tables.identity(to));
            ids.is_some_and(|(from, to)| verdict_on(self.tables, from, to, self.port).allow)
        };
        let namesakes = |of: &ServiceRef| -> Vec<ServiceRef> {
            let others = self.tables.services().map(|(service, _)| service);
            others.filter(|s| s.name == of.name && s.domain != of.domain).cloned().collect()
        };
        let sources = namesakes(self.from).into_iter().map(|from| (from, self.to.clone()));
        let destinations = namesakes(self.to).into_iter().map(|to| (self.from.clone(), to));
        sources
            .chain(destinations)
            .filter(|(from, to)| allowed(from, to))
            .map(|(from, to)| Alternative {
                finding: format!("{from} may open {} to {to}: a namesake, and another service", self.port),
                remedy: None,
            })
            .collect()
    }
}

fn list(ports: &[PortRange]) -> String {
    if ports.is_empty() {
        return "no port".to_owned();
    }
    ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
