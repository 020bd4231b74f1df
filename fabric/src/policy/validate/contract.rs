//! Contracts: template, roles and ports, path, end.

use super::Check;
use crate::{
    id::{Name, ZoneName},
    manifest::MAX_INSTANT_MS,
    object::{ContractSpec, Kind, PathSpec, TemplateSpec},
    policy::builtin_templates,
    rollout::{MAX_SOAK_MS, MIN_SOAK_MS},
};

/// Most zones that a path constraint may list.
const MAX_PATH_ZONES: usize = 64;
/// Most links that a path may have.
const MAX_PATH_HOPS: u8 = 32;

impl Check<'_> {
    pub(super) fn contract(&mut self, contract: &ContractSpec) {
        self.path(&contract.path);
        if contract.expires_at.is_some_and(|at_ms| at_ms > MAX_INSTANT_MS) {
            self.problem("spec.expiresAt", "is after the year 9999; leave it out, then nothing ends");
        }
        let soak = contract.rollout.as_ref().and_then(|rollout| rollout.soak);
        if soak.is_some_and(|ms| !(MIN_SOAK_MS..=MAX_SOAK_MS).contains(&ms)) {
            self.problem("spec.rollout.soak", "must be 1s to 7d");
        }
        for (role, spec) in &contract.roles {
            self.ports(&format!("spec.roles.{role}.ports"), &spec.ports);
        }
        let Some(domain) = &self.key.domain else { return };
        match self.graph.template(domain, &contract.template) {
            Some(template) => self.contract_roles(contract, template),
            None => self.no_template(domain, &contract.template),
        }
    }

    fn contract_roles(&mut self, contract: &ContractSpec, template: &TemplateSpec) {
        for (role, spec) in &contract.roles {
            let field = format!("spec.roles.{role}");
            if !template.roles.contains(role) {
                let remedy = crate::suggest::remedy(role.as_str(), &template.roles);
                let message = format!("the template {} has no role {role}", contract.template);
                self.problem_with(field, message, remedy);
            } else if !spec.ports.is_empty() && !template.flows.iter().any(|flow| flow.to == *role) {
                let accepting: Vec<_> = template.flows.iter().map(|flow| flow.to.as_str()).collect();
                let message = format!(
                    "has ports, but in the template {} nobody opens flows to {role}",
                    contract.template
                );
                let remedy = format!("ports belong to {}", accepting.join(", "));
                self.problem_with(format!("{field}.ports"), message, remedy);
            }
        }
    }

    fn no_template(&mut self, domain: &Name, template: &Name) {
        let visible =
            |key: &&crate::object::ObjectKey| key.domain.is_none() || key.domain.as_ref() == Some(domain);
        let own = self.graph.keys(Kind::Template).filter(visible).map(|key| key.name.as_str());
        let known: Vec<&str> = builtin_templates().keys().map(Name::as_str).chain(own).collect();
        let remedy = crate::suggest::remedy(template.as_str(), known.iter().copied());
        let message = format!("there is no template {template} in the domain {domain}");
        self.problem_with("spec.template", message, remedy);
    }

    fn path(&mut self, path: &PathSpec) {
        self.bound("spec.path.via", path.via.len(), MAX_PATH_ZONES);
        self.bound("spec.path.avoid", path.avoid.len(), MAX_PATH_ZONES);
        if path.max_hops.is_some_and(|hops| !(1..=MAX_PATH_HOPS).contains(&hops)) {
            self.problem("spec.path.maxHops", format!("must be 1 to {MAX_PATH_HOPS}"));
        }
        for (i, via) in path.via.iter().enumerate() {
            if let Some(avoid) = path.avoid.iter().find(|avoid| covers(avoid, via)) {
                let message = format!("packets cannot pass {via} and avoid {avoid}");
                self.problem(format!("spec.path.via[{i}]"), message);
            }
        }
    }
}

/// Whether every place in `inner` is in `outer`; a zone without a region stands for its whole cloud.
fn covers(outer: &ZoneName, inner: &ZoneName) -> bool {
    outer.cloud() == inner.cloud() && (outer.region().is_none() || outer == inner)
}
