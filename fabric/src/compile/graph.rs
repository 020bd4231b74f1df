//! Who plays which role in which contract: the service graph, turned round.

use std::collections::BTreeMap;

use selvedge_abi::{Class, Identity};

use crate::{
    UnixMs,
    id::{ContractRef, Name, ServiceRef},
    object::{ContractSpec, Kind, ObjectKey, PortRange, Protocol, RoleBinding, Spec},
    policy::PolicyState,
};

/// The members of a contract by role, in the order of services.
pub(crate) type Members<'a> = BTreeMap<&'a Name, Vec<(ServiceRef, Identity)>>;

/// The members of every contract.
pub(crate) fn members(policy: &PolicyState) -> BTreeMap<&ContractRef, Members<'_>> {
    let mut contracts: BTreeMap<&ContractRef, Members<'_>> = BTreeMap::new();
    for (key, spec) in &policy.objects {
        let Some(service) = member_ref(key) else { continue };
        let Some(identity) = policy.identities.get(&service) else { continue };
        for RoleBinding { contract, role } in bindings(spec) {
            let role = contracts.entry(contract).or_default().entry(role).or_default();
            role.push((service.clone(), Identity(*identity)));
        }
    }
    contracts
}

/// The roles that an object plays; none for what is neither service nor external.
pub(crate) fn bindings(spec: &Spec) -> &[RoleBinding] {
    match spec {
        Spec::Service(service) => &service.roles,
        Spec::External(external) => &external.roles,
        Spec::Zone(_)
        | Spec::Link(_)
        | Spec::Domain(_)
        | Spec::Template(_)
        | Spec::Contract(_)
        | Spec::Guardrail(_) => &[],
    }
}

fn member_ref(key: &ObjectKey) -> Option<ServiceRef> {
    matches!(key.kind, Kind::Service | Kind::External).then_some(())?;
    Some(ServiceRef::new(Name::new(&key.name).ok()?, key.domain.clone()?))
}

/// Every contract, ended or not, in order.
pub(crate) fn contracts(policy: &PolicyState) -> impl Iterator<Item = (ContractRef, &ContractSpec)> {
    policy.objects.iter().filter_map(|(key, spec)| {
        let Spec::Contract(contract) = spec else { return None };
        Some((ContractRef::new(Name::new(&key.name).ok()?, key.domain.clone()?), contract))
    })
}

/// Whether a contract holds at `now_ms`.
pub(crate) fn holds(contract: &ContractSpec, now_ms: UnixMs) -> bool {
    contract.expires_at.is_none_or(|end| now_ms < end)
}

/// The ports on which a role of a contract may be reached.
pub(crate) fn ports_of<'a>(contract: &'a ContractSpec, role: &Name) -> &'a [PortRange] {
    contract.roles.get(role).map_or(&[], |r| &r.ports)
}

/// The classes that a protocol of a contract stands for.
pub(crate) const fn classes(protocol: Protocol) -> &'static [Class] {
    match protocol {
        Protocol::Tcp => &[Class::Tcp],
        Protocol::Udp => &[Class::Udp],
        Protocol::Icmp => &[Class::Icmp],
        Protocol::Any => &Class::ALL,
    }
}
