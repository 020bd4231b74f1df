//! The half of a plan that the overlay applies: nodes, links, whose an address is, and the constraints on
//! the paths of contracts.
//!
//! Only facts that stand are in it: an endpoint that is not served has no owner here, so that packets in
//! its name are refused on every hop.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use super::Local;
use crate::{
    address,
    command::AdmissionState,
    compile::{VerdictTables, graph},
    id::{ContractRef, NodeName, ZoneName},
    key::NodeId,
    object::{Kind, PathSpec, Spec},
    plan::{Addresses, Bound, DeclaredLink, LinkQuality, Owner, RouteNode, Routing},
    policy::{Admission, PolicyState},
    view::{Liveness, View},
};

pub(super) fn routing(
    policy: &PolicyState,
    view: &View,
    local: &Local,
    identities: &BTreeMap<IpAddr, Bound>,
    verdicts: &Arc<VerdictTables>,
) -> Routing {
    let nodes: BTreeMap<NodeId, RouteNode> = policy
        .nodes
        .iter()
        .filter(|(_, admission)| admission.state != AdmissionState::Revoked)
        .map(|(name, admission)| (admission.key.node_id(), node(policy, view, name, admission)))
        .collect();
    Routing {
        revision: policy.revision,
        me: local.me.as_ref().and_then(|me| id_of(policy, me)).filter(|me| nodes.contains_key(me)),
        owners: owners(policy, &nodes, identities),
        measured: measured(view),
        declared: declared(policy),
        paths: paths(policy),
        refusals: refusals(policy),
        verdicts: Arc::clone(verdicts),
        nodes,
    }
}

fn node(policy: &PolicyState, view: &View, name: &NodeName, admission: &Admission) -> RouteNode {
    let seen = view.nodes.get(name).filter(|seen| seen.key == admission.key);
    // Isolation is our own loss and says nothing about others.
    let gone = |state| matches!(state, Liveness::Left) || (state == Liveness::Down && !view.isolated);
    let addresses = policy.params.as_ref().map_or_else(Addresses::default, |params| Addresses {
        ipv4: address::block_of(params, admission).map(|block| block.node_address()),
        ipv6: Some(address::node_ipv6(params, &admission.zone, &admission.key)),
    });
    RouteNode {
        name: name.clone(),
        role: admission.role,
        zone: admission.zone.clone(),
        sealing_key: admission.sealing_key,
        up: seen.is_none_or(|seen| !seen.quarantined && !gone(seen.state)),
        revision: seen.and_then(|seen| seen.enforced).map(|enforced| enforced.revision),
        addresses,
    }
}

/// Nodes' own addresses come last: no endpoint can take one.
fn owners(
    policy: &PolicyState,
    nodes: &BTreeMap<NodeId, RouteNode>,
    identities: &BTreeMap<IpAddr, Bound>,
) -> BTreeMap<IpAddr, Owner> {
    let endpoints = identities.iter().filter_map(|(address, bound)| {
        let node = id_of(policy, &bound.node)?;
        Some((*address, Owner { node, identity: Some(bound.identity) }))
    });
    let own = nodes.iter().flat_map(|(id, node)| {
        let addresses = &node.addresses;
        let all = addresses.ipv4.map(IpAddr::V4).into_iter().chain(addresses.ipv6.map(IpAddr::V6));
        all.map(|address| (address, Owner { node: *id, identity: None }))
    });
    endpoints.chain(own).collect()
}

fn measured(view: &View) -> BTreeMap<(NodeId, NodeId), LinkQuality> {
    let usable = view.nodes.values().filter(|node| !node.quarantined);
    usable
        .flat_map(|node| {
            let from = node.key.node_id();
            node.links.iter().map(move |link| {
                let quality = LinkQuality { rtt_us: link.rtt_us, loss_permille: link.loss_permille };
                ((from, link.peer), quality)
            })
        })
        .collect()
}

/// Links whose ends are both admitted. One whose ends are gone still counts as declared: that a node
/// was removed must not make links automatic.
fn declared(policy: &PolicyState) -> Option<BTreeMap<(NodeId, NodeId), DeclaredLink>> {
    let links = policy.objects.values().filter_map(|spec| match spec {
        Spec::Link(link) => Some(link),
        _ => None,
    });
    let mut declared = None;
    for link in links {
        let known: &mut BTreeMap<_, _> = declared.get_or_insert_default();
        if let (Some(a), Some(b)) = (id_of(policy, &link.nodes[0]), id_of(policy, &link.nodes[1])) {
            known.insert((a.min(b), a.max(b)), DeclaredLink { cost: link.cost, enabled: link.enabled });
        }
    }
    declared
}

fn paths(policy: &PolicyState) -> BTreeMap<ContractRef, PathSpec> {
    let constrained = graph::contracts(policy).filter(|(_, c)| c.path != PathSpec::default());
    constrained.map(|(name, contract)| (name, contract.path.clone())).collect()
}

