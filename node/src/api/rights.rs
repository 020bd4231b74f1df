//! Who may change which objects. Pure: judged against the policy at hand, before a proposal.
//!
//! An admin changes everything. A token with *domain* rights changes what lives in the domains that
//! name it as admin, but not the Domain itself: its quotas and admins are the organisation's bounds on
//! that very admin. Binding a service to a contract of another domain opens that domain's service, so
//! it takes the right to both, unless the binding is there already.

use selvedge_fabric::{
    command::{Apply, Rights},
    id::{Name, ServiceRef},
    key::TokenId,
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

/// Refuses a caller that may not end this token. The admins of a domain end the tokens of its services;
/// all others, and those that are not there, are for admins. A token that is not there is refused with
/// the same words, so that one cannot find out which exist.
///
/// # Errors
/// [`super::Code::Forbidden`].
pub fn require_revoke(caller: &Caller, policy: &PolicyState, id: &TokenId) -> Result<(), ApiError> {
    if caller.is_admin() {
        return Ok(());
    }
    caller.require_writer("revoke tokens")?;
    match policy.service_tokens.get(id) {
        Some(token) if administers(caller, policy, &token.service.domain) => Ok(()),
        _ => {
            let detail = format!("{} may not revoke {id}", caller.actor());
            Err(ApiError::forbidden(detail)
                .remedy("admins of a domain revoke tokens of its services; other tokens take admin rights"))
        }
    }
}

/// Whether the caller may read the list entry of a service token.
#[must_use]
pub fn may_list(caller: &Caller, policy: &PolicyState, service: &ServiceRef) -> bool {
    caller.is_admin() || administers(caller, policy, &service.domain)
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
        command::{ServiceToken, TokenScope},
        key::PublicKey,
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

    #[test]
    fn a_domain_admin_ends_tokens_of_its_own_services_only() {
        let mut policy = policy();
        let id = TokenId([7; 9]);
        let service: ServiceRef = "db@voting".parse().expect("a service");
        let key = PublicKey([0; 32]);
        let token_of_db =
            ServiceToken { id, service: service.clone(), key, scope: TokenScope::default(), not_after_ms: 1 };
        policy.service_tokens.insert(id, token_of_db);
        let (vera, will) = (token("vera", Rights::Domain), token("will", Rights::Domain));
        assert_eq!(require_revoke(&vera, &policy, &id), Ok(()));
        assert!(require_revoke(&will, &policy, &id).is_err());
        assert!(require_revoke(&token("vera", Rights::Read), &policy, &id).is_err());
        assert!(require_revoke(&vera, &policy, &TokenId([8; 9])).is_err(), "not there, or not a service's");
        assert_eq!(require_revoke(&Caller::Local { uid: 0 }, &policy, &TokenId([8; 9])), Ok(()));
        assert!(may_list(&vera, &policy, &service) && !may_list(&will, &policy, &service));
    }
}
