//! Names of objects, as people write them: `name`, or `name@domain` for kinds that live in one.

use selvedge_fabric::{
    id::{Name, ZoneName},
    object::{DomainRule, Kind, ObjectKey},
};

use super::error::ApiError;

/// Reads the name of an object of a kind.
///
/// # Errors
/// [`super::Code::BadRequest`] when the name is malformed, or has or lacks a domain against the kind's
/// rule.
pub fn parse(kind: Kind, text: &str) -> Result<ObjectKey, ApiError> {
    let bad = |why: String| ApiError::bad_request(format!("{kind} {text:?}: {why}"));
    let (name, domain) = match text.split_once('@') {
        Some((name, domain)) => (name, Some(Name::new(domain).map_err(|e| bad(e.to_string()))?)),
        None => (text, None),
    };
    match (kind.domain_rule(), &domain) {
        (DomainRule::Required, None) => {
            return Err(bad(format!("a {kind} lives in a domain; write name@domain")));
        }
        (DomainRule::Forbidden, Some(_)) => {
            return Err(bad(format!("a {kind} lives in no domain; write the name alone")));
        }
        (DomainRule::Required | DomainRule::Optional | DomainRule::Forbidden, _) => {}
    }
    let checked = match kind {
        Kind::Zone => name.parse::<ZoneName>().map(|_| ()),
        Kind::Link
        | Kind::Domain
        | Kind::Template
        | Kind::Contract
        | Kind::Service
        | Kind::Guardrail
        | Kind::External => Name::new(name).map(|_| ()),
    };
    checked.map_err(|e| bad(e.to_string()))?;
    Ok(ObjectKey { kind, domain, name: name.to_owned() })
}

/// Reads a kind, in any case, singular or plural.
///
/// # Errors
/// [`super::Code::BadRequest`], naming the known kinds.
pub fn parse_kind(text: &str) -> Result<Kind, ApiError> {
    text.parse().map_err(ApiError::bad_request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_domain_follows_the_kind() {
        let key = parse(Kind::Contract, "backend@voting").expect("a key");
        assert_eq!(key.to_string(), "Contract backend@voting");
        assert!(parse(Kind::Contract, "backend").is_err());
        assert!(parse(Kind::Domain, "voting@x").is_err());
        assert!(parse(Kind::Template, "t").is_ok() && parse(Kind::Template, "t@d").is_ok());
        assert!(parse(Kind::Zone, "aws/east").is_ok() && parse(Kind::Zone, "aws/a/b").is_err());
        assert!(parse(Kind::Service, "A@b").is_err());
    }
}