fn refusals(policy: &PolicyState) -> BTreeMap<ContractRef, Vec<ZoneName>> {
    let mut refusals: BTreeMap<ContractRef, Vec<ZoneName>> = BTreeMap::new();
    for (key, spec) in policy.objects.iter().filter(|(key, _)| key.kind == Kind::Zone) {
        let (Spec::Zone(spec), Ok(zone)) = (spec, key.name.parse::<ZoneName>()) else { continue };
        for contract in &spec.refuse_transit {
            refusals.entry(contract.clone()).or_default().push(zone.clone());
        }
    }
    refusals
}

fn id_of(policy: &PolicyState, name: &NodeName) -> Option<NodeId> {
    policy.nodes.get(name).map(|admission| admission.key.node_id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        command::TokenScope,
        object::{ContractSpec, LinkSpec, ZoneSpec},
        plan::Plan,
        planner::plan,
        record::LinkFact,
        testing::*,
    };

    const DB: &str = "voting-db@voting-app";

    fn policy() -> PolicyState {
        let nodes = voting_app().node("p1", "aws/a").node("p2", "gcp").node("p3", "azr");
        nodes.token(DB, TokenScope::default())
    }

    fn planned(policy: &PolicyState, view: &View) -> Plan {
        let local = Local { me: Some(name("p1")), tun: true, ..Local::default() };
        plan(policy, view, &local, NOW_MS)
    }

    fn id(node: &str) -> NodeId {
        use crate::key::Signer as _;
        key_of(node).public_key().node_id()
    }

    #[test]
    fn addresses_have_owners_and_links_are_those_that_are_measured() {
        let policy = policy();
        let mut view = view_of(&policy, "p1");
        let fact = endpoint(&policy, "p2", "db", DB, ("tcp/5432", 5432), 1);
        let [ipv4, ipv6] = [fact.ipv4.map(IpAddr::V4), fact.ipv6.map(IpAddr::V6)];
        announce(&mut view, &name("p2"), fact);
        let link = LinkFact { peer: id("p3"), rtt_us: 7, loss_permille: 1 };
        view.nodes.get_mut(&name("p2")).expect("a node").links = vec![link];
        let plan = planned(&policy, &view);
        let routing = &plan.routing;
        assert_eq!(routing.me, Some(id("p1")));
        let identity = plan.verdicts.identity(&object(DB));
        for address in [ipv4, ipv6] {
            let owner = routing.owners[&address.expect("both")];
            assert_eq!(owner, Owner { node: id("p2"), identity });
        }
        let own = &routing.nodes[&id("p3")].addresses;
        for address in [own.ipv4.map(IpAddr::V4), own.ipv6.map(IpAddr::V6)] {
            let owner = routing.owners[&address.expect("both")];
            assert_eq!(owner, Owner { node: id("p3"), identity: None });
        }
        let quality = LinkQuality { rtt_us: 7, loss_permille: 1 };
        assert_eq!(routing.measured, [((id("p2"), id("p3")), quality)].into());
        assert_eq!((&routing.declared, routing.paths.len()), (&None, 0));
    }

    #[test]
    fn intent_constrains_links_and_paths() {
        let link =
            |nodes: [&str; 2], enabled| Spec::Link(LinkSpec { nodes: nodes.map(name), cost: 5, enabled });
        let backend = object("voting-backend@voting-app");
        let zone = ZoneSpec { refuse_transit: vec![backend.clone()], ..ZoneSpec::default() };
        let mut policy = policy()
            .put(Kind::Link, "one", link(["p2", "p1"], false))
            .put(Kind::Link, "gone", link(["p1", "p9"], true))
            .put(Kind::Zone, "azr", Spec::Zone(zone));
        let avoid = PathSpec { avoid: vec!["gcp".parse().expect("a zone")], ..PathSpec::default() };
        for (key, spec) in &mut policy.objects {
            if let (Spec::Contract(ContractSpec { path, .. }), "voting-backend") = (spec, key.name.as_str()) {
                *path = avoid.clone();
            }
        }
        let routing = planned(&policy, &view_of(&policy, "p1")).routing;
        let ends = (id("p1").min(id("p2")), id("p1").max(id("p2")));
        assert_eq!(routing.declared, Some([(ends, DeclaredLink { cost: 5, enabled: false })].into()));
        assert_eq!(routing.paths, [(backend.clone(), avoid)].into());
        assert_eq!(routing.refusals, [(backend, vec!["azr".parse().expect("a zone")])].into());
    }

    #[test]
    fn revoked_nodes_are_gone_and_dead_ones_carry_nothing() {
        let mut policy = policy();
        policy.nodes.get_mut(&name("p2")).expect("a node").state = AdmissionState::Revoked;
        let mut view = view_of(&policy, "p1");
        view.nodes.get_mut(&name("p3")).expect("a node").state = Liveness::Down;
        let routing = planned(&policy, &view).routing;
        assert!(!routing.nodes.contains_key(&id("p2")) && !routing.nodes[&id("p3")].up);
        assert!(routing.owners.values().all(|owner| owner.node != id("p2")));
        view.isolated = true;
        assert!(planned(&policy, &view).routing.nodes[&id("p3")].up);
        policy.nodes.get_mut(&name("p1")).expect("a node").state = AdmissionState::Revoked;
        assert_eq!(planned(&policy, &view).routing.me, None);
    }
}
