//! What is newly allowed comes into force by stages, what is withdrawn at once.

use std::collections::BTreeSet;

use proptest::prelude::*;
use selvedge_fabric::{
    command::{Admit, Applied, Command, JoinToken, Role},
    compile::{compile, compile_on},
    id::{ContractRef, NodeName, ServiceRef, ZoneName},
    key::{Hash, TokenId},
    manifest,
    record::Enforced,
    rollout::{LATE_MS, Rollout, Stage, Step, judge},
    view::{Liveness, NodeView, View},
};

use crate::support::{Fabric, admit, key, name};

const SERVICES: &str = "
apiVersion: selvedge/v1
kind: Domain
metadata: {name: shop}
---
apiVersion: selvedge/v1
kind: Service
metadata: {name: web, domain: shop}
spec: {roles: ['client:api']}
---
apiVersion: selvedge/v1
kind: Service
metadata: {name: back, domain: shop}
spec: {roles: ['server:api']}
---
";

fn contract(ports: &[u16], rollout: &str) -> String {
    let ports: Vec<_> = ports.iter().map(|port| format!("tcp/{port}")).collect();
    format!(
        "apiVersion: selvedge/v1\nkind: Contract\nmetadata: {{name: api, domain: shop}}\nspec: {{template: \
         client-server, roles: {{server: {{ports: [{}]}}}}, rollout: {rollout}}}\n",
        ports.join(", ")
    )
}

fn api() -> ContractRef {
    "api@shop".parse().expect("a contract")
}

/// Two zones with two workload nodes each, and a processor.
fn fabric() -> Fabric {
    let mut fabric = Fabric::new();
    for (n, (node, zone)) in (10..).zip([("w1", "aws"), ("w2", "aws"), ("w3", "gcp"), ("w4", "gcp")]) {
        let (id, zone): (_, ZoneName) = (TokenId([n; 9]), zone.parse().expect("a zone"));
        let token = JoinToken {
            id,
            secret_hash: Hash([n; 32]),
            role: Role::Workload,
            zone: zone.clone(),
            not_after_ms: 100_000_000,
            uses_left: 1,
        };
        fabric.command(Command::CreateJoinToken(token)).expect("a token");
        let admit = Admit { zone, token: Some(id), ..admit(node, n, Role::Workload) };
        fabric.command(Command::Admit(admit)).expect("admitted");
    }
    fabric
}

fn apply(fabric: &mut Fabric, yaml: &str) -> Applied {
    let set = manifest::parse(yaml, None).expect("it is valid");
    fabric.set(set).expect("accepted")
}

/// From whom to whom at which ports, of some, flows may be opened on a node; `None`: on all.
fn allowed(fabric: &Fabric, node: Option<&NodeName>) -> BTreeSet<(String, String, u16)> {
    let now_ms = fabric.now_ms;
    let tables = match node {
        Some(node) => compile_on(&fabric.state, now_ms, &BTreeSet::new(), Some(node)),
        None => compile(&fabric.state, now_ms),
    };
    let services: Vec<(ServiceRef, _)> = tables.services().map(|(s, id)| (s.clone(), id)).collect();
    let mut allowed = BTreeSet::new();
    for ((from, source), (to, destination)) in
        services.iter().flat_map(|a| services.iter().map(move |b| (a, b)))
    {
        for port in 1..=6 {
            let one = format!("tcp/{port}").parse().expect("a port");
            if tables.allows_some(*source, *destination, one) {
                allowed.insert((from.to_string(), to.to_string(), port));
            }
        }
    }
    allowed
}

fn ports(fabric: &Fabric, node: &str) -> Vec<u16> {
    allowed(fabric, Some(&name(node))).into_iter().map(|(_, _, port)| port).collect()
}

fn rollout(fabric: &Fabric) -> &Rollout {
    &fabric.state.rollouts[&api()]
}

fn step(fabric: &mut Fabric, step: Step) {
    let (revision, since_ms) = (rollout(fabric).revision, rollout(fabric).since_ms);
    let command = Command::StepRollout { contract: api(), revision, since_ms, step };
    fabric.command(command.clone()).expect("moved on");
    fabric.command(command).expect_err("that stage is over");
}

