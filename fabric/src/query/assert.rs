//! Proofs of isolation and reachability. Every pair that a selector selects is looked at, on every
//! port: an assertion that holds has been proven for the whole policy, not sampled.

use std::fmt;

use selvedge_abi::{Class, Identity};
use serde::{Deserialize, Serialize};

use super::{allowed, explain::first_refused, pairs_with_rules, ports_text, selected};
use crate::{
    Revision, UnixMs,
    compile::{VerdictTables, compile, graph},
    id::ServiceRef,
    object::{PortRange, Protocol, Selector},
    policy::PolicyState,
};

/// Counter-examples given for one assertion; further ones are counted.
pub const MAX_COUNTER_EXAMPLES: usize = 10;

const EVERY_PORT: PortRange = PortRange { protocol: Protocol::Any, low: 0, high: u16::MAX };

/// What must be so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assertion {
    /// No selected service may open any of these ports to any selected service.
    Deny(FlowPattern),
    /// Every selected service may open all of these ports to every other selected service.
    Allow(FlowPattern),
}

/// Flows from some services to some services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowPattern {
    /// Who opens them.
    pub from: Selector,
    /// Who accepts them.
    pub to: Selector,
    /// On which ports; every port of every protocol, when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<PortRange>,
}

impl FlowPattern {
    fn ports(&self) -> PortRange {
        self.port.unwrap_or(EVERY_PORT)
    }
}

impl fmt::Display for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (word, pattern) = match self {
            Self::Deny(pattern) => ("deny", pattern),
            Self::Allow(pattern) => ("allow", pattern),
        };
        write!(f, "{word} {} to {} on {}", pattern.from, pattern.to, pattern.ports())
    }
}

/// How an assertion fared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssertionResult {
    /// The assertion, for people.
    pub assertion: String,
    /// Whether it holds.
    pub holds: bool,
    /// Why it cannot be judged: a selector that selects nothing proves nothing.
    pub error: Option<String>,
    /// Pairs that were looked at.
    pub pairs: usize,
    /// Flows that contradict it, the first few.
    pub counter_examples: Vec<CounterExample>,
    /// Pairs with a contradiction in all.
    pub contradictions: usize,
    /// The revision that was asked.
    pub revision: Revision,
}

/// A flow that contradicts an assertion.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterExample {
    /// Who opens it.
    pub from: ServiceRef,
    /// Who accepts it.
    pub to: ServiceRef,
    /// On which ports.
    pub port: String,
    /// The rule that allows it, where it should be refused.
    pub rule: Option<String>,
}

impl fmt::Display for CounterExample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, port, rule } = self;
        match rule {
            Some(rule) => write!(f, "{from} may open {port} to {to} ({rule})"),
            None => write!(f, "{from} may not open {port} to {to}"),
        }
    }
}

/// Judges assertions on the policy as it holds at `now_ms`.
#[must_use]
pub fn assert(policy: &PolicyState, now_ms: UnixMs, assertions: &[Assertion]) -> Vec<AssertionResult> {
    let tables = compile(policy, now_ms);
    assertions.iter().map(|assertion| judge(policy, &tables, assertion)).collect()
}

fn judge(policy: &PolicyState, tables: &VerdictTables, assertion: &Assertion) -> AssertionResult {
    let (Assertion::Deny(pattern) | Assertion::Allow(pattern)) = assertion;
    let mut result = AssertionResult {
        assertion: assertion.to_string(),
        holds: false,
        error: None,
        pairs: 0,
        counter_examples: Vec::new(),
        contradictions: 0,
        revision: policy.revision,
    };
    let (from, to) = match (selected(tables, &pattern.from), selected(tables, &pattern.to)) {
        (Ok(from), Ok(to)) => (from, to),
        (Err(error), _) | (_, Err(error)) => {
            result.error = Some(error.to_string());
            return result;
        }
    };
    let mut contradict = |example: Option<CounterExample>| {
        let Some(example) = example else { return };
        result.contradictions += 1;
        if result.counter_examples.len() < MAX_COUNTER_EXAMPLES {
            result.counter_examples.push(example);
        }
    };
    match assertion {
        Assertion::Deny(_) => {
            result.pairs = from.len() * to.len();
            for (source, destination) in pairs_with_rules(policy, tables, &pattern.from, &pattern.to) {
                contradict(allowed_on(tables, source, destination, pattern.ports()));
            }
        }
        Assertion::Allow(_) => {
            for source in &from {
                for destination in to.iter().filter(|to| asked_of_pair(pattern, *source, **to)) {
                    result.pairs += 1;
                    contradict(refused_on(tables, *source, *destination, pattern.ports()));
                }
            }
        }
    }
    result.holds = result.contradictions == 0;
    result
}

/// `allow *@a to *@a` is on services and others; a service and itself are meant only when named so.
fn asked_of_pair(
    pattern: &FlowPattern,
    (source, _): (&ServiceRef, Identity),
    (destination, _): (&ServiceRef, Identity),
) -> bool {
    let named = |selector: &Selector| matches!(selector, Selector::Service(_));
    source != destination || (named(&pattern.from) && named(&pattern.to))
}

/// The first of these ports that is allowed between two services.
fn allowed_on(
    tables: &VerdictTables,
    source: Identity,
    destination: Identity,
    ports: PortRange,
) -> Option<CounterExample> {
    let classes = graph::classes(ports.protocol);
    let (class, range) = allowed(tables, source, destination).into_iter().find(|(class, range)| {
        classes.contains(class) && range.low <= ports.high && ports.low <= range.high
    })?;
    Some(CounterExample {
        from: tables.service(source)?.clone(),
        to: tables.service(destination)?.clone(),
        port: ports_text(class, range.low.max(ports.low), range.high.min(ports.high)),
        rule: tables.rule(range.rule).map(|rule| rule.text.clone()),
    })
}

/// The first of these ports that is refused between two services.
fn refused_on(
    tables: &VerdictTables,
    (from, source): (&ServiceRef, Identity),
    (to, destination): (&ServiceRef, Identity),
    ports: PortRange,
) -> Option<CounterExample> {
    let refused = |class: &Class| {
        let port = first_refused(tables, source, destination, *class, ports)?;
        Some(ports_text(*class, port, port))
    };
    let port = graph::classes(ports.protocol).iter().find_map(refused)?;
    Some(CounterExample { from: from.clone(), to: to.clone(), port, rule: None })
}
