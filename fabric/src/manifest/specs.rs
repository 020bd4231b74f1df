//! The `spec` of each kind.

use super::{
    parse_duration, parse_instant,
    reader::{Fields, Reader},
    tree::Node,
};
use crate::{
    id::{Name, ObjectRef},
    object::{
        Action, ContractRole, ContractSpec, DomainSpec, ExternalSpec, FlowRule, GuardrailSpec, Kind,
        LinkSpec, Mode, PathSpec, Quotas, RoleBinding, RolloutSpec, ServiceSpec, Spec, TemplateSpec,
        ZoneSpec, default_cost, default_quota,
    },
};

/// Reads a spec. `None` when it is wrong; the problems are noted.
pub(super) fn read(r: &mut Reader, kind: Kind, node: &Node) -> Option<Spec> {
    let mut fields = Fields::new(r, node, "spec")?;
    let f = &mut fields;
    let spec = match kind {
        Kind::Zone => zone(r, f).map(Spec::Zone),
        Kind::Link => link(r, f).map(Spec::Link),
        Kind::Domain => domain(r, f).map(Spec::Domain),
        Kind::Template => template(r, f).map(Spec::Template),
        Kind::Contract => contract(r, f).map(Spec::Contract),
        Kind::Service => service(r, f).map(Spec::Service),
        Kind::Guardrail => guardrail(r, f).map(Spec::Guardrail),
        Kind::External => external(r, f).map(Spec::External),
    };
    fields.finish(r);
    spec
}

fn zone(r: &mut Reader, f: &mut Fields<'_>) -> Option<ZoneSpec> {
    let description = description(r, f);
    let refuse_transit =
        f.optional(r, "refuseTransit", |r, n, p| r.list(n, p, reference)).unwrap_or_default();
    Some(ZoneSpec { description, refuse_transit })
}

fn link(r: &mut Reader, f: &mut Fields<'_>) -> Option<LinkSpec> {
    let nodes = f.required(r, "nodes", |r, n, p| {
        let nodes = r.list(n, p, |r, n, p| r.parse_text::<Name>(n, p))?;
        let count = nodes.len();
        let pair = <[Name; 2]>::try_from(nodes);
        if pair.is_err() {
            r.problem(n.at, p, format!("a link has two ends, found {count}"), None);
        }
        pair.ok()
    });
    let cost = f.optional(r, "cost", |r, n, p| r.number(n, p, 1..=u32::from(u16::MAX)));
    let enabled = f.optional(r, "enabled", Reader::boolean).unwrap_or(true);
    Some(LinkSpec { nodes: nodes?, cost: cost.unwrap_or_else(default_cost), enabled })
}

fn domain(r: &mut Reader, f: &mut Fields<'_>) -> Option<DomainSpec> {
    let description = description(r, f);
    let admins = f.optional(r, "admins", |r, n, p| r.list(n, p, Reader::text)).unwrap_or_default();
    let quotas = f.optional(r, "quotas", |r, n, p| {
        let mut f = Fields::new(r, n, p)?;
        let mut quota = |field| f.optional(r, field, |r, n, p| r.number(n, p, 0..=u32::MAX));
        let (contracts, services) = (quota("contracts"), quota("services"));
        f.finish(r);
        let or_default = |quota: Option<u32>| quota.unwrap_or_else(default_quota);
        Some(Quotas { contracts: or_default(contracts), services: or_default(services) })
    });
    let max_policy_age = f.optional(r, "maxPolicyAge", |r, n, p| r.parsed(n, p, parse_duration));
    Some(DomainSpec { description, admins, quotas, max_policy_age })
}

fn template(r: &mut Reader, f: &mut Fields<'_>) -> Option<TemplateSpec> {
    let description = description(r, f);
    let roles = f.required(r, "roles", |r, n, p| r.list(n, p, |r, n, p| r.parse_text::<Name>(n, p)));
    let flows = f.required(r, "flows", |r, n, p| {
        r.list(n, p, |r, n, p| {
            let mut f = Fields::new(r, n, p)?;
            let from = f.required(r, "from", |r, n, p| r.parse_text::<Name>(n, p));
            let to = f.required(r, "to", |r, n, p| r.parse_text::<Name>(n, p));
            f.finish(r);
            Some(FlowRule { from: from?, to: to? })
        })
    });
    Some(TemplateSpec { description, roles: roles?, flows: flows? })
}

