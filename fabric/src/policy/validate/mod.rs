//! Whether objects fit together. Every problem is reported, not only the first; refused is only what is
//! certainly wrong.

mod contract;
mod external;
mod members;
mod simple;

use std::collections::BTreeSet;

use super::graph::Graph;
use crate::{
    command::Problem,
    id::{Name, ObjectRef, ZoneName},
    manifest::MAX_DURATION_MS,
    object::{DomainRule, Kind, MAX_DESCRIPTION_BYTES, Object, ObjectKey, PortRange, Spec},
};

/// Domain names that the DNS uses itself: `<node>.node.<suffix>` and `<endpoint>.ep.<suffix>`.
const RESERVED_DOMAINS: [&str; 2] = ["node", "ep"];

/// Problems of the whole graph. `deleted` only serves to explain a dangling reference.
pub(super) fn graph(graph: &Graph<'_>, deleted: &BTreeSet<ObjectKey>) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (key, spec) in graph.iter() {
        let mut check = Check { graph, deleted, key, problems: &mut problems };
        check.key();
        check.spec(spec);
    }
    problems
}

/// Problems of a contract's `ttl`, which is gone once the contract is stored.
pub(super) fn ttl(object: &Object) -> Option<Problem> {
    let Spec::Contract(contract) = &object.spec else { return None };
    let ttl_ms = contract.ttl?;
    let problem = |message: &str| Some(Problem::of(&object.key, "spec.ttl", message));
    if contract.expires_at.is_some() {
        return problem("excludes expiresAt: state one of the two");
    }
    match ttl_ms {
        0 => problem("must be longer than nothing"),
        1..=MAX_DURATION_MS => None,
        _ => problem("is longer than 100 years; leave it out, then the contract does not end"),
    }
}

/// One object under examination.
struct Check<'a> {
    graph: &'a Graph<'a>,
    deleted: &'a BTreeSet<ObjectKey>,
    key: &'a ObjectKey,
    problems: &'a mut Vec<Problem>,
}

impl Check<'_> {
    fn problem(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.problem_with(field, message, None);
    }

    fn problem_with(
        &mut self,
        field: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<Option<String>>,
    ) {
        self.problems.push(Problem::of(self.key, field, message).with_remedy(remedy));
    }

    fn key(&mut self) {
        let name = self.key.name.as_str();
        let well_formed = match self.key.kind {
            Kind::Zone => name.parse::<ZoneName>().map(|_| ()),
            _ => Name::new(name).map(|_| ()),
        };
        if let Err(error) = well_formed {
            self.problem("metadata.name", error.to_string());
        }
        match (self.key.kind.domain_rule(), &self.key.domain) {
            (DomainRule::Required, None) => {
                self.problem("metadata.domain", format!("a {} lives in a domain; name it", self.key.kind));
            }
            (DomainRule::Forbidden, Some(_)) => {
                self.problem("metadata.domain", format!("a {} lives in no domain", self.key.kind));
            }
            (DomainRule::Required | DomainRule::Optional, Some(domain)) => {
                let domain = super::graph::domain_key(domain);
                self.must_exist("metadata.domain", &domain);
            }
            (DomainRule::Forbidden | DomainRule::Optional, None) => {}
        }
        if self.key.kind == Kind::Domain && RESERVED_DOMAINS.contains(&name) {
            self.problem_with(
                "metadata.name",
                format!("the domain name {name:?} is reserved for DNS names of the fabric itself"),
                "choose another name".to_owned(),
            );
        }
    }

    fn spec(&mut self, spec: &Spec) {
        if spec.kind() != self.key.kind {
            self.problem("spec", format!("is of a {}, not of a {}", spec.kind(), self.key.kind));
            return;
        }
        self.description(spec.description());
        match spec {
            Spec::Zone(zone) => self.zone(zone),
            Spec::Link(link) => self.link(link),
            Spec::Domain(domain) => self.domain(domain),
            Spec::Template(template) => self.template(template),
            Spec::Contract(contract) => self.contract(contract),
            Spec::Service(service) => self.service(service),
            Spec::Guardrail(guardrail) => self.guardrail(guardrail),
            Spec::External(external) => self.external(external),
        }
    }

    fn description(&mut self, text: &str) {
        if text.len() > MAX_DESCRIPTION_BYTES {
            let message = format!("has {} bytes; the most is {MAX_DESCRIPTION_BYTES}", text.len());
            self.problem("spec.description", message);
        }
        // Shown in terminals and tables, where an escape sequence would be obeyed.
        if text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) {
            self.problem("spec.description", "may hold no control characters");
        }
    }

    /// Reports a reference to an object that is not there, and says why it is not when that is known.
    fn must_exist(&mut self, field: impl Into<String>, wanted: &ObjectKey) -> bool {
        if self.graph.get(wanted).is_some() {
            return true;
        }
        if self.deleted.contains(wanted) {
            let message = format!("refers to {wanted}, which would be deleted");
            let remedy = format!("delete {} as well, or change it first", self.key);
            self.problem_with(field, message, remedy);
        } else {
            let known = self.graph.keys(wanted.kind);
            let near = crate::suggest::closest(&wanted.to_string(), known);
            let remedy = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("apply the {} first, or in the same apply", wanted.kind),
            };
            self.problem_with(field, format!("there is no {wanted}"), remedy);
        }
        false
    }

    fn bound(&mut self, field: &str, count: usize, most: usize) {
        if count > most {
            self.problem(field, format!("has {count} entries; the most is {most}"));
        }
    }

    fn ports(&mut self, field: &str, ports: &[PortRange]) {
        self.bound(field, ports.len(), crate::object::MAX_PORTS_PER_ROLE);
        for (i, port) in ports.iter().enumerate() {
            if ports[..i].contains(port) {
                self.problem(format!("{field}[{i}]"), format!("{port} is listed twice"));
            }
        }
    }
}

/// The key of an object that a reference of `kind` names.
fn key_of(kind: Kind, object: &ObjectRef) -> ObjectKey {
    super::graph::in_domain(kind, object)
}
