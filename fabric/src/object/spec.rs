//! The `spec` of each kind of object.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{PortRange, RoleBinding, Selector};
use crate::{
    UnixMs,
    id::{ContractRef, Name, NodeName, ZoneName},
};

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
    /// By which stages a change that allows more comes into force: first on one node, then in its zone, then
    /// everywhere. Absent: everywhere at once. What a change withdraws never waits.
    #[serde(default)]
    pub rollout: Option<RolloutSpec>,
}

impl ContractSpec {
    /// How long each stage of a rollout of this contract lasts, milliseconds.
    #[must_use]
    pub fn soak_ms(&self) -> u64 {
        self.rollout.as_ref().and_then(|rollout| rollout.soak).unwrap_or(crate::rollout::DEFAULT_SOAK_MS)
    }
}

/// How what a contract newly allows comes into force by stages.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(deny_unknown_fields)]
pub struct RolloutSpec {
    /// How long each stage lasts, 1 s to 7 days; 10 minutes, when absent. Written as a duration (`5m`) in
    /// manifests.
    #[serde(with = "crate::manifest::duration_opt")]
    #[schemars(with = "Option<String>")]
    pub soak: Option<u64>,
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

pub(crate) const fn default_cost() -> u16 {
    10
}

const fn yes() -> bool {
    true
}

pub(crate) const fn default_quota() -> u32 {
    10_000
}
