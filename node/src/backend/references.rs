//! Which objects an object names.

use std::collections::BTreeSet;

use selvedge_fabric::{
    id::{Name, ObjectRef},
    object::{Kind, Object, ObjectKey, RoleBinding, Selector, Spec},
    policy::PolicyState,
};

/// The objects that `object` names and that exist.
pub(super) fn named_by(object: &Object, policy: &PolicyState) -> BTreeSet<ObjectKey> {
    let mut keys: BTreeSet<_> = object.key.domain.iter().map(domain).collect();
    match &object.spec {
        Spec::Zone(zone) => keys.extend(zone.refuse_transit.iter().map(|c| key(Kind::Contract, c))),
        Spec::Contract(contract) => {
            let name = contract.template.to_string();
            let own = ObjectKey { kind: Kind::Template, domain: object.key.domain.clone(), name };
            keys.insert(ObjectKey { domain: None, ..own.clone() });
            keys.insert(own);
        }
        Spec::Service(service) => keys.extend(contracts(&service.roles)),
        Spec::External(external) => keys.extend(contracts(&external.roles)),
        Spec::Guardrail(rule) => keys.extend([&rule.from, &rule.to].into_iter().filter_map(selected)),
        Spec::Link(_) | Spec::Domain(_) | Spec::Template(_) => {}
    }
    keys.retain(|k| policy.objects.contains_key(k));
    keys
}

/// The objects that name `wanted`.
pub(super) fn naming(wanted: &ObjectKey, policy: &PolicyState) -> BTreeSet<ObjectKey> {
    let naming = policy.objects().filter(|o| named_by(o, policy).contains(wanted));
    naming.map(|o| o.key).collect()
}

fn domain(name: &Name) -> ObjectKey {
    ObjectKey { kind: Kind::Domain, domain: None, name: name.to_string() }
}

fn key(kind: Kind, object: &ObjectRef) -> ObjectKey {
    ObjectKey { kind, domain: Some(object.domain.clone()), name: object.name.to_string() }
}

fn contracts(roles: &[RoleBinding]) -> impl Iterator<Item = ObjectKey> + '_ {
    roles.iter().map(|binding| key(Kind::Contract, &binding.contract))
}

fn selected(selector: &Selector) -> Option<ObjectKey> {
    match selector {
        Selector::All => None,
        Selector::Domain(name) => Some(domain(name)),
        Selector::Service(service) => Some(key(Kind::Service, service)),
    }
}
