//! The objects as they would be after a change, and how to look things up among them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::LazyLock,
};

use super::PolicyState;
use crate::{
    id::{ContractRef, Name, ObjectRef},
    object::{ContractSpec, FlowRule, Kind, ObjectKey, Spec, TemplateSpec},
};

/// The objects after a change: borrowed, so that looking at them before deciding costs no copy.
pub(super) struct Graph<'a> {
    objects: BTreeMap<&'a ObjectKey, &'a Spec>,
}

impl<'a> Graph<'a> {
    pub(super) fn new(
        present: &'a BTreeMap<ObjectKey, Spec>,
        set: &'a BTreeMap<ObjectKey, Spec>,
        delete: &BTreeSet<ObjectKey>,
    ) -> Self {
        let kept = present.iter().filter(|(key, _)| !delete.contains(key));
        Self { objects: kept.chain(set).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.objects.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'a ObjectKey, &'a Spec)> + '_ {
        self.objects.iter().map(|(key, spec)| (*key, *spec))
    }

    pub(super) fn get(&self, key: &ObjectKey) -> Option<&'a Spec> {
        self.objects.get(key).copied()
    }

    /// The keys of one kind.
    pub(super) fn keys(&self, kind: Kind) -> impl Iterator<Item = &'a ObjectKey> + Clone + '_ {
        // Keys are ordered by kind, and an absent domain comes before every other: this range is exact.
        let first = ObjectKey { kind, domain: None, name: String::new() };
        let rest = self.objects.range::<ObjectKey, _>(&first..);
        rest.map(|(key, _)| *key).take_while(move |key| key.kind == kind)
    }

    /// The keys of one kind within a domain.
    pub(super) fn keys_in(&self, kind: Kind, domain: &Name) -> impl Iterator<Item = &'a ObjectKey> + '_ {
        let home = Some(domain.clone());
        let first = ObjectKey { kind, domain: home.clone(), name: String::new() };
        let rest = self.objects.range::<ObjectKey, _>(&first..);
        rest.map(|(key, _)| *key).take_while(move |key| key.kind == kind && key.domain == home)
    }

    pub(super) fn contract(&self, contract: &ContractRef) -> Option<&'a ContractSpec> {
        match self.get(&contract_key(contract))? {
            Spec::Contract(spec) => Some(spec),
            _ => None,
        }
    }

    pub(super) fn template(&self, domain: &Name, name: &Name) -> Option<&'a TemplateSpec> {
        find_template(domain, name, |key| self.get(key))
    }
}

pub(super) fn contract_key(contract: &ContractRef) -> ObjectKey {
    in_domain(Kind::Contract, contract)
}

pub(super) fn in_domain(kind: Kind, object: &ObjectRef) -> ObjectKey {
    ObjectKey { kind, domain: Some(object.domain.clone()), name: object.name.to_string() }
}

pub(super) fn domain_key(domain: &Name) -> ObjectKey {
    ObjectKey { kind: Kind::Domain, domain: None, name: domain.to_string() }
}

/// A template by its name as a contract of `domain` writes it: a built-in one, then one of the domain,
/// then a fabric-wide one.
fn find_template<'a>(
    domain: &Name,
    name: &Name,
    get: impl Fn(&ObjectKey) -> Option<&'a Spec>,
) -> Option<&'a TemplateSpec> {
    if let Some(built_in) = builtin_templates().get(name) {
        return Some(built_in);
    }
    let key = |domain| ObjectKey { kind: Kind::Template, domain, name: name.to_string() };
    match get(&key(Some(domain.clone()))).or_else(|| get(&key(None)))? {
        Spec::Template(template) => Some(template),
        _ => None,
    }
}

/// The templates that every fabric has, and that no object may redefine:
///
/// * `client-server`: clients open flows to servers.
/// * `peer`: peers open flows to one another.
/// * `publish-subscribe`: subscribers open flows to publishers and keep them open; messages come back on
///   them. The publisher is the party that others must find, so it is the one that the contract's DNS
///   name answers, and nobody is called who did not ask. Where messages are pushed instead, or pass
///   through a broker, use `client-server` or a template of your own.
#[must_use]
pub fn builtin_templates() -> &'static BTreeMap<Name, TemplateSpec> {
    static TEMPLATES: LazyLock<BTreeMap<Name, TemplateSpec>> = LazyLock::new(|| {
        let parts = [
            ("client-server", &["client", "server"][..], ("client", "server")),
            ("peer", &["peer"][..], ("peer", "peer")),
            ("publish-subscribe", &["publisher", "subscriber"][..], ("subscriber", "publisher")),
        ];
        let name = |text: &str| Name::new(text).ok();
        let template = |(title, roles, (from, to)): (&str, &[&str], (&str, &str))| {
            let flows = vec![FlowRule { from: name(from)?, to: name(to)? }];
            let roles = roles.iter().map(|role| name(role)).collect::<Option<Vec<_>>>()?;
            Some((name(title)?, TemplateSpec { description: String::new(), roles, flows }))
        };
        parts.into_iter().filter_map(template).collect()
    });
    &TEMPLATES
}

impl PolicyState {
    /// A contract by name.
    #[must_use]
    pub fn contract(&self, contract: &ContractRef) -> Option<&ContractSpec> {
        match self.objects.get(&contract_key(contract))? {
            Spec::Contract(spec) => Some(spec),
            _ => None,
        }
    }

    /// The template of a contract that is part of this state.
    #[must_use]
    pub fn template_of(&self, contract: &ContractRef) -> Option<&TemplateSpec> {
        let template = &self.contract(contract)?.template;
        find_template(&contract.domain, template, |key| self.objects.get(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_templates_are_complete() {
        let templates = builtin_templates();
        assert_eq!(templates.len(), 3);
        for (name, template) in templates {
            assert!(template.flows.iter().all(|f| template.roles.contains(&f.from)), "{name}");
            assert!(template.flows.iter().all(|f| template.roles.contains(&f.to)), "{name}");
        }
    }
}
