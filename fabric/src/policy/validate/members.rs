//! Services, and the roles that services and externals play.

use super::{Check, key_of};
use crate::{
    id::{Name, ServiceRef},
    object::{Kind, MAX_BINDINGS, RoleBinding, ServiceSpec},
    policy::graph,
};

impl Check<'_> {
    pub(super) fn service(&mut self, service: &ServiceSpec) {
        self.roles(&service.roles);
        // Both would be `name@domain` in verdicts, logs and guardrails.
        if let Some(domain) = &self.key.domain
            && let Ok(name) = Name::new(&self.key.name)
            && let external = key_of(Kind::External, &ServiceRef::new(name, domain.clone()))
            && self.graph.get(&external).is_some()
        {
            let message =
                format!("there is also an {external}; within a domain the two share one name space");
            self.problem_with("metadata.name", message, "rename one of them".to_owned());
        }
    }

    pub(super) fn roles(&mut self, roles: &[RoleBinding]) {
        self.bound("spec.roles", roles.len(), MAX_BINDINGS);
        for (i, binding) in roles.iter().enumerate() {
            let field = format!("spec.roles[{i}]");
            if roles[..i].contains(binding) {
                self.problem(field, format!("{binding} is listed twice"));
                continue;
            }
            if !self.must_exist(field.clone(), &graph::contract_key(&binding.contract)) {
                continue;
            }
            // A contract without its template has its own problem.
            let Some(contract) = self.graph.contract(&binding.contract) else { continue };
            let template = self.graph.template(&binding.contract.domain, &contract.template);
            if let Some(template) = template.filter(|template| !template.roles.contains(&binding.role)) {
                let remedy = crate::suggest::remedy(binding.role.as_str(), &template.roles);
                let message = format!(
                    "the contract {} (template {}) has no role {}",
                    binding.contract, contract.template, binding.role
                );
                self.problem_with(field, message, remedy);
            }
        }
    }
}
