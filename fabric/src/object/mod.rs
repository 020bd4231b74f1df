//! The objects of intent, as they are after validation.
//!
//! The types serialize to exactly the `spec` of a manifest (camelCase); [`crate::manifest`] reads and
//! writes whole documents. They also travel in binary encodings, so no field is skipped when it is
//! absent; and a reader skips fields that it does not know, so that an older node can read a newer
//! snapshot. That a manifest has no unknown field is checked where manifests are read.

mod spec;
mod text;

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use self::spec::{default_cost, default_quota};
pub use self::{
    spec::{
        Action, ContractRole, ContractSpec, DomainSpec, ExternalSpec, FlowRule, GuardrailSpec, LinkSpec,
        Mode, PathSpec, Quotas, RolloutSpec, ServiceSpec, TemplateSpec, ZoneSpec,
    },
    text::{PortRange, Protocol, RoleBinding, Selector},
};
use crate::id::Name;

/// Most ports and ranges a contract role may list.
pub const MAX_PORTS_PER_ROLE: usize = 64;
/// Most roles a template may have.
pub const MAX_ROLES: usize = 16;
/// Most roles a service may play.
pub const MAX_BINDINGS: usize = 256;
/// Longest description, in bytes.
pub const MAX_DESCRIPTION_BYTES: usize = 1024;
/// Hop limit of a contract that states none.
pub const DEFAULT_MAX_HOPS: u8 = 8;

/// Kinds of objects, in the order in which they are applied and listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// A failure domain.
    Zone,
    /// A declared link between two processors.
    Link,
    /// A tenant.
    Domain,
    /// An interaction pattern.
    Template,
    /// A template put to use.
    Contract,
    /// What plays the roles of contracts.
    Service,
    /// An organisation-wide rule, evaluated before any contract.
    Guardrail,
    /// Named addresses outside the fabric.
    External,
}

impl Kind {
    /// Every kind, in order.
    pub const ALL: [Self; 8] = [
        Self::Zone,
        Self::Link,
        Self::Domain,
        Self::Template,
        Self::Contract,
        Self::Service,
        Self::Guardrail,
        Self::External,
    ];

    /// Whether objects of this kind live in a domain. Templates and externals may also be
    /// fabric-wide: then their key has no domain.
    #[must_use]
    pub const fn domain_rule(self) -> DomainRule {
        match self {
            Self::Contract | Self::Service => DomainRule::Required,
            Self::Template | Self::External => DomainRule::Optional,
            Self::Zone | Self::Link | Self::Domain | Self::Guardrail => DomainRule::Forbidden,
        }
    }
}

/// Whether an object's metadata names a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DomainRule {
    /// It must.
    Required,
    /// It may.
    Optional,
    /// It must not.
    Forbidden,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for Kind {
    type Err = String;

    /// Takes the kind in any case, singular or plural.
    fn from_str(text: &str) -> Result<Self, String> {
        let lower = text.to_ascii_lowercase();
        let stem = lower.strip_suffix('s').unwrap_or(&lower);
        Self::ALL.into_iter().find(|k| k.to_string().to_ascii_lowercase() == stem).ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(ToString::to_string).collect();
            format!("unknown kind {text:?}; known kinds are {}", known.join(", "))
        })
    }
}

/// Identifies an object. Ordered by kind first, so that a map of objects lists what others refer to
/// before what refers to it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The domain, for kinds that live in one.
    #[serde(default)]
    pub domain: Option<Name>,
    /// The name. A zone's name may hold one slash (`cloud/region`); every other one is a [`Name`].
    pub name: String,
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.domain {
            Some(domain) => write!(f, "{} {}@{domain}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// One object: its key and what it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Which object.
    pub key: ObjectKey,
    /// What it says; always of the key's kind.
    pub spec: Spec,
}

/// What an object says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant is its kind; the spec types carry the documentation")]
pub enum Spec {
    Zone(ZoneSpec),
    Link(LinkSpec),
    Domain(DomainSpec),
    Template(TemplateSpec),
    Contract(ContractSpec),
    Service(ServiceSpec),
    Guardrail(GuardrailSpec),
    External(ExternalSpec),
}

impl Spec {
    /// The kind of object that it is the spec of.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Zone(_) => Kind::Zone,
            Self::Link(_) => Kind::Link,
            Self::Domain(_) => Kind::Domain,
            Self::Template(_) => Kind::Template,
            Self::Contract(_) => Kind::Contract,
            Self::Service(_) => Kind::Service,
            Self::Guardrail(_) => Kind::Guardrail,
            Self::External(_) => Kind::External,
        }
    }

    /// The words for people; a link has none.
    #[must_use]
    pub fn description(&self) -> &str {
        match self {
            Self::Zone(spec) => &spec.description,
            Self::Link(_) => "",
            Self::Domain(spec) => &spec.description,
            Self::Template(spec) => &spec.description,
            Self::Contract(spec) => &spec.description,
            Self::Service(spec) => &spec.description,
            Self::Guardrail(spec) => &spec.description,
            Self::External(spec) => &spec.description,
        }
    }

    /// Whether the object has an identity in verdict tables: a service always, an external when it plays
    /// roles.
    #[must_use]
    pub fn plays_roles(&self) -> bool {
        match self {
            Self::Service(_) => true,
            Self::External(spec) => !spec.roles.is_empty(),
            _ => false,
        }
    }
}
