//! The objects of intent, as they are after validation.
//!
//! The types serialize to exactly the `spec` of a manifest (camelCase); [`crate::manifest`] reads and
//! writes whole documents.

use std::{collections::BTreeMap, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    UnixMs,
    id::{ContractRef, Name, NodeName, ObjectRef, ServiceRef, ZoneName},
};

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

/// A failure domain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(deny_unknown_fields)]
pub struct ZoneSpec {
    /// For people.
    pub description: String,
    /// Contracts whose packets this zone's processors do not carry for others.
    #[schemars(with = "Vec<String>")]
    pub refuse_transit: Vec<ContractRef>,
}

/// A declared link between two processors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct LinkSpec {
    /// The two ends.
    #[schemars(with = "[String; 2]")]
    pub nodes: [NodeName; 2],
    /// Routing cost, 1 to 65535; lower is preferred.
    #[serde(default = "default_cost")]
    pub cost: u16,
    /// Administrative state.
    #[serde(default = "yes")]
    pub enabled: bool,
}

/// A tenant: a name space with its own administrators and quotas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(deny_unknown_fields)]
pub struct DomainSpec {
    /// For people.
    pub description: String,
    /// Names of the API tokens that may change this domain.
    pub admins: Vec<String>,
    /// Bounds on what the domain may hold.
    pub quotas: Option<Quotas>,
    /// An isolated node stops allowing this domain's contracts when its policy is older than this
    /// many milliseconds; never, when absent. Written as a duration (`30m`) in manifests.
    #[serde(with = "crate::manifest::duration_opt")]
    #[schemars(with = "Option<String>")]
    pub max_policy_age: Option<u64>,
}

/// Bounds on what a domain may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct Quotas {
    /// Most contracts.
    #[serde(default = "default_quota")]
    pub contracts: u32,
    /// Most services.
    #[serde(default = "default_quota")]
    pub services: u32,
}

/// An interaction pattern.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct TemplateSpec {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The roles of the pattern.
    #[schemars(with = "Vec<String>")]
    pub roles: Vec<Name>,
    /// Which role may open flows to which.
    pub flows: Vec<FlowRule>,
}

/// `from` may open flows to `to`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct FlowRule {
    /// The role that opens flows.
    #[schemars(with = "String")]
    pub from: Name,
    /// The role that accepts them; its endpoints are what the contract's DNS name answers.
    #[schemars(with = "String")]
    pub to: Name,
}

/// A template put to use in a domain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct ContractSpec {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// The template: a built-in one (`client-server`, `peer`, `publish-subscribe`), one of the
    /// contract's domain, or a fabric-wide one.
    #[schemars(with = "String")]
    pub template: Name,
    /// The ports on which each accepting role may be reached.
    #[schemars(with = "BTreeMap<String, ContractRole>")]
    pub roles: BTreeMap<Name, ContractRole>,
    /// How strictly the contract is applied.
    #[serde(default)]
    pub mode: Mode,
    /// Constraints on the path that packets take.
    #[serde(default)]
    pub path: PathSpec,
    /// How long the contract lasts from when it is applied. The leader turns it into `expiresAt`;
    /// a stored contract never has it.
    #[serde(default, with = "crate::manifest::duration_opt")]
    #[schemars(with = "Option<String>")]
    pub ttl: Option<u64>,
    /// When the contract ends by itself, in milliseconds since the Unix epoch (RFC 3339 in manifests).
    #[serde(default, with = "crate::manifest::instant_opt")]
    #[schemars(with = "Option<String>")]
    pub expires_at: Option<UnixMs>,
}

/// What a contract says about one role.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(deny_unknown_fields)]
pub struct ContractRole {
    /// Where the role may be reached: `tcp/5432`, `tcp/8000-8100`, `udp/53`, `icmp`, `any`.
    #[schemars(with = "Vec<String>")]
    pub ports: Vec<PortRange>,
}

/// How strictly a contract is applied. No mode overrides a guardrail or widens another contract.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Allows exactly what the contract says.
    #[default]
    Enforce,
    /// Decides as `enforce` would, lets the flow pass between its member services, and records what
    /// would have been refused.
    Audit,
    /// Lets flows between its member services pass and records them.
    Learn,
}

/// Constraints on the path that packets of a contract take.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(deny_unknown_fields)]
pub struct PathSpec {
    /// Clouds or zones that packets must pass, in this order.
    #[schemars(with = "Vec<String>")]
    pub via: Vec<ZoneName>,
    /// Clouds or zones that packets must never enter.
    #[schemars(with = "Vec<String>")]
    pub avoid: Vec<ZoneName>,
    /// Most links between source and destination node, 1 to 32.
    pub max_hops: Option<u8>,
}

/// What plays the roles of contracts.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(deny_unknown_fields)]
pub struct ServiceSpec {
    /// For people.
    pub description: String,
    /// The roles it plays, each `role:contract` or `role:contract@domain`.
    #[schemars(with = "Vec<String>")]
    pub roles: Vec<RoleBinding>,
}

