//! Compiles the service graph into verdict tables.
//!
//! The tables are a function of intent and time alone. Facts have no part in them: where an endpoint
//! runs changes which address stands for a service, never what the service may do.
//!
//! * Each contract contributes an edge for every pair of services of which the template lets the one
//!   open flows to the other, on the ports of the accepting role.
//! * A contract in audit or learn mode also contributes, behind everything that any contract states, an
//!   edge over all ports between every two of its own members. So it can never widen what another
//!   contract says about services that are not its members, and a flow that some contract states is
//!   never taken for one that was let pass.
//! * Guardrails become edges between groups of services, see [`selvedge_abi`].
//!
//! Where ranges overlap, `flatten` decides once, here, which rule speaks for a port.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use selvedge_abi::{Class, EdgeKey, Groups, Identity, Mode, Range, Tables};

use crate::{
    UnixMs,
    id::{ContractRef, Name, NodeName, ServiceRef},
    object::PortRange,
    policy::PolicyState,
};

mod contracts;
mod flatten;
pub(crate) mod graph;
mod guardrails;

#[cfg(test)]
mod tests;

/// Most port ranges of all contract edges together. Beyond, further contracts are left out, which is
/// safe, and reported: a thousand services that are all each other's peers make as many.
pub const MAX_CONTRACT_SEGMENTS: usize = 2_000_000;
/// Most port ranges of all guardrail edges together. Leaving a guardrail out would open what it closes,
/// so beyond this nothing at all is allowed, and that is reported.
pub const MAX_GUARDRAIL_SEGMENTS: usize = 500_000;

/// Who may talk to whom, by identity; what [`selvedge_abi::decide()`] looks up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VerdictTables {
    /// Every service, and external that plays roles, with how the guardrails see it.
    pub members: BTreeMap<Identity, Member>,
    /// Edges between groups.
    pub guardrails: BTreeMap<EdgeKey, Vec<Range>>,
    /// Edges between services.
    pub contracts: BTreeMap<EdgeKey, Vec<Range>>,
    /// The rules; number 1 is the first, number 0 is none.
    pub rules: Vec<Rule>,
    /// What could not be compiled, and what to do about it.
    pub problems: Vec<String>,
    identities: BTreeMap<ServiceRef, Identity>,
}

/// A service in the tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The service.
    pub service: ServiceRef,
    /// How the guardrails see it.
    pub groups: Groups,
}

/// What a verdict's rule number stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// What made the rule.
    pub origin: Origin,
    /// What it says, for people.
    pub text: String,
}

/// What made a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A contract.
    Contract(ContractRef),
    /// A guardrail, by name.
    Guardrail(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contract(contract) => write!(f, "Contract {contract}"),
            Self::Guardrail(name) => write!(f, "Guardrail {name}"),
        }
    }
}

/// Compiles the tables as they hold at `now_ms`: contracts that have ended are not in them.
#[must_use]
pub fn compile(policy: &PolicyState, now_ms: UnixMs) -> VerdictTables {
    compile_without(policy, now_ms, &BTreeSet::new())
}

/// [`compile`] less the contracts of some domains: those that a node may no longer allow because its
/// policy is too old for them. Their guardrails stay.
#[must_use]
pub fn compile_without(policy: &PolicyState, now_ms: UnixMs, suspended: &BTreeSet<Name>) -> VerdictTables {
    compile_on(policy, now_ms, suspended, None)
}

/// [`compile_without`] what a node is not to allow yet: see [`crate::rollout`].
#[must_use]
pub fn compile_on(
    policy: &PolicyState,
    now_ms: UnixMs,
    suspended: &BTreeSet<Name>,
    node: Option<&NodeName>,
) -> VerdictTables {
    let identities: BTreeMap<_, _> =
        policy.identities.iter().map(|(service, id)| (service.clone(), Identity(*id))).collect();
    let mut tables = VerdictTables { identities, ..VerdictTables::default() };
    guardrails::compile(policy, &mut tables);
    contracts::compile(policy, now_ms, suspended, node, &mut tables);
    tables
}

impl VerdictTables {
    /// The number of a service, when it is one of this policy.
    #[must_use]
    pub fn identity(&self, service: &ServiceRef) -> Option<Identity> {
        self.identities.get(service).copied()
    }

    /// The service with a number.
    #[must_use]
    pub fn service(&self, identity: Identity) -> Option<&ServiceRef> {
        self.members.get(&identity).map(|member| &member.service)
    }

    /// Every service with its number.
    pub fn services(&self) -> impl Iterator<Item = (&ServiceRef, Identity)> + Clone {
        self.identities.iter().map(|(service, identity)| (service, *identity))
    }

    /// The rule with a number.
    #[must_use]
    pub fn rule(&self, number: u32) -> Option<&Rule> {
        self.rules.get(usize::try_from(number).ok()?.checked_sub(1)?)
    }

    /// What holds between two services on every port, guardrails laid over contracts. Ports in none of
    /// the ranges are refused.
    #[must_use]
    pub fn effective(&self, source: Identity, destination: Identity, class: Class) -> Vec<Range> {
        match self.layers(source, destination, class) {
            (&[], only) | (only, &[]) => only.to_vec(),
            (first, second) => flatten::overlay(first, second),
        }
    }

    /// Whether a flow between two services may be opened on at least one of these ports.
    #[must_use]
    pub fn allows_some(&self, source: Identity, destination: Identity, ports: PortRange) -> bool {
        let allows = |r: &Range| r.verdict().allow && r.low <= ports.high && ports.low <= r.high;
        graph::classes(ports.protocol).iter().any(|class| match self.layers(source, destination, *class) {
            (&[], only) => only.iter().any(allows),
            (first, second) => flatten::overlay(first, second).iter().any(allows),
        })
    }

    /// What guardrails, and what contracts, say between two services.
    fn layers(&self, source: Identity, destination: Identity, class: Class) -> (&[Range], &[Range]) {
        let (Some(from), Some(to)) = (self.groups(source), self.groups(destination)) else {
            return (&[], &[]);
        };
        let guardrail = self.guardrail(&EdgeKey::new(from.source, to.destination, class));
        let contract = self.contract(&EdgeKey::new(source.0, destination.0, class));
        (guardrail.unwrap_or_default(), contract.unwrap_or_default())
    }

    fn add_rule(&mut self, origin: Origin, text: String) -> u32 {
        self.rules.push(Rule { origin, text });
        u32::try_from(self.rules.len()).unwrap_or(0)
    }
}

impl Tables for VerdictTables {
    fn groups(&self, identity: Identity) -> Option<Groups> {
        self.members.get(&identity).map(|member| member.groups)
    }

    fn guardrail(&self, key: &EdgeKey) -> Option<&[Range]> {
        self.guardrails.get(key).map(Vec::as_slice)
    }

    fn contract(&self, key: &EdgeKey) -> Option<&[Range]> {
        self.contracts.get(key).map(Vec::as_slice)
    }
}

/// The mode of a contract as verdicts carry it.
const fn mode(mode: crate::object::Mode) -> Mode {
    match mode {
        crate::object::Mode::Enforce => Mode::Enforce,
        crate::object::Mode::Audit => Mode::Audit,
        crate::object::Mode::Learn => Mode::Learn,
    }
}