#[test]
fn a_grant_goes_from_a_canary_to_its_zone_to_all() {
    let mut fabric = fabric();
    apply(&mut fabric, &(SERVICES.to_owned() + &contract(&[1], "{soak: 1m}")));
    let Rollout { canary, zone, .. } = rollout(&fabric).clone();
    let nodes: Vec<NodeName> = fabric.state.nodes.keys().cloned().collect();
    let who = |fabric: &Fabric| -> Vec<NodeName> {
        nodes.iter().filter(|node| !ports(fabric, node.as_str()).is_empty()).cloned().collect()
    };
    assert!(canary.as_str().starts_with('w'), "a workload node, where there are some");
    assert_eq!(who(&fabric), std::slice::from_ref(&canary));
    step(&mut fabric, Step::Advance);
    let in_zone = nodes.iter().filter(|node| fabric.state.nodes[*node].zone == zone);
    assert_eq!(who(&fabric), in_zone.cloned().collect::<Vec<_>>());
    step(&mut fabric, Step::Advance);
    assert_eq!(who(&fabric), nodes);
    assert!(fabric.state.rollouts.is_empty());
}

#[test]
fn without_a_rollout_everything_is_at_once_and_a_promotion_is_that() {
    let mut fabric = fabric();
    apply(&mut fabric, &(SERVICES.to_owned() + &contract(&[1], "null")));
    assert!(fabric.state.rollouts.is_empty());
    apply(&mut fabric, &contract(&[1, 2], "{}"));
    let other = if rollout(&fabric).canary == name("w1") { "w2" } else { "w1" };
    assert_eq!(ports(&fabric, other), [1], "what was allowed goes on");
    apply(&mut fabric, &contract(&[1, 2], "null"));
    assert_eq!(ports(&fabric, other), [1, 2]);
}

#[test]
fn one_that_is_stopped_is_in_force_nowhere_and_can_begin_again() {
    let mut fabric = fabric();
    apply(&mut fabric, &(SERVICES.to_owned() + &contract(&[1], "null")));
    apply(&mut fabric, &contract(&[1, 2], "{soak: 1m}"));
    let whole = fabric.state.intent_hash();
    step(&mut fabric, Step::Halt("it fell over".to_owned()));
    assert_ne!(fabric.state.intent_hash(), whole, "nodes compare it");
    assert_eq!(fabric.state.without_secrets().intent_hash(), fabric.state.intent_hash());
    for node in ["w1", "w2", "w3", "w4", "p1"] {
        assert_eq!(ports(&fabric, node), [1], "{node}");
    }
    assert!(rollout(&fabric).message(&api()).contains("it fell over"));
    apply(&mut fabric, &contract(&[1, 2], "{soak: 2m}"));
    assert_eq!(rollout(&fabric).stage, Stage::Canary);
    let read = selvedge_fabric::policy::PolicyState::decode(&fabric.state.encode()).expect("a snapshot");
    assert_eq!(read, fabric.state);
}

#[test]
fn a_service_that_comes_to_play_a_role_is_staged_too() {
    let mut fabric = fabric();
    apply(&mut fabric, &(SERVICES.to_owned() + &contract(&[1], "{soak: 1m}")));
    step(&mut fabric, Step::Advance);
    step(&mut fabric, Step::Advance);
    apply(
        &mut fabric,
        "{apiVersion: selvedge/v1, kind: Service, metadata: {name: spy, domain: shop}, spec: {roles: ['client:api']}}",
    );
    let spies = |node: &NodeName| allowed(&fabric, Some(node)).iter().any(|(from, ..)| from == "spy@shop");
    let nodes: Vec<_> = fabric.state.nodes.keys().filter(|node| spies(node)).collect();
    assert_eq!(nodes, [&rollout(&fabric).canary]);
    assert!(fabric.state.nodes.keys().all(|node| !allowed(&fabric, Some(node)).is_empty()), "web goes on");
}

