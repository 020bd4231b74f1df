//! Who may change which objects. Pure: judged against the policy at hand, before a proposal.
//!
//! An admin changes everything. A token with *domain* rights changes what lives in the domains that
//! name it as admin, but not the Domain itself: its quotas and admins are the organisation's bounds on
//! that very admin. Binding a service to a contract of another domain opens that domain's service, so
//! it takes the right to both, unless the binding is there already.

use selvedge_fabric::{
    command::{Apply, Rights},
    id::Name,
    object::{Kind, Object, ObjectKey, RoleBinding, Spec},
    policy::PolicyState,
};

use super::{caller::Caller, error::ApiError};

/// Refuses a caller that may not change what lives in `domain`.
///
/// # Errors
/// [`super::Code::Forbidden`], naming the domain.
pub fn require_domain(caller: &Caller, policy: &PolicyState, domain: &Name) -> Result<(), ApiError> {
    if caller.is_admin() || administers(caller, policy, domain) {
        return Ok(());
    }
    let detail = format!("{} is no admin of domain {domain}", caller.actor());
    Err(ApiError::forbidden(detail)
        .remedy(format!("list it under spec.admins of Domain {domain}, or use a token with admin rights")))
}

/// Refuses a caller that may not make all of these changes.
///
/// # Errors
/// [`super::Code::Forbidden`], naming the first object that it may not change.
pub fn require_apply(caller: &Caller, policy: &PolicyState, apply: &Apply) -> Result<(), ApiError> {
    if caller.is_admin() {
        return Ok(());
    }
    caller.require_writer("change objects")?;
    for key in apply.set.iter().map(|o| &o.key).chain(&apply.delete) {
        require_object(caller, policy, key)?;
    }
    apply.set.iter().try_for_each(|object| require_bindings(caller, policy, object))
}

fn administers(caller: &Caller, policy: &PolicyState, domain: &Name) -> bool {
    let Caller::Token { name, rights: Rights::Domain, .. } = caller else { return false };
    let key = ObjectKey { kind: Kind::Domain, domain: None, name: domain.to_string() };
    matches!(policy.objects.get(&key), Some(Spec::Domain(spec)) if spec.admins.contains(name))
}

fn require_object(caller: &Caller, policy: &PolicyState, key: &ObjectKey) -> Result<(), ApiError> {
    match &key.domain {
        Some(domain) => require_domain(caller, policy, domain),
        None => caller.require_admin(&format!("change {key}")),
    }
}

fn require_bindings(caller: &Caller, policy: &PolicyState, object: &Object) -> Result<(), ApiError> {
    let present = policy.objects.get(&object.key).map(bindings).unwrap_or_default();
    bindings(&object.spec)
        .iter()
        .filter(|b| !present.contains(b))
        .try_for_each(|b| require_domain(caller, policy, &b.contract.domain))
}

fn bindings(spec: &Spec) -> &[RoleBinding] {
    match spec {
        Spec::Service(spec) => &spec.roles,
        Spec::External(spec) => &spec.roles,
        Spec::Zone(_)
        | Spec::Link(_)
        | Spec::Domain(_)
        | Spec::Template(_)
        | Spec::Contract(_)
        | Spec::Guardrail(_) => &[],
    }
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::{
        key::TokenId,
        object::{DomainSpec, ServiceSpec},
    };

    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    fn policy() -> PolicyState {
        let mut policy = PolicyState::default();
        for (domain, admin) in [("voting", "vera"), ("weather", "will")] {
            let key = ObjectKey { kind: Kind::Domain, domain: None, name: domain.to_owned() };
            let spec = DomainSpec { admins: vec![admin.to_owned()], ..DomainSpec::default() };
            policy.objects.insert(key, Spec::Domain(spec));
        }
        policy
    }

    fn token(name: &str, rights: Rights) -> Caller {
        Caller::Token { id: TokenId([1; 9]), name: name.to_owned(), rights }
    }

    fn service(domain: &str, role: &str) -> Object {
        let key = ObjectKey { kind: Kind::Service, domain: Some(name(domain)), name: "svc".to_owned() };
        let roles = vec![role.parse().expect("a role binding")];
        Object { key, spec: Spec::Service(ServiceSpec { description: String::new(), roles }) }
    }

    fn set(object: Object) -> Apply {
        Apply { set: vec![object], ..Apply::default() }
    }

    #[test]
    fn a_domain_admin_changes_its_own_domain_only() {
        let vera = token("vera", Rights::Domain);
        let own = set(service("voting", "client:backend@voting"));
        let foreign = set(service("weather", "client:api@weather"));
        assert_eq!(require_apply(&vera, &policy(), &own), Ok(()));
        assert!(require_apply(&vera, &policy(), &foreign).is_err());
        assert!(require_apply(&token("vera", Rights::Read), &policy(), &own).is_err());
        assert_eq!(require_apply(&token("vera", Rights::Admin), &policy(), &foreign), Ok(()));
        assert_eq!(require_apply(&Caller::Local { uid: 0 }, &policy(), &foreign), Ok(()));
    }

    #[test]
    fn a_domain_admin_does_not_change_the_domain_itself() {
        let key = ObjectKey { kind: Kind::Domain, domain: None, name: "voting".to_owned() };
        let apply = Apply { delete: vec![key], ..Apply::default() };
        assert!(require_apply(&token("vera", Rights::Domain), &policy(), &apply).is_err());
    }

    #[test]
    fn binding_to_a_foreign_contract_takes_the_right_to_it_unless_it_is_there() {
        let vera = token("vera", Rights::Domain);
        let apply = set(service("voting", "client:api@weather"));
        assert!(require_apply(&vera, &policy(), &apply).is_err());
        let mut bound = policy();
        bound.objects.insert(apply.set[0].key.clone(), apply.set[0].spec.clone());
        assert_eq!(require_apply(&vera, &bound, &apply), Ok(()));
    }
}
