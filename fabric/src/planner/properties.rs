//! What holds for every plan: random views over one policy.

use proptest::prelude::*;
use selvedge_abi::Class;

use super::*;
use crate::{command::TokenScope, plan::Target, record::Health, testing::*, view::Liveness};

const NODES: [(&str, &str); 5] =
    [("p1", "aws/a"), ("p2", "aws/b"), ("p3", "azr/a"), ("p4", "gcp/a"), ("p5", "gcp/a")];
const PLACES: [(&str, &str, &str); 4] = [
    ("db-1", "voting-db@voting-app", "tcp/5432"),
    ("db-2", "voting-db@voting-app", "tcp/6379"),
    ("db-3", "voting-db@voting-app", "tcp/5432"),
    ("svc-1", "voting-svc@voting-app", "tcp/80"),
];

fn policy() -> PolicyState {
    let with_nodes = NODES.iter().fold(voting_app(), |policy, (node, zone)| policy.node(node, zone));
    with_nodes
        .token("voting-db@voting-app", TokenScope::default())
        .token("voting-svc@voting-app", TokenScope::default())
}

fn local() -> Local {
    Local { me: Some(name("p1")), ..Local::default() }
}

/// A view in which each endpoint is on the node with its number.
fn view_with(policy: &PolicyState, on: &[usize]) -> View {
    let mut view = view_of(policy, "p1");
    for (i, ((id, service, port), node)) in PLACES.iter().zip(on).enumerate() {
        let node = NODES[*node].0;
        announce(&mut view, &name(node), endpoint(policy, node, id, service, (port, 80), 1 + i as u32));
    }
    view
}

prop_compose! {
    fn views()(
        on in prop::collection::vec(0usize..NODES.len(), PLACES.len()),
        states in prop::collection::vec((0usize..5, prop::option::of(0u32..200_000), any::<bool>()), NODES.len()),
        healths in prop::collection::vec(0usize..3, PLACES.len()),
        down in prop::option::of(0usize..NODES.len()),
        isolated in any::<bool>(),
    ) -> View {
        let policy = policy();
        let mut view = view_with(&policy, &on);
        view.isolated = isolated;
        view.clouds_down.extend(down.map(|i| {
            let zone = NODES[i].1.split('/').next().unwrap_or_default();
            (name(zone), NOW_MS)
        }));
        let liveness =
            [Liveness::Alive, Liveness::Suspect, Liveness::Unknown, Liveness::Down, Liveness::Left];
        let health = [Health::Passing, Health::Unknown, Health::Failing];
        for (node, (state, rtt_us, odd)) in view.nodes.values_mut().zip(states) {
            node.state = liveness[state];
            node.rtt_us = rtt_us;
            node.quarantined = odd && state == 0;
            for (fact, health_of) in node.endpoints.values_mut().zip(&healths) {
                fact.health = health[*health_of];
            }
        }
        view
    }
}

proptest! {
    #[test]
    fn the_same_inputs_give_the_same_plan(view in views()) {
        let policy = policy();
        let text = |plan: &Plan| format!("{plan:?}");
        let first = plan(&policy, &view, &local(), NOW_MS);
        prop_assert_eq!(text(&first), text(&plan(&policy.clone(), &view.clone(), &local(), NOW_MS)));
        let prepared = Prepared::new(&policy, &local(), NOW_MS);
        prop_assert_eq!(text(&first), text(&plan_with(&prepared, &policy, &view, &local(), NOW_MS)));
    }

    #[test]
    fn where_endpoints_are_changes_no_verdict(a in views(), b in views()) {
        let policy = policy();
        let (a, b) = (plan(&policy, &a, &local(), NOW_MS), plan(&policy, &b, &local(), NOW_MS));
        prop_assert_eq!(&a.verdicts, &b.verdicts);
        prop_assert_eq!(&a.zone.reach, &b.zone.reach);
        // An endpoint stands for the same service wherever it is.
        for bound in a.identities.values() {
            let elsewhere = b.identities.values().find(|other| other.endpoint == bound.endpoint);
            if let Some(elsewhere) = elsewhere {
                prop_assert_eq!((&elsewhere.service, elsewhere.identity), (&bound.service, bound.identity));
            }
        }
    }

    #[test]
    fn the_order_is_by_priority_and_names_only_what_may_be_served(view in views()) {
        let policy = policy();
        let plan = plan(&policy, &view, &local(), NOW_MS);
        for (contract, targets) in &plan.zone.contracts {
            let key = |target: &Target| (target.priority, target.endpoint.clone());
            prop_assert!(targets.windows(2).all(|w| key(&w[0]) < key(&w[1])));
            let failing = |target: &Target| target.health == Health::Failing;
            prop_assert!(targets.windows(2).all(|w| failing(&w[0]) <= failing(&w[1])));
            for target in targets {
                let node = &view.nodes[&target.node];
                let mine = target.node.as_str() == "p1";
                prop_assert!(!node.quarantined);
                prop_assert!(mine || node.state != Liveness::Left);
                prop_assert!(mine || view.isolated || node.state != Liveness::Down);
                let cloud = target.zone.as_ref().expect("a zone").cloud();
                prop_assert!(mine || view.isolated || !view.clouds_down.contains_key(cloud));
                // Whoever is named as serving would be let through to, for somebody.
                let identity = plan.verdicts.identity(&target.service).expect("a service");
                let reached = plan.zone.reach.iter().filter(|(_, contracts)| contracts.contains(contract));
                for (asker, _) in reached {
                    let asker = plan.verdicts.identity(asker).expect("a service");
                    let effective = |class: &Class| plan.verdicts.effective(asker, identity, *class);
                    let allowed = Class::ALL.iter().flat_map(effective).any(|r| r.verdict().allow);
                    prop_assert!(allowed, "{} is resolved by one who may not reach it", contract);
                }
                prop_assert_eq!(target.ports[0].1, 80);
            }
        }
    }
}

#[test]
#[ignore = "prints how long a large plan takes; asserts nothing about it"]
fn a_large_plan() {
    let services = 1_000;
    let mut policy = fabric();
    for i in 0..services {
        policy = policy.contract(&format!("c{i}@d"), "client-server", &[("server", &["tcp/80"])]);
    }
    for i in 0..services {
        let mut roles = vec![format!("server:c{i}")];
        roles.extend((1..=10).map(|k| format!("client:c{}", (i + k) % services)));
        let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
        let service = format!("s{i}@d");
        policy = policy.service(&service, &roles).token(&service, TokenScope::default());
    }
    for n in 0..100 {
        policy = policy.node(&format!("n{n}"), &format!("c{}/z{}", n % 3, n % 7));
    }
    let mut view = view_of(&policy, "n0");
    for e in 0..10_000_u32 {
        let node = format!("n{}", e % 100);
        let service = format!("s{}@d", e % services);
        let fact = endpoint(&policy, &node, &format!("e{e}"), &service, ("tcp/80", 80), 1 + e / 100);
        announce(&mut view, &name(&node), fact);
    }
    let local = Local { me: Some(name("n0")), ..Local::default() };
    let start = std::time::Instant::now();
    let prepared = Prepared::new(&policy, &local, NOW_MS);
    eprintln!("prepared in {:?}", start.elapsed());
    let start = std::time::Instant::now();
    let plan = plan_with(&prepared, &policy, &view, &local, NOW_MS);
    eprintln!("planned in {:?}", start.elapsed());
    assert_eq!(plan.zone.endpoints.len(), 10_000);
}
