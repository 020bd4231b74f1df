//! Zones, links, domains, templates and guardrails.

use super::{Check, key_of};
use crate::{
    id::Name,
    manifest::MAX_DURATION_MS,
    object::{DomainSpec, GuardrailSpec, Kind, LinkSpec, MAX_ROLES, Selector, TemplateSpec, ZoneSpec},
    policy::{builtin_templates, graph, tokens::is_actor_name},
};

/// Most administrators of a domain.
const MAX_ADMINS: usize = 256;
/// Most contracts that a zone may refuse to carry.
const MAX_REFUSED: usize = 1_024;

impl Check<'_> {
    pub(super) fn zone(&mut self, zone: &ZoneSpec) {
        self.bound("spec.refuseTransit", zone.refuse_transit.len(), MAX_REFUSED);
        for (i, contract) in zone.refuse_transit.iter().enumerate() {
            self.must_exist(format!("spec.refuseTransit[{i}]"), &graph::contract_key(contract));
        }
    }

    pub(super) fn link(&mut self, link: &LinkSpec) {
        if link.nodes[0] == link.nodes[1] {
            self.problem("spec.nodes", "a link has two different ends");
        }
        if link.cost == 0 {
            self.problem("spec.cost", "must be 1 to 65535");
        }
    }

    pub(super) fn domain(&mut self, domain: &DomainSpec) {
        self.bound("spec.admins", domain.admins.len(), MAX_ADMINS);
        for (i, admin) in domain.admins.iter().enumerate() {
            if !is_actor_name(admin) {
                let message = format!("{admin:?} is no name of an API token");
                let remedy = "1 to 63 of the characters a-z A-Z 0-9 . _ @ -".to_owned();
                self.problem_with(format!("spec.admins[{i}]"), message, remedy);
            }
        }
        if domain.max_policy_age.is_some_and(|age_ms| age_ms == 0 || age_ms > MAX_DURATION_MS) {
            self.problem("spec.maxPolicyAge", "must be longer than nothing and at most 100 years");
        }
        let (Some(quotas), Ok(name)) = (domain.quotas, Name::new(&self.key.name)) else { return };
        let limits = [
            (Kind::Contract, "spec.quotas.contracts", quotas.contracts),
            (Kind::Service, "spec.quotas.services", quotas.services),
        ];
        for (kind, field, most) in limits {
            let count = self.graph.keys_in(kind, &name).count();
            if count > most as usize {
                let plural = format!("{kind}s").to_lowercase();
                let message = format!("the domain would hold {count} {plural}; its quota is {most}");
                self.problem_with(field, message, "raise the quota, or delete some".to_owned());
            }
        }
    }

    pub(super) fn template(&mut self, template: &TemplateSpec) {
        if Name::new(&self.key.name).is_ok_and(|name| builtin_templates().contains_key(&name)) {
            self.problem("metadata.name", format!("the template {} is built in", self.key.name));
        }
        if template.roles.is_empty() {
            self.problem("spec.roles", "a template has at least one role");
        }
        if template.flows.is_empty() {
            self.problem("spec.flows", "a template in which no role may open flows allows nothing");
        }
        self.bound("spec.roles", template.roles.len(), MAX_ROLES);
        for (i, role) in template.roles.iter().enumerate() {
            if template.roles[..i].contains(role) {
                self.problem(format!("spec.roles[{i}]"), format!("the role {role} is listed twice"));
            }
        }
        for (i, flow) in template.flows.iter().enumerate() {
            if template.flows[..i].contains(flow) {
                let message = format!("the flow from {} to {} is listed twice", flow.from, flow.to);
                self.problem(format!("spec.flows[{i}]"), message);
            }
            for (end, role) in [("from", &flow.from), ("to", &flow.to)] {
                if !template.roles.contains(role) {
                    let remedy = crate::suggest::remedy(role.as_str(), &template.roles);
                    let message = format!("the template has no role {role}");
                    self.problem_with(format!("spec.flows[{i}].{end}"), message, remedy);
                }
            }
        }
    }

    pub(super) fn guardrail(&mut self, guardrail: &GuardrailSpec) {
        self.ports("spec.ports", &guardrail.ports);
        for (field, selector) in [("spec.from", &guardrail.from), ("spec.to", &guardrail.to)] {
            match selector {
                Selector::All => {}
                Selector::Domain(domain) => {
                    self.must_exist(field, &graph::domain_key(domain));
                }
                // A guardrail that selects nobody looks like protection and is none.
                Selector::Service(service) => {
                    if self.graph.get(&key_of(Kind::External, service)).is_none() {
                        self.must_exist(field, &key_of(Kind::Service, service));
                    }
                }
            }
        }
    }
}
