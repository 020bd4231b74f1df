//! Policy, records and verdicts joined to one [`View`].
//!
//! An endpoint is in the view only while it proves its service: the proof is checked against the policy
//! when the record came, when what it rests on changes (the node's admission, the token), and when
//! something of it expires. Checks are signatures, so their results are kept.

use std::collections::BTreeMap;

use selvedge_fabric::{
    UnixMs,
    command::ServiceToken,
    id::{EndpointId, NodeName},
    key::{NodeId, TokenId},
    policy::{Admission, PolicyState},
    record::{Body, EndpointFact, Enforced, LinkFact, Load, Presence, Topic},
    view::{EndpointError, Liveness, NodeView, View, verify_endpoint},
};

use super::{
    Now,
    holders::Holders,
    judge::Judgement,
    store::{Key, Rank, RecordStore},
};

/// Changes that only tell how old or how far something is are published at most this often.
pub const MINOR_INTERVAL_MS: u64 = 2_000;

/// What a view is made of.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// Intent.
    pub policy: &'a PolicyState,
    /// Facts.
    pub store: &'a RecordStore,
    /// Verdicts.
    pub judgement: &'a Judgement,
    /// Who has two holders.
    pub holders: &'a Holders,
    /// Measured round trips, microseconds.
    pub rtt_us: &'a BTreeMap<NodeId, u32>,
}

/// An endpoint that is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disbelieved {
    /// Who announces it.
    pub node: NodeName,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Why.
    pub why: EndpointError,
}

#[derive(Debug)]
struct Verified {
    rank: Rank,
    admission: Admission,
    tokens: Vec<(TokenId, Option<ServiceToken>)>,
    until_ms: UnixMs,
    endpoints: BTreeMap<EndpointId, EndpointFact>,
}

impl Verified {
    fn holds(&self, rank: &Rank, policy: &PolicyState, admission: &Admission, now_ms: UnixMs) -> bool {
        let same =
            |(id, token): &(TokenId, Option<ServiceToken>)| policy.service_tokens.get(id) == token.as_ref();
        self.rank == *rank
            && now_ms < self.until_ms
            && self.admission == *admission
            && self.tokens.iter().all(same)
    }
}

/// Builds views and tells which of them are worth publishing.
#[derive(Debug, Default)]
pub struct ViewBuilder {
    me: Option<NodeName>,
    verified: BTreeMap<NodeId, Verified>,
    disbelieved: Vec<Disbelieved>,
    published: Option<(View, u64)>,
}

impl ViewBuilder {
    /// A builder for the node `me`.
    #[must_use]
    pub fn new(me: NodeName) -> Self {
        Self { me: Some(me), ..Self::default() }
    }

    /// The view, when it says something that the one before did not.
    pub fn build(&mut self, inputs: &Inputs<'_>, now: Now) -> Option<View> {
        let mut view = self.assemble(inputs, now);
        if let Some((before, at_ms)) = &self.published {
            let soon = now.mono_ms.saturating_sub(*at_ms) < MINOR_INTERVAL_MS;
            view.generation = before.generation;
            if view == *before || (soon && essence(&view) == essence(before)) {
                return None;
            }
        }
        view.generation += 1;
        self.published = Some((view.clone(), now.mono_ms));
        Some(view)
    }

    /// Endpoints that were found not to be believed since the last call.
    pub fn take_disbelieved(&mut self) -> Vec<Disbelieved> {
        std::mem::take(&mut self.disbelieved)
    }

    fn assemble(&mut self, inputs: &Inputs<'_>, now: Now) -> View {
        let admitted = inputs.store.members();
        self.verified.retain(|id, _| admitted.contains_key(id));
        let nodes = inputs
            .policy
            .nodes
            .iter()
            .map(|(name, admission)| (name.clone(), self.node(inputs, name, admission, now)))
            .collect();
        let to_unix = |mono_ms: u64| now.unix_ms.saturating_sub(now.mono_ms.saturating_sub(mono_ms));
        let clouds = inputs.judgement.clouds_down.iter();
        View {
            generation: 0,
            me: self.me.clone(),
            isolated: inputs.judgement.isolated,
            clouds_down: clouds.map(|(cloud, since)| (cloud.clone(), to_unix(*since))).collect(),
            nodes,
        }
    }

