//! The verdict on one flow, and why.

use selvedge_abi::{Class, Identity, Reason, Verdict, decide};
use serde::{Deserialize, Serialize};

use super::alternatives::{self, Alternative};
use crate::{
    Revision, UnixMs,
    compile::{Origin, VerdictTables, compile, graph},
    id::{ContractRef, ServiceRef},
    object::{Mode, PortRange},
    policy::PolicyState,
};

/// Whether a flow may be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It may.
    Allow,
    /// It may not.
    Deny,
}

/// Where on the path a verdict is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// Where the packet leaves.
    Source,
    /// On a processor that carries it.
    Transit,
    /// Where it arrives.
    Destination,
}

/// The verdict at one place. On the model there is no transit: who carries a packet is a fact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Where.
    pub place: Place,
    /// For which service.
    pub service: ServiceRef,
    /// The verdict.
    pub verdict: Outcome,
    /// Why, as [`Reason::name`].
    pub reason: String,
}

/// The verdict on a flow, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// Who would open it.
    pub from: ServiceRef,
    /// Who would accept it.
    pub to: ServiceRef,
    /// On which port. Of a range, every port must be allowed.
    pub port: PortRange,
    /// The verdict.
    pub verdict: Outcome,
    /// The contract that decided.
    pub contract: Option<ContractRef>,
    /// The guardrail that decided.
    pub guardrail: Option<String>,
    /// What the deciding rule says.
    pub rule: Option<String>,
    /// Why, as [`Reason::name`].
    pub reason: String,
    /// The mode of the contract that decided.
    pub mode: Mode,
    /// The revision that was asked.
    pub revision: Revision,
    /// The verdict at each place of the path, up to the first refusal.
    pub hops: Vec<Hop>,
    /// For a refusal: what came close, and what would change it.
    pub alternatives: Vec<Alternative>,
}

impl Explanation {
    /// The explanation in a sentence.
    #[must_use]
    pub fn summary(&self) -> String {
        let Self { from, to, port, .. } = self;
        let may = match self.verdict {
            Outcome::Allow => "may",
            Outcome::Deny => "may not",
        };
        let why = match &self.rule {
            Some(rule) => rule.clone(),
            None => match self.reason.as_str() {
                "unknown-source" => format!("there is no service {from}"),
                "unknown-destination" => format!("there is no service {to}"),
                _ => "no contract states this flow".to_owned(),
            },
        };
        let mode = match self.mode {
            Mode::Enforce => "",
            Mode::Audit => " (audit mode)",
            Mode::Learn => " (learn mode)",
        };
        format!("{from} {may} open {port} to {to}: {why}{mode}")
    }
}

/// Explains the verdict on a flow at `now_ms`. Services that do not exist are refused like any other.
#[must_use]
pub fn explain(
    policy: &PolicyState,
    now_ms: UnixMs,
    from: &ServiceRef,
    to: &ServiceRef,
    port: PortRange,
) -> Explanation {
    let tables = compile(policy, now_ms);
    let nobody = Identity::default();
    let source = tables.identity(from).unwrap_or(nobody);
    let destination = tables.identity(to).unwrap_or(nobody);
    let verdict = verdict_on(&tables, source, destination, port);
    let outcome = if verdict.allow { Outcome::Allow } else { Outcome::Deny };
    let rule = tables.rule(verdict.rule);
    let (contract, guardrail) = match rule.map(|rule| &rule.origin) {
        Some(Origin::Contract(contract)) => (Some(contract.clone()), None),
        Some(Origin::Guardrail(name)) => (None, Some(name.clone())),
        None => (None, None),
    };
    let alternatives = match outcome {
        Outcome::Allow => Vec::new(),
        Outcome::Deny => alternatives::find(policy, &tables, now_ms, from, to, port, verdict.reason),
    };
    Explanation {
        from: from.clone(),
        to: to.clone(),
        port,
        verdict: outcome,
        contract,
        guardrail,
        rule: rule.map(|rule| rule.text.clone()),
        reason: verdict.reason.name().to_owned(),
        mode: mode(verdict.mode),
        revision: policy.revision,
        hops: hops(from, to, outcome, verdict.reason),
        alternatives,
    }
}

/// The verdict on the first port of a range that is refused, or else on its first port.
pub(super) fn verdict_on(
    tables: &VerdictTables,
    source: Identity,
    destination: Identity,
    ports: PortRange,
) -> Verdict {
    let first = |class: &Class| {
        let port = first_refused(tables, source, destination, *class, ports).unwrap_or(ports.low);
        decide(source, destination, class.protocol(), port, tables)
    };
    let mut verdicts = graph::classes(ports.protocol).iter().map(first);
    let verdict = verdicts.next().unwrap_or(Verdict::refused(Reason::NoContract));
    std::iter::once(verdict).chain(verdicts).find(|v| !v.allow).unwrap_or(verdict)
}

/// The lowest port of a range that is refused.
pub(super) fn first_refused(
    tables: &VerdictTables,
    source: Identity,
    destination: Identity,
    class: Class,
    ports: PortRange,
) -> Option<u16> {
    let mut next = u32::from(ports.low);
    for range in tables.effective(source, destination, class) {
        let holds_next = u32::from(range.low) <= next && next <= u32::from(range.high);
        if holds_next && range.verdict().allow {
            next = u32::from(range.high) + 1;
        }
    }
    (next <= u32::from(ports.high)).then_some(next as u16)
}

/// Source and destination judge by the same tables; what the source refuses never arrives.
fn hops(from: &ServiceRef, to: &ServiceRef, verdict: Outcome, reason: Reason) -> Vec<Hop> {
    let hop = |place, service: &ServiceRef| Hop {
        place,
        service: service.clone(),
        verdict,
        reason: reason.name().to_owned(),
    };
    match verdict {
        Outcome::Allow => vec![hop(Place::Source, from), hop(Place::Destination, to)],
        Outcome::Deny => vec![hop(Place::Source, from)],
    }
}

const fn mode(mode: selvedge_abi::Mode) -> Mode {
    match mode {
        selvedge_abi::Mode::Enforce => Mode::Enforce,
        selvedge_abi::Mode::Audit => Mode::Audit,
        selvedge_abi::Mode::Learn => Mode::Learn,
    }
}
