//! `plan(policy, view, local, now) -> Plan`: everything a node does, as a pure function of what was
//! agreed, what is known, and the time.
//!
//! Two halves with different clocks:
//!
//! * **Prepared intent** ([`Prepared`]): verdict tables and who reaches what. Depends on policy and time
//!   only, costs the most, and changes rarely; a caller that plans after each change of facts keeps it
//!   while [`Prepared::is_current`].
//! * **Facts laid over it**: which endpoints serve which contract, in which order, behind which address.
//!
//! # What is served
//! An endpoint is served while nothing speaks against its node. Not having heard of a node since our own
//! start does not: a node that starts alone, with nothing reachable, must answer from its disk, and an
//! endpoint that was there is a better answer than none. Its staleness is told instead. For the same
//! reason an isolated node takes nobody for dead: what it sees is its own loss, not theirs.
//!
//! # What two claims to one name or address mean
//! Endpoint names are unique in the fabric, and addresses are proven to belong to their node. If two
//! nodes announce one name, the one that was admitted first keeps it, on every node alike, so that a
//! newcomer cannot take over names; the other one's endpoint is not served, and that is an alarm.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
};

use crate::{
    Revision, UnixMs, address,
    command::AdmissionState,
    compile::{VerdictTables, compile_on, graph},
    id::{ContractRef, Name, NodeName, ServiceRef},
    key::Hash,
    object::{Kind, Spec},
    plan::{Addresses, Alarm, Bound, Plan, Zone},
    policy::{FabricParams, PolicyState},
    view::View,
};

mod alarms;
mod candidates;
mod networks;
mod reach;
mod routing;
mod targets;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use candidates::Candidates;

pub use alarms::CONTRACT_EXPIRING_MS;

/// What this node alone knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Local {
    /// Its name.
    pub me: Option<NodeName>,
    /// Whether it has a TUN, without which no IPv6 overlay address can be reached from here.
    pub tun: bool,
    /// Addresses attached to it, of workloads whose queries it answers by identity. `None`: those of all
    /// its endpoints, where nothing is attached because nothing is enforced.
    pub attached: Option<BTreeSet<IpAddr>>,
    /// When this node last knew its policy to be the newest; domains with a `maxPolicyAge` are
    /// suspended when that is too long ago. `None`: never suspend.
    pub policy_confirmed_ms: Option<UnixMs>,
}

/// The half of a plan that intent and time alone decide.
#[derive(Debug, Clone)]
pub struct Prepared {
    revision: Revision,
    clock_ms: UnixMs,
    hash: Hash,
    verdicts: Arc<VerdictTables>,
    reach: BTreeMap<ServiceRef, BTreeSet<ContractRef>>,
    suspended: BTreeSet<Name>,
    from_ms: UnixMs,
    until_ms: Option<UnixMs>,
}

impl Prepared {
    /// Compiles the policy as it holds at `now_ms` on this node.
    #[must_use]
    pub fn new(policy: &PolicyState, local: &Local, now_ms: UnixMs) -> Self {
        let suspended = suspended(policy, local, now_ms);
        let verdicts = compile_on(policy, now_ms, &suspended, local.me.as_ref());
        let ends = graph::contracts(policy).filter_map(|(_, contract)| contract.expires_at);
        let stale =
            policy_ages(policy).filter_map(|(_, age)| Some(local.policy_confirmed_ms?.saturating_add(age)));
        Self {
            revision: policy.revision,
            clock_ms: policy.clock_ms,
            hash: policy.intent_hash(),
            reach: reach::reach(policy, &verdicts, now_ms),
            verdicts: Arc::new(verdicts),
            suspended,
            from_ms: now_ms,
            until_ms: ends.chain(stale).filter(|at| *at > now_ms).min(),
        }
    }

    /// Whether it still is what [`Prepared::new`] would make.
    #[must_use]
    pub fn is_current(&self, policy: &PolicyState, local: &Local, now_ms: UnixMs) -> bool {
        (self.revision, self.clock_ms) == (policy.revision, policy.clock_ms)
            && self.from_ms <= now_ms
            && self.until_ms.is_none_or(|until| now_ms < until)
            && self.suspended == suspended(policy, local, now_ms)
    }
}

/// What this node does.
#[must_use]
pub fn plan(policy: &PolicyState, view: &View, local: &Local, now_ms: UnixMs) -> Plan {
    plan_with(&Prepared::new(policy, local, now_ms), policy, view, local, now_ms)
}

