//! What a plan says for small fabrics.

use super::*;
use crate::{
    command::TokenScope,
    object::{Action, Protocol},
    record::Health,
    testing::*,
    view::Liveness,
};

const DB: &str = "voting-db@voting-app";

/// Two nodes in aws/a, one in aws/b, two in gcp; p1 is where we are.
fn policy() -> PolicyState {
    voting_app()
        .node("p1", "aws/a")
        .node("p2", "aws/a")
        .node("p3", "aws/b")
        .node("p4", "gcp/a")
        .node("p5", "gcp/a")
        .token(DB, TokenScope::default())
        .token("voting-svc@voting-app", TokenScope::default())
}

/// One database on each node, named after it.
fn view(policy: &PolicyState) -> View {
    let mut view = view_of(policy, "p1");
    for node in ["p1", "p2", "p3", "p4", "p5"] {
        let fact = endpoint(policy, node, &format!("db-{node}"), DB, ("tcp/5432", 5432), 1);
        announce(&mut view, &name(node), fact);
    }
    view
}

fn local() -> Local {
    Local { me: Some(name("p1")), ..Local::default() }
}

fn plan_now(policy: &PolicyState, view: &View) -> Plan {
    plan(policy, view, &local(), NOW_MS)
}

fn served(plan: &Plan) -> Vec<&str> {
    let targets = &plan.zone.contracts[&object("voting-backend@voting-app")];
    targets.iter().map(|target| target.endpoint.as_str()).collect()
}

fn node<'a>(view: &'a mut View, title: &str) -> &'a mut crate::view::NodeView {
    view.nodes.get_mut(&name(title)).expect("a node")
}

fn codes(plan: &Plan) -> Vec<&'static str> {
    plan.alarms.iter().map(|alarm| alarm.code).collect()
}

#[test]
fn near_endpoints_come_first() {
    let policy = policy();
    let mut view = view(&policy);
    node(&mut view, "p5").rtt_us = Some(30_000);
    node(&mut view, "p4").rtt_us = Some(90_000);
    assert_eq!(served(&plan_now(&policy, &view)), ["db-p1", "db-p2", "db-p3", "db-p5", "db-p4"]);
}

#[test]
fn equally_near_endpoints_share_a_priority_and_jitter_does_not_reorder() {
    let policy = policy();
    let mut view = view(&policy);
    node(&mut view, "p4").rtt_us = Some(41_000);
    node(&mut view, "p5").rtt_us = Some(40_000);
    let plan = plan_now(&policy, &view);
    let targets = &plan.zone.contracts[&object("voting-backend@voting-app")];
    assert_eq!(targets[3].priority, targets[4].priority);
    assert_eq!(served(&plan)[3..], ["db-p4", "db-p5"]);
}

#[test]
fn dead_departed_and_quarantined_nodes_are_not_served() {
    let policy = policy();
    let mut view = view(&policy);
    node(&mut view, "p2").state = Liveness::Down;
    node(&mut view, "p3").state = Liveness::Left;
    node(&mut view, "p4").quarantined = true;
    let plan = plan_now(&policy, &view);
    assert_eq!(served(&plan), ["db-p1", "db-p5"]);
    assert_eq!(plan.identities.len(), 4, "two endpoints with two addresses each");
    assert_eq!(codes(&plan), ["quarantine"]);
}

#[test]
fn a_cloud_that_is_down_goes_at_once() {
    let policy = policy();
    let mut view = view(&policy);
    view.clouds_down.insert(name("gcp"), NOW_MS);
    let plan = plan_now(&policy, &view);
    assert_eq!(served(&plan), ["db-p1", "db-p2", "db-p3"]);
    assert_eq!(codes(&plan), ["cloud-down"]);
}

#[test]
fn after_a_cold_start_the_unheard_are_served_and_said_to_be_stale() {
    let policy = policy();
    let mut view = view(&policy);
    view.isolated = true;
    for other in ["p2", "p3", "p4", "p5"] {
        node(&mut view, other).state = Liveness::Unknown;
    }
    let plan = plan_now(&policy, &view);
    assert_eq!(served(&plan).len(), 5);
    assert_eq!(codes(&plan), ["isolated", "stale-facts"]);
    let targets = &plan.zone.contracts[&object("voting-backend@voting-app")];
    assert_eq!((targets[0].health, targets[0].stale_since_ms), (Health::Passing, None));
    assert_eq!((targets[1].health, targets[1].stale_since_ms), (Health::Unknown, Some(NOW_MS - 1)));
}