    fn node(&mut self, inputs: &Inputs<'_>, name: &NodeName, admission: &Admission, now: Now) -> NodeView {
        let id = admission.key.node_id();
        let quarantined = inputs.holders.quarantined(id, now.mono_ms);
        let state = match inputs.judgement.states.get(&id) {
            _ if self.me.as_ref() == Some(name) => Liveness::Alive,
            Some(state) => *state,
            None => Liveness::Unknown,
        };
        let facts = Facts::of(inputs.store, id);
        let endpoints =
            if quarantined { BTreeMap::new() } else { self.endpoints(inputs, name, admission, now) };
        NodeView {
            key: admission.key,
            state,
            incarnation: inputs.store.incarnation(id),
            addresses: facts.presence.map_or_else(Vec::new, |p| p.addresses.clone()),
            gossip: facts.presence.map_or_else(Vec::new, |p| p.gossip.clone()),
            api: facts.presence.map_or_else(Vec::new, |p| p.api.clone()),
            rtt_us: inputs.rtt_us.get(&id).copied(),
            enforced: facts.enforced,
            load: facts.load,
            links: facts.links.to_vec(),
            heard_ms: facts.heard_ms,
            quarantined,
            endpoints,
        }
    }

    fn endpoints(
        &mut self,
        inputs: &Inputs<'_>,
        name: &NodeName,
        admission: &Admission,
        now: Now,
    ) -> BTreeMap<EndpointId, EndpointFact> {
        let id = admission.key.node_id();
        let Some(entry) = inputs.store.get(&Key { node: id, topic: Topic::Endpoints }) else {
            return BTreeMap::new();
        };
        let Body::Endpoints(claimed) = &*entry.body else { return BTreeMap::new() };
        let known = self.verified.get(&id);
        if let Some(known) = known.filter(|v| v.holds(&entry.rank, inputs.policy, admission, now.unix_ms)) {
            return known.endpoints.clone();
        }
        let verified = self.verify(inputs.policy, name, admission, claimed, entry.rank, now.unix_ms);
        let endpoints = verified.endpoints.clone();
        self.verified.insert(id, verified);
        endpoints
    }

    fn verify(
        &mut self,
        policy: &PolicyState,
        name: &NodeName,
        admission: &Admission,
        claimed: &[EndpointFact],
        rank: Rank,
        now_ms: UnixMs,
    ) -> Verified {
        let mut verified = Verified {
            rank,
            admission: admission.clone(),
            tokens: Vec::new(),
            until_ms: UnixMs::MAX,
            endpoints: BTreeMap::new(),
        };
        for endpoint in claimed {
            let token = policy.service_tokens.get(&endpoint.proof.token);
            verified.tokens.push((endpoint.proof.token, token.cloned()));
            match verify_endpoint(policy, name, endpoint, now_ms) {
                Ok(()) => {
                    let token_ends = token.map_or(UnixMs::MAX, |token| token.not_after_ms);
                    let ends = endpoint.proof.not_after_ms.min(token_ends);
                    verified.until_ms = verified.until_ms.min(ends);
                    verified.endpoints.insert(endpoint.id.clone(), endpoint.clone());
                }
                Err(why) => {
                    let endpoint = endpoint.id.clone();
                    self.disbelieved.push(Disbelieved { node: name.clone(), endpoint, why });
                }
            }
        }
        verified.tokens.sort_by_key(|(id, _)| *id);
        verified.tokens.dedup_by_key(|(id, _)| *id);
        verified
    }
}

/// What a node says of itself, other than its endpoints.
#[derive(Default)]
struct Facts<'a> {
    presence: Option<&'a Presence>,
    enforced: Option<Enforced>,
    load: Option<Load>,
    links: &'a [LinkFact],
    heard_ms: Option<UnixMs>,
}

impl<'a> Facts<'a> {
    fn of(store: &'a RecordStore, node: NodeId) -> Self {
        let mut facts = Self::default();
        for (_, entry) in store.of_node(node) {
            facts.heard_ms = facts.heard_ms.max(Some(entry.heard_ms));
            match &*entry.body {
                Body::Presence(presence) => facts.presence = Some(presence),
                Body::Enforced(enforced) => facts.enforced = Some(*enforced),
                Body::Load(load) => facts.load = Some(*load),
                Body::Links(links) => facts.links = links,
                Body::Endpoints(_) | Body::Observations(_) => {}
            }
        }
        facts
    }
}

/// The view without what only tells how old or how far something is.
fn essence(view: &View) -> View {
    let mut view = view.clone();
    for node in view.nodes.values_mut() {
        node.heard_ms = None;
        node.rtt_us = None;
        node.load = None;
        for link in &mut node.links {
            (link.rtt_us, link.loss_permille) = (0, 0);
        }
    }
    view
}