/// [`plan`] with intent that was prepared before and is current.
#[must_use]
pub fn plan_with(
    prepared: &Prepared,
    policy: &PolicyState,
    view: &View,
    local: &Local,
    now_ms: UnixMs,
) -> Plan {
    let candidates = candidates::find(policy, view, local, now_ms);
    let (mut alarms, next_alarm_ms) = alarms::raise(policy, view, prepared, now_ms);
    alarms.extend(candidates.conflicts.iter().cloned());
    alarms.sort();
    let identities = identities(&candidates);
    let routing = Arc::new(routing::routing(policy, view, local, &identities, &prepared.verdicts));
    let deadlines = [prepared.until_ms, candidates.next_end_ms, next_alarm_ms];
    Plan {
        revision: policy.revision,
        hash: prepared.hash,
        generation: view.generation,
        at_ms: now_ms,
        verdicts: Arc::clone(&prepared.verdicts),
        identities,
        networks: networks::networks(policy),
        routing,
        zone: zone(prepared, policy, view, local, &candidates, now_ms),
        alarms,
        whole: true,
        next_deadline_ms: deadlines.into_iter().flatten().min(),
    }
}

/// Both addresses, whether or not this node can reach the IPv6 one: who is behind an address does not
/// depend on that.
fn identities(candidates: &Candidates<'_>) -> BTreeMap<IpAddr, Bound> {
    let mut identities = BTreeMap::new();
    for candidate in &candidates.all {
        let bound = Bound {
            service: candidate.fact.service.clone(),
            identity: candidate.identity,
            endpoint: candidate.fact.id.clone(),
            node: candidate.node.clone(),
        };
        for address in candidate.fact_addresses() {
            identities.insert(address, bound.clone());
        }
    }
    identities
}

fn zone(
    prepared: &Prepared,
    policy: &PolicyState,
    view: &View,
    local: &Local,
    candidates: &Candidates<'_>,
    now_ms: UnixMs,
) -> Zone {
    let Some(params) = &policy.params else { return Zone::default() };
    let endpoints = candidates.all.iter().map(|c| (c.fact.id.clone(), c.addresses.clone())).collect();
    Zone {
        suffix: params.suffix.clone(),
        serial: serial(policy.revision, view.generation),
        me: local.me.clone(),
        contracts: targets::contracts(policy, candidates, local, now_ms),
        endpoints,
        nodes: nodes(policy, params, local),
        ranges: ranges(params),
        reach: prepared.reach.clone(),
        askers: askers(candidates, local),
    }
}

/// SOA serials are compared modulo 2^32 (RFC 1982). Both numbers only grow, so the sum does.
const fn serial(revision: Revision, generation: u64) -> u32 {
    revision.wrapping_add(generation) as u32
}

/// Names of all admitted nodes, dead ones as well: the name is intent, and where a node would be does
/// not change with its health.
fn nodes(policy: &PolicyState, params: &FabricParams, local: &Local) -> BTreeMap<NodeName, Addresses> {
    let admitted = policy.nodes.iter().filter(|(_, a)| a.state != AdmissionState::Revoked);
    admitted
        .map(|(name, admission)| {
            let ipv4 = address::block_of(params, admission).map(|block| block.node_address());
            let ipv6 = local.tun.then(|| address::node_ipv6(params, &admission.zone, &admission.key));
            (name.clone(), Addresses { ipv4, ipv6 })
        })
        .collect()
}

fn ranges(params: &FabricParams) -> Vec<(IpAddr, u8)> {
    let mut octets = [0; 16];
    octets[..6].copy_from_slice(&params.ula_prefix);
    let ula = (IpAddr::V6(Ipv6Addr::from(octets)), 48);
    let pool = address::Ipv4Pool::of(params).ok().map(|pool| pool.range());
    std::iter::once(ula).chain(pool.map(|(network, len)| (IpAddr::V4(network), len))).collect()
}

fn askers(candidates: &Candidates<'_>, local: &Local) -> BTreeMap<IpAddr, ServiceRef> {
    let mut askers = BTreeMap::new();
    for candidate in candidates.all.iter().filter(|c| Some(c.node) == local.me.as_ref()) {
        for address in candidate.fact_addresses() {
            if local.attached.as_ref().is_none_or(|attached| attached.contains(&address)) {
                askers.insert(address, candidate.fact.service.clone());
            }
        }
    }
    askers
}

/// Domains that state how old a policy may be.
fn policy_ages(policy: &PolicyState) -> impl Iterator<Item = (Name, UnixMs)> + '_ {
    policy.objects.iter().filter(|(key, _)| key.kind == Kind::Domain).filter_map(|(key, spec)| match spec {
        Spec::Domain(domain) => Some((Name::new(&key.name).ok()?, domain.max_policy_age?)),
        _ => None,
    })
}

/// Domains whose contracts this node may no longer allow.
fn suspended(policy: &PolicyState, local: &Local, now_ms: UnixMs) -> BTreeSet<Name> {
    let Some(confirmed_ms) = local.policy_confirmed_ms else { return BTreeSet::new() };
    policy_ages(policy)
        .filter(|(_, age_ms)| now_ms >= confirmed_ms.saturating_add(*age_ms))
        .map(|(domain, _)| domain)
        .collect()
}

/// An alarm.
fn alarm(code: &'static str, message: String) -> Alarm {
    Alarm { code, message }
}