#[test]
fn an_isolated_node_takes_nobody_for_dead() {
    let policy = policy();
    let mut view = view(&policy);
    for other in ["p2", "p3", "p4", "p5"] {
        node(&mut view, other).state = Liveness::Down;
    }
    view.clouds_down.insert(name("gcp"), NOW_MS);
    assert_eq!(served(&plan_now(&policy, &view)), ["db-p1"]);
    view.isolated = true;
    assert_eq!(served(&plan_now(&policy, &view)).len(), 5);
}

#[test]
fn failing_ones_are_last_and_draining_ones_before_them() {
    let mut policy = policy();
    let mut view = view(&policy);
    node(&mut view, "p1").endpoints.values_mut().for_each(|fact| fact.health = Health::Failing);
    policy.nodes.get_mut(&name("p2")).expect("p2").state = AdmissionState::Draining;
    assert_eq!(served(&plan_now(&policy, &view)), ["db-p3", "db-p4", "db-p5", "db-p2", "db-p1"]);
}

#[test]
fn a_revoked_node_and_an_ended_proof_serve_nothing() {
    let mut policy = policy();
    let view = view(&policy);
    policy.nodes.get_mut(&name("p2")).expect("p2").state = AdmissionState::Revoked;
    assert_eq!(served(&plan_now(&policy, &view)), ["db-p1", "db-p3", "db-p4", "db-p5"]);
    assert_eq!(plan_now(&policy, &view).next_deadline_ms, Some(END_MS));
    assert!(served(&plan(&policy, &view, &local(), END_MS)).is_empty());
    policy.service_tokens.clear();
    assert!(served(&plan_now(&policy, &view)).is_empty());
}

#[test]
fn an_endpoint_serves_the_contracts_whose_port_it_has() {
    let policy = policy();
    let mut view = view_of(&policy, "p1");
    announce(&mut view, &name("p2"), endpoint(&policy, "p2", "db", DB, ("tcp/6379", 16379), 1));
    let plan = plan_now(&policy, &view);
    assert!(served(&plan).is_empty());
    let targets = &plan.zone.contracts[&object("voting-worker@voting-app")];
    assert_eq!(targets[0].ports, [(Protocol::Tcp, 16379)]);
    // voting-svc is a client of voting-backend: it is in no answer there.
    let client = endpoint(&policy, "p3", "svc", "voting-svc@voting-app", ("tcp/5432", 5432), 1);
    announce(&mut view, &name("p3"), client);
    assert!(served(&plan_now(&policy, &view)).is_empty());
}

#[test]
fn every_contract_has_a_name_until_it_ends() {
    let mut policy = policy();
    let contract = object("voting-backend@voting-app");
    let view = view_of(&policy, "p1");
    assert_eq!(plan_now(&policy, &view).zone.contracts.len(), 7);
    end_contract(&mut policy, &contract, NOW_MS + 1);
    let before = plan_now(&policy, &view);
    assert!(before.zone.contracts.contains_key(&contract));
    assert_eq!((before.next_deadline_ms, codes(&before)), (Some(NOW_MS + 1), vec!["contract-expiring"]));
    let after = plan(&policy, &view, &local(), NOW_MS + 1);
    assert!(!after.zone.contracts.contains_key(&contract));
    assert!(!after.zone.reach.contains_key(&object("voting-svc@voting-app")));
}

#[test]
fn reach_follows_contracts_and_guardrails() {
    let policy = policy();
    let reach = |policy: &PolicyState, service: &str| -> Vec<String> {
        let plan = plan_now(policy, &view_of(policy, "p1"));
        let contracts = plan.zone.reach.get(&object(service));
        contracts.into_iter().flatten().map(|contract| contract.name.to_string()).collect()
    };
    assert_eq!(reach(&policy, "http-proxy@voting-app"), ["result-frontend", "voting-frontend"]);
    assert_eq!(reach(&policy, "http-proxy@getaway-app"), ["frontend"]);
    assert!(reach(&policy, DB).is_empty());

    let shut = policy.clone().guardrail("shut", Action::Deny, "*", "voting-svc@voting-app", &[]);
    assert_eq!(reach(&shut, "http-proxy@voting-app"), ["result-frontend"]);
    let open = policy.guardrail("open", Action::Allow, "*@getaway-app", DB, &["tcp/5432"]);
    assert_eq!(reach(&open, "http-proxy@getaway-app"), ["frontend", "voting-backend"]);
}