/// A role that a service plays in a contract. After validation the contract always has its domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleBinding {
    /// The contract.
    pub contract: ContractRef,
    /// The role in it.
    pub role: Name,
}

/// An organisation-wide rule, evaluated before any contract; a deny wins over an allow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(deny_unknown_fields)]
pub struct GuardrailSpec {
    /// For people.
    #[serde(default)]
    pub description: String,
    /// Whether matching flows are refused or allowed.
    pub action: Action,
    /// Who opens the flow.
    #[schemars(with = "String")]
    pub from: Selector,
    /// Who accepts it.
    #[schemars(with = "String")]
    pub to: Selector,
    /// The ports it speaks of; every port, when empty.
    #[serde(default)]
    #[schemars(with = "Vec<String>")]
    pub ports: Vec<PortRange>,
}

/// What a guardrail does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Refuse.
    Deny,
    /// Allow, without any contract.
    Allow,
}

/// `*`, `*@domain` or `service@domain`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// Every service.
    All,
    /// Every service of a domain.
    Domain(Name),
    /// One service.
    Service(ServiceRef),
}

/// Named addresses outside the fabric: the only place where an address may appear.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(deny_unknown_fields)]
pub struct ExternalSpec {
    /// For people.
    pub description: String,
    /// Addresses, CIDRs or host names.
    pub addresses: Vec<String>,
    /// The contract roles it plays, as for a service.
    #[schemars(with = "Vec<String>")]
    pub roles: Vec<RoleBinding>,
}

/// Transport protocols that a contract can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// Every protocol.
    Any,
}

/// A protocol and an inclusive range of ports: `tcp/80`, `tcp/8000-8100`, `udp/53`, `icmp`, `any`.
/// `icmp` and `any` have the range 0–65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// First port.
    pub low: u16,
    /// Last port, not below the first.
    pub high: u16,
}

impl PortRange {
    /// Whether every port of `other` lies in this range.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let protocol = self.protocol == Protocol::Any || self.protocol == other.protocol;
        protocol && self.low <= other.low && other.high <= self.high
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Any => "any",
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            (0, u16::MAX) => write!(f, "{}", self.protocol),
            (low, high) if low == high => write!(f, "{}/{low}", self.protocol),
            (low, high) => write!(f, "{}/{low}-{high}", self.protocol),
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a port; write tcp/80, tcp/8000-8100, udp/53, icmp or any");
        let (protocol, ports) = match text.split_once('/') {
            Some((p, ports)) => (p, Some(ports)),
            None => (text, None),
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            "any" => Protocol::Any,
            _ => return Err(bad()),
        };
        let with_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp);
        let Some(ports) = ports else { return Ok(Self { protocol, low: 0, high: u16::MAX }) };
        if !with_ports {
            return Err(bad());
        }
        let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
        let parse = |p: &str| p.parse::<u16>().map_err(|_| bad());
        let (low, high) = (parse(low)?, parse(high)?);
        if low > high || low == 0 { Err(bad()) } else { Ok(Self { protocol, low, high }) }
    }
}

impl fmt::Display for RoleBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.role, self.contract)
    }
}

impl RoleBinding {
    /// Parses `role:contract[@domain]`; a contract without a domain is one of `home`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse_in(text: &str, home: Option<&Name>) -> Result<Self, String> {
        let (role, contract) =
            text.split_once(':').ok_or_else(|| format!("{text:?} must have the form role:contract"))?;
        let role = Name::new(role).map_err(|e| e.to_string())?;
        let contract = ObjectRef::parse_in(contract, home).map_err(|e| e.to_string())?;
        Ok(Self { contract, role })
    }
}

impl FromStr for RoleBinding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse_in(text, None)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Domain(domain) => write!(f, "*@{domain}"),
            Self::Service(service) => write!(f, "{service}"),
        }
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('*') {
            Some("") => Ok(Self::All),
            Some(rest) => match rest.strip_prefix('@') {
                Some(domain) => Name::new(domain).map(Self::Domain).map_err(|e| e.to_string()),
                None => Err(format!("{text:?} must be *, *@domain or service@domain")),
            },
            None => text.parse().map(Self::Service).map_err(|e: crate::id::IdError| e.to_string()),
        }
    }
}

impl Selector {
    /// Whether it selects `service`.
    #[must_use]
    pub fn selects(&self, service: &ServiceRef) -> bool {
        match self {
            Self::All => true,
            Self::Domain(domain) => *domain == service.domain,
            Self::Service(one) => one == service,
        }
    }
}

/// Serde by way of the text form.
macro_rules! text_serde {
    ($($t:ty),*) => {$(
        impl TryFrom<String> for $t {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$t> for String {
            fn from(value: $t) -> Self {
                value.to_string()
            }
        }
    )*};
}
text_serde!(PortRange, RoleBinding, Selector);

pub(crate) const fn default_cost() -> u16 {
    10
}

const fn yes() -> bool {
    true
}

pub(crate) const fn default_quota() -> u32 {
    10_000
}