#[test]
fn the_leader_goes_on_when_all_of_the_stage_enforce_it_and_stops_when_one_goes_down() {
    let mut fabric = fabric();
    apply(&mut fabric, &(SERVICES.to_owned() + &contract(&[1], "{soak: 1m}")));
    let rollout = rollout(&fabric).clone();
    let view = |state, enforced: Option<u64>| {
        let node = NodeView {
            key: key(10),
            state,
            incarnation: 1,
            addresses: Vec::new(),
            gossip: Vec::new(),
            api: Vec::new(),
            rtt_us: None,
            enforced: enforced.map(|revision| Enforced { epoch: 0, revision, hash: Hash([0; 32]) }),
            load: None,
            links: Vec::new(),
            heard_ms: None,
            quarantined: false,
            endpoints: std::collections::BTreeMap::new(),
        };
        View { nodes: [(rollout.canary.clone(), node)].into(), ..View::default() }
    };
    let judge =
        |view: &View, after_ms| judge(&fabric.state, &rollout, 60_000, view, rollout.since_ms + after_ms);
    let halts = |step: Option<Step>, why: &str| matches!(step, Some(Step::Halt(text)) if text.contains(why));
    let (now, before) = (Some(rollout.revision), Some(rollout.revision - 1));
    let good = view(Liveness::Alive, now);
    assert_eq!((judge(&good, 59_999), judge(&good, 60_000)), (None, Some(Step::Advance)));
    assert!(halts(judge(&view(Liveness::Down, now), 5), "is down since"));
    for bad in [view(Liveness::Alive, before), view(Liveness::Unknown, now), View::default()] {
        assert_eq!(judge(&bad, 60_000 + LATE_MS - 1), None, "facts take their time");
        assert!(halts(judge(&bad, 60_000 + LATE_MS), "does not say"));
    }
    assert!(halts(judge(&view(Liveness::Down, before), 60_000), "no node of its stage"));
}

proptest! {
    #[test]
    fn nothing_more_than_the_policy_anywhere_and_nothing_that_worked_less(
        before in prop::collection::btree_set(1u16..=6, 0..5),
        changes in prop::collection::vec((prop::collection::btree_set(1u16..=6, 0..5), 0usize..4), 1..5),
    ) {
        let mut fabric = fabric();
        let list = |ports: &BTreeSet<u16>| ports.iter().copied().collect::<Vec<_>>();
        apply(&mut fabric, &(SERVICES.to_owned() + &contract(&list(&before), "null")));
        let nodes: Vec<NodeName> = fabric.state.nodes.keys().cloned().collect();
        for (n, (ports, then)) in changes.iter().enumerate() {
            let worked: Vec<_> = nodes.iter().map(|node| allowed(&fabric, Some(node))).collect();
            let everywhere = worked.iter().cloned().reduce(|a, b| &a & &b).unwrap_or_default();
            apply(&mut fabric, &contract(&list(ports), &format!("{{soak: {}m}}", n + 1)));
            let whole = allowed(&fabric, None);
            for node in &nodes {
                let here = allowed(&fabric, Some(node));
                prop_assert!(here.is_subset(&whole), "what is withdrawn is withdrawn on {node}");
                let still = &everywhere & &whole;
                prop_assert!(still.is_subset(&here), "what worked everywhere goes on, on {node}");
            }
            let Some(rollout) = fabric.state.rollouts.get(&api()).cloned() else { continue };
            prop_assert_eq!(allowed(&fabric, Some(&rollout.canary)), whole.clone());
            for _ in 0..*then {
                if fabric.state.rollouts.contains_key(&api()) {
                    let halted = matches!(self::rollout(&fabric).stage, Stage::Halted(_));
                    if !halted {
                        step(&mut fabric, if *then == 3 { Step::Halt("no".to_owned()) } else { Step::Advance });
                    }
                    for node in &nodes {
                        prop_assert!(allowed(&fabric, Some(node)).is_subset(&whole));
                    }
                }
            }
        }
    }
}