#[test]
fn the_node_admitted_first_keeps_a_name() {
    let policy = policy();
    let mut view = view_of(&policy, "p1");
    for node in ["p4", "p2"] {
        announce(&mut view, &name(node), endpoint(&policy, node, "db", DB, ("tcp/5432", 5432), 1));
    }
    let plan = plan_now(&policy, &view);
    let targets = &plan.zone.contracts[&object("voting-backend@voting-app")];
    assert_eq!(targets.iter().map(|t| t.node.as_str()).collect::<Vec<_>>(), ["p2"]);
    assert_eq!(codes(&plan), ["endpoint-conflict"]);
}

#[test]
fn one_address_stands_for_one_service() {
    let policy = policy();
    let mut view = view_of(&policy, "p1");
    announce(&mut view, &name("p1"), endpoint(&policy, "p1", "a", DB, ("tcp/5432", 5432), 1));
    let other = endpoint(&policy, "p1", "b", "voting-svc@voting-app", ("tcp/80", 80), 1);
    announce(&mut view, &name("p1"), other);
    let plan = plan_now(&policy, &view);
    assert!(plan.identities.values().all(|bound| bound.service == object(DB)));
    assert_eq!(codes(&plan), ["endpoint-conflict"]);
}

#[test]
fn askers_are_what_is_attached_here() {
    let policy = policy();
    let view = view(&policy);
    let plan_of = |attached| plan(&policy, &view, &Local { attached, ..local() }, NOW_MS);
    assert_eq!(plan_of(None).zone.askers.values().collect::<Vec<_>>(), [&object(DB), &object(DB)]);
    assert!(plan_of(Some(BTreeSet::new())).zone.askers.is_empty());
}

#[test]
fn ipv6_is_named_only_where_it_can_be_reached() {
    let policy = policy();
    let view = view(&policy);
    let with = plan(&policy, &view, &Local { tun: true, ..local() }, NOW_MS);
    let without = plan_now(&policy, &view);
    assert!(with.zone.endpoints.values().all(|a| a.ipv6.is_some()));
    assert!(with.zone.nodes.values().all(|a| a.ipv6.is_some() && a.ipv4.is_some()));
    assert!(without.zone.endpoints.values().all(|a| a.ipv6.is_none() && a.ipv4.is_some()));
    assert_eq!(with.identities, without.identities);
}

#[test]
fn a_policy_too_old_suspends_the_domains_that_say_so() {
    let mut policy = policy();
    for (key, spec) in &mut policy.objects {
        if let (Spec::Domain(domain), "voting-app") = (spec, key.name.as_str()) {
            domain.max_policy_age = Some(1_000);
        }
    }
    let view = view_of(&policy, "p1");
    let at = |now_ms| plan(&policy, &view, &Local { policy_confirmed_ms: Some(NOW_MS), ..local() }, now_ms);
    assert_eq!(at(NOW_MS).next_deadline_ms, Some(NOW_MS + 1_000));
    assert!(at(NOW_MS + 999).zone.reach.contains_key(&object("voting-svc@voting-app")));
    let late = at(NOW_MS + 1_000);
    assert_eq!(late.zone.reach.keys().collect::<Vec<_>>(), [&object("http-proxy@getaway-app")]);
    assert_eq!(codes(&late), ["policy-too-old"]);
}

#[test]
fn prepared_intent_is_kept_until_policy_or_time_move() {
    let mut policy = policy();
    end_contract(&mut policy, &object("frontend@getaway-app"), NOW_MS + 10);
    let prepared = Prepared::new(&policy, &local(), NOW_MS);
    assert!(prepared.is_current(&policy, &local(), NOW_MS + 9));
    assert!(!prepared.is_current(&policy, &local(), NOW_MS + 10));
    assert!(!prepared.is_current(&policy, &local(), NOW_MS - 1));
    policy.revision += 1;
    assert!(!prepared.is_current(&policy, &local(), NOW_MS));
}

#[test]
fn an_empty_state_makes_an_empty_plan() {
    let plan = plan(&PolicyState::default(), &View::default(), &Local::default(), 0);
    assert_eq!((plan.zone, plan.next_deadline_ms), (Zone::default(), None));
}
