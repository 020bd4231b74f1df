//! Questions on the model: who may talk to whom, and why.
//!
//! All answers come from the same tables and the same `decide` as verdicts on packets, at a given time.
//! Nothing here depends on endpoints: an answer holds wherever the services run.
//!
//! * [`explain`]: one pair, one port: the verdict, the rule, and if it is a refusal, what came close.
//! * [`reach`]: every allowed pair.
//! * [`assert()`]: proofs of isolation and of reachability, with counter-examples.

use std::collections::BTreeSet;

use selvedge_abi::{Class, Identity, Range};

use crate::{
    compile::VerdictTables,
    id::ServiceRef,
    object::{Action, Selector, Spec},
    policy::PolicyState,
    suggest,
};

mod alternatives;
mod assert;
mod explain;
mod reach;

#[cfg(test)]
mod tests;

pub use alternatives::{Alternative, MAX_ALTERNATIVES};
pub use assert::{Assertion, AssertionResult, CounterExample, FlowPattern, MAX_COUNTER_EXAMPLES, assert};
pub use explain::{Explanation, Hop, Outcome, Place, explain};
pub use reach::{MAX_REACH_ROWS, ReachRow, reach};

/// Why a question has no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A selector names what is not there.
    #[error("{selector} selects no service{}", .remedy.as_ref().map(|r| format!(": {r}")).unwrap_or_default())]
    SelectsNothing {
        /// The selector.
        selector: Selector,
        /// What may have been meant.
        remedy: Option<String>,
    },
    /// The answer would be too long to be of use.
    #[error("more than {MAX_REACH_ROWS} rows: narrow the question with --from or --to")]
    TooManyRows,
}

/// The services that a selector selects; none is an error, since an answer on nothing is no answer.
fn selected<'a>(
    tables: &'a VerdictTables,
    selector: &Selector,
) -> Result<Vec<(&'a ServiceRef, Identity)>, QueryError> {
    let found: Vec<_> = match selector {
        Selector::Service(one) => tables.services().filter(|(service, _)| *service == one).collect(),
        Selector::All | Selector::Domain(_) => {
            tables.services().filter(|(service, _)| selector.selects(service)).collect()
        }
    };
    if found.is_empty() {
        let remedy = suggest_service(tables, selector);
        return Err(QueryError::SelectsNothing { selector: selector.clone(), remedy });
    }
    Ok(found)
}

fn suggest_service(tables: &VerdictTables, selector: &Selector) -> Option<String> {
    match selector {
        Selector::All => None,
        Selector::Domain(domain) => {
            let domains: BTreeSet<_> = tables.services().map(|(service, _)| &service.domain).collect();
            suggest::remedy(domain.as_str(), domains)
        }
        Selector::Service(service) => {
            suggest::remedy(&service.to_string(), tables.services().map(|(known, _)| known))
        }
    }
}

/// Pairs of services between which something may be allowed: those with a contract edge, and those that
/// a guardrail allows something. Every other pair is refused on every port.
fn pairs_with_rules(
    policy: &PolicyState,
    tables: &VerdictTables,
    from: &Selector,
    to: &Selector,
) -> BTreeSet<(Identity, Identity)> {
    let selects = |selector: &Selector, identity: Identity| {
        tables.service(identity).is_some_and(|service| selector.selects(service))
    };
    let mut pairs: BTreeSet<_> = tables
        .contracts
        .keys()
        .map(|key| (Identity(key.source), Identity(key.destination)))
        .filter(|(source, destination)| selects(from, *source) && selects(to, *destination))
        .collect();
    for spec in policy.objects.values() {
        let Spec::Guardrail(guardrail) = spec else { continue };
        if guardrail.action == Action::Deny {
            continue;
        }
        let both = |a: &Selector, b: &Selector| -> Vec<Identity> {
            let services = tables.services().filter(|(service, _)| a.selects(service) && b.selects(service));
            services.map(|(_, identity)| identity).collect()
        };
        let destinations = both(&guardrail.to, to);
        for source in both(&guardrail.from, from) {
            pairs.extend(destinations.iter().map(|destination| (source, *destination)));
        }
    }
    pairs
}

/// The ranges that are allowed between two services, by class.
fn allowed(tables: &VerdictTables, source: Identity, destination: Identity) -> Vec<(Class, Range)> {
    Class::ALL
        .into_iter()
        .flat_map(|class| {
            let effective = tables.effective(source, destination, class);
            effective.into_iter().map(move |range| (class, range))
        })
        .filter(|(_, range)| range.verdict().allow)
        .collect()
}

/// Ports of a class for people, as manifests write them where they can.
fn ports_text(class: Class, low: u16, high: u16) -> String {
    let protocol = match class {
        Class::Tcp => "tcp",
        Class::Udp => "udp",
        Class::Icmp => "icmp",
        Class::Other => "other",
    };
    match (low, high) {
        _ if !class.has_ports() => protocol.to_owned(),
        (0, u16::MAX) => protocol.to_owned(),
        _ if low == high => format!("{protocol}/{low}"),
        _ => format!("{protocol}/{low}-{high}"),
    }
}
