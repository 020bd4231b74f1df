//! Endpoints that may be served, in the order in which they may claim names and addresses.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    net::IpAddr,
};

use selvedge_abi::Identity;

use super::{Local, alarm};
use crate::{
    UnixMs,
    command::AdmissionState,
    id::{EndpointId, NodeName},
    plan::{Addresses, Alarm},
    policy::{Admission, PolicyState},
    record::{EndpointFact, Health},
    view::{self, Liveness, NodeView, View},
};

/// Conflicts that are told one by one; a node that takes many names is one matter, not many.
const MAX_CONFLICT_ALARMS: usize = 16;

/// An endpoint that may be served.
pub(super) struct Candidate<'a> {
    pub(super) node: &'a NodeName,
    pub(super) admission: &'a Admission,
    pub(super) view: &'a NodeView,
    pub(super) fact: &'a EndpointFact,
    pub(super) identity: Identity,
    /// Its health, `Unknown` at best when its node was not heard of since our start.
    pub(super) health: Health,
    /// The addresses under which it is reached from this node.
    pub(super) addresses: Addresses,
}

impl Candidate<'_> {
    /// Every address it was announced with.
    pub(super) fn fact_addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        self.fact.ipv4.map(IpAddr::V4).into_iter().chain(self.fact.ipv6.map(IpAddr::V6))
    }
}

/// The endpoints that may be served.
pub(super) struct Candidates<'a> {
    pub(super) all: Vec<Candidate<'a>>,
    pub(super) conflicts: Vec<Alarm>,
    /// When the first proof or token among them ends.
    pub(super) next_end_ms: Option<UnixMs>,
}

pub(super) fn find<'a>(
    policy: &'a PolicyState,
    view: &'a View,
    local: &Local,
    now_ms: UnixMs,
) -> Candidates<'a> {
    let mut claims = Claims::default();
    let mut all = Vec::new();
    let mut next_end_ms: Option<UnixMs> = None;
    for (node, admission, node_view) in serving_nodes(policy, view, local) {
        let mine = Some(node) == local.me.as_ref();
        for fact in node_view.endpoints.values() {
            let Some(identity) = policy.identities.get(&fact.service) else { continue };
            if !view::still_stands(policy, node, fact, now_ms) || !claims.take(node, fact) {
                continue;
            }
            let ends = [Some(fact.proof.not_after_ms), token_end(policy, fact), next_end_ms];
            next_end_ms = ends.into_iter().flatten().min();
            all.push(Candidate {
                node,
                admission,
                view: node_view,
                fact,
                identity: Identity(*identity),
                health: if mine { fact.health } else { health(fact, node_view) },
                addresses: Addresses { ipv4: fact.ipv4, ipv6: fact.ipv6.filter(|_| local.tun) },
            });
        }
    }
    Candidates { all, conflicts: claims.alarms(), next_end_ms }
}

/// Nodes whose endpoints are served, those that were admitted first before others.
fn serving_nodes<'a>(
    policy: &'a PolicyState,
    view: &'a View,
    local: &Local,
) -> Vec<(&'a NodeName, &'a Admission, &'a NodeView)> {
    let mut nodes: Vec<_> = policy
        .nodes
        .iter()
        .filter_map(|(name, admission)| Some((name, admission, view.nodes.get(name)?)))
        .filter(|(name, admission, node)| serves(view, local, name, admission, node))
        .collect();
    nodes.sort_by_key(|(name, admission, _)| (admission.admitted_ms, *name));
    nodes
}

fn serves(view: &View, local: &Local, name: &NodeName, admission: &Admission, node: &NodeView) -> bool {
    if admission.state == AdmissionState::Revoked || node.quarantined || node.key != admission.key {
        return false;
    }
    if Some(name) == local.me.as_ref() {
        return true;
    }
    match node.state {
        Liveness::Left => false,
        Liveness::Down => view.isolated,
        Liveness::Alive | Liveness::Suspect | Liveness::Unknown => {
            view.isolated || !view.clouds_down.contains_key(admission.zone.cloud())
        }
    }
}

fn health(fact: &EndpointFact, node: &NodeView) -> Health {
    match node.state {
        Liveness::Alive | Liveness::Suspect => fact.health,
        Liveness::Unknown | Liveness::Down | Liveness::Left => fact.health.max(Health::Unknown),
    }
}

fn token_end(policy: &PolicyState, fact: &EndpointFact) -> Option<UnixMs> {
    policy.service_tokens.get(&fact.proof.token).map(|token| token.not_after_ms)
}

/// Who has which name and address.
#[derive(Default)]
struct Claims<'a> {
    names: BTreeMap<&'a EndpointId, &'a NodeName>,
    addresses: BTreeMap<IpAddr, &'a EndpointId>,
    conflicts: BTreeSet<String>,
}

impl<'a> Claims<'a> {
    /// Takes name and addresses for an endpoint, or none of them when one is taken.
    fn take(&mut self, node: &'a NodeName, fact: &'a EndpointFact) -> bool {
        let addresses = [fact.ipv4.map(IpAddr::V4), fact.ipv6.map(IpAddr::V6)];
        for address in addresses.into_iter().flatten() {
            if let Some(holder) = self.addresses.get(&address) {
                self.conflicts.insert(format!(
                    "endpoint {} of node {node} has the address {address} of endpoint {holder} and is not \
                     served: deregister one of them",
                    fact.id
                ));
                return false;
            }
        }
        match self.names.entry(&fact.id) {
            Entry::Occupied(holder) => {
                self.conflicts.insert(format!(
                    "endpoint {} is announced by node {node} too, but node {} has that name, so the former \
                     is not served: register it under another name",
                    fact.id,
                    holder.get()
                ));
                return false;
            }
            Entry::Vacant(free) => free.insert(node),
        };
        self.addresses.extend(addresses.into_iter().flatten().map(|address| (address, &fact.id)));
        true
    }

    fn alarms(self) -> Vec<Alarm> {
        let more = self.conflicts.len().saturating_sub(MAX_CONFLICT_ALARMS);
        let told = self.conflicts.into_iter().take(MAX_CONFLICT_ALARMS);
        let mut alarms: Vec<_> = told.map(|message| alarm("endpoint-conflict", message)).collect();
        if more > 0 {
            alarms.push(alarm("endpoint-conflict", format!("and {more} further endpoints in conflict")));
        }
        alarms
    }
}