fn contract(r: &mut Reader, f: &mut Fields<'_>) -> Option<ContractSpec> {
    const MODES: [(&str, Mode); 3] =
        [("enforce", Mode::Enforce), ("audit", Mode::Audit), ("learn", Mode::Learn)];
    let description = description(r, f);
    let template = f.required(r, "template", |r, n, p| r.parse_text::<Name>(n, p));
    let roles = f.required(r, "roles", |r, n, p| {
        r.map(n, p, |r, n, p| {
            let mut f = Fields::new(r, n, p)?;
            let ports = f.optional(r, "ports", |r, n, p| r.list(n, p, Reader::parse_text));
            f.finish(r);
            Some(ContractRole { ports: ports.unwrap_or_default() })
        })
    });
    let mode = f.optional(r, "mode", |r, n, p| r.word(n, p, &MODES)).unwrap_or_default();
    let path = f.optional(r, "path", path).unwrap_or_default();
    let ttl = f.optional(r, "ttl", |r, n, p| r.parsed(n, p, parse_duration));
    let expires_at = f.optional(r, "expiresAt", |r, n, p| r.parsed(n, p, parse_instant));
    let rollout = f.optional(r, "rollout", rollout);
    let (template, roles) = (template?, roles?.into_iter().collect());
    Some(ContractSpec { description, template, roles, mode, path, ttl, expires_at, rollout })
}

fn rollout(r: &mut Reader, node: &Node, path: &str) -> Option<RolloutSpec> {
    let mut f = Fields::new(r, node, path)?;
    let soak = f.optional(r, "soak", |r, n, p| r.parsed(n, p, parse_duration));
    f.finish(r);
    Some(RolloutSpec { soak })
}

fn path(r: &mut Reader, node: &Node, path: &str) -> Option<PathSpec> {
    let mut f = Fields::new(r, node, path)?;
    let mut zones =
        |field| f.optional(r, field, |r, n, p| r.list(n, p, Reader::parse_text)).unwrap_or_default();
    let (via, avoid) = (zones("via"), zones("avoid"));
    let max_hops = f.optional(r, "maxHops", |r, n, p| r.number(n, p, 1..=32));
    f.finish(r);
    Some(PathSpec { via, avoid, max_hops })
}

fn service(r: &mut Reader, f: &mut Fields<'_>) -> Option<ServiceSpec> {
    let description = description(r, f);
    let roles = f.optional(r, "roles", |r, n, p| r.list(n, p, binding)).unwrap_or_default();
    Some(ServiceSpec { description, roles })
}

fn guardrail(r: &mut Reader, f: &mut Fields<'_>) -> Option<GuardrailSpec> {
    const ACTIONS: [(&str, Action); 2] = [("deny", Action::Deny), ("allow", Action::Allow)];
    let description = description(r, f);
    let action = f.required(r, "action", |r, n, p| r.word(n, p, &ACTIONS));
    let from = f.required(r, "from", Reader::parse_text);
    let to = f.required(r, "to", Reader::parse_text);
    let ports = f.optional(r, "ports", |r, n, p| r.list(n, p, Reader::parse_text)).unwrap_or_default();
    Some(GuardrailSpec { description, action: action?, from: from?, to: to?, ports })
}

fn external(r: &mut Reader, f: &mut Fields<'_>) -> Option<ExternalSpec> {
    let description = description(r, f);
    let addresses = f.required(r, "addresses", |r, n, p| r.list(n, p, Reader::text));
    let roles = f.optional(r, "roles", |r, n, p| r.list(n, p, binding)).unwrap_or_default();
    Some(ExternalSpec { description, addresses: addresses?, roles })
}

fn description(r: &mut Reader, f: &mut Fields<'_>) -> String {
    f.optional(r, "description", Reader::text).unwrap_or_default()
}

fn reference(r: &mut Reader, node: &Node, path: &str) -> Option<ObjectRef> {
    let home = r.home.clone();
    r.parsed(node, path, |text| ObjectRef::parse_in(text, home.as_ref()))
}

fn binding(r: &mut Reader, node: &Node, path: &str) -> Option<RoleBinding> {
    let home = r.home.clone();
    r.parsed(node, path, |text| RoleBinding::parse_in(text, home.as_ref()))
}
