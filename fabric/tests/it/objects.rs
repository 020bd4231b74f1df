//! Applying objects: what is refused, what changes, what stays.

use selvedge_fabric::{
    command::{Apply, ChangeAction, Command, Limits, Refusal},
    manifest,
    object::{Kind, ObjectKey, Spec},
    policy::{self, PolicyState},
};

use crate::support::{Fabric, name};

/// A small graph: one contract, two services.
const GRAPH: &str = "\
{apiVersion: selvedge/v1, kind: Domain, metadata: {name: app}}
---
{apiVersion: selvedge/v1, kind: Contract, metadata: {name: front, domain: app},
 spec: {template: client-server, roles: {server: {ports: [tcp/80]}}}}
---
{apiVersion: selvedge/v1, kind: Service, metadata: {name: web, domain: app}, spec: {roles: [server:front]}}
---
{apiVersion: selvedge/v1, kind: Service, metadata: {name: proxy, domain: app}, spec: {roles: [client:front]}}
";

fn with_graph() -> Fabric {
    let mut fabric = Fabric::new();
    fabric.yaml(GRAPH).expect("applied");
    fabric
}

fn key(kind: Kind, text: &str) -> ObjectKey {
    ObjectKey { kind, domain: (kind != Kind::Domain).then(|| name("app")), name: text.to_owned() }
}

fn delete(fabric: &mut Fabric, keys: Vec<ObjectKey>) -> Result<usize, String> {
    let apply = Apply { delete: keys, ..Apply::default() };
    let applied = fabric.command(Command::Apply(apply)).map_err(|refusal| refusal.to_string())?;
    Ok(applied.changes.len())
}

fn identity(state: &PolicyState, service: &str) -> Option<u32> {
    state.identities.get(&service.parse().expect("a reference")).copied()
}

#[test]
fn the_same_again_changes_nothing() {
    let mut fabric = with_graph();
    let (revision, hash) = (fabric.state.revision, fabric.state.objects_hash());
    let applied = fabric.yaml(GRAPH).expect("applied");
    assert_eq!((applied.revision, applied.changes.len()), (revision, 0));
    assert_eq!(fabric.state.objects_hash(), hash);
    assert_eq!(fabric.state.history.len(), 2, "init and the first apply");
}

#[test]
fn a_repeated_command_gets_the_outcome_it_had() {
    let mut fabric = Fabric::new();
    let objects = manifest::parse(GRAPH, None).expect("valid");
    let envelope = fabric.envelope(Command::Apply(Apply { set: objects, ..Apply::default() }));
    let first = fabric.state.apply(&envelope).expect("applied");
    let state = fabric.state.clone();
    let second = fabric.state.apply(&envelope).expect("remembered");
    assert_eq!((first.revision, first.changes.len()), (second.revision, second.changes.len()));
    assert_eq!(fabric.state, state);
}

#[test]
fn a_refusal_leaves_intent_as_it_was_and_names_every_problem() {
    let mut fabric = with_graph();
    let before = fabric.state.clone();
    let refused = fabric.yaml(
        "\
{apiVersion: selvedge/v1, kind: Domain, metadata: {name: ep}}
---
{apiVersion: selvedge/v1, kind: Domain, metadata: {name: small}, spec: {quotas: {contracts: 1, services: 0}}}
---
{apiVersion: selvedge/v1, kind: Contract, metadata: {name: a, domain: small},
 spec: {template: peer, roles: {server: {}}, path: {via: [aws/x], avoid: [aws]}}}
---
{apiVersion: selvedge/v1, kind: Contract, metadata: {name: b, domain: small},
 spec: {template: client-server, roles: {client: {ports: [tcp/1]}, server: {ports: [tcp/1, tcp/1]}}}}
---
{apiVersion: selvedge/v1, kind: Service, metadata: {name: s, domain: small}, spec: {roles: [sever:b, client:front@app, client:front@app]}}
---
{apiVersion: selvedge/v1, kind: Template, metadata: {name: peer}, spec: {roles: [a, a], flows: [{from: a, to: c}]}}
---
{apiVersion: selvedge/v1, kind: Link, metadata: {name: l}, spec: {nodes: [p1, p1]}}
---
{apiVersion: selvedge/v1, kind: External, metadata: {name: e}, spec: {addresses: [10.0.0.1/8, 10.0.0.300], roles: [client:front@app]}}
---
{apiVersion: selvedge/v1, kind: Guardrail, metadata: {name: g}, spec: {action: deny, from: '*@apps', to: webb@app}}
",
    );
    let refused = refused.expect_err("refused");
    for needle in [
        "Domain ep: metadata.name: the domain name \"ep\" is reserved",
        "Domain small: spec.quotas.contracts: the domain would hold 2 contracts; its quota is 1",
        "Domain small: spec.quotas.services: the domain would hold 1 services; its quota is 0",
        "Contract a@small: spec.roles.server: the template peer has no role server",
        "Contract a@small: spec.path.via[0]: packets cannot pass aws/x and avoid aws",
        "Contract b@small: spec.roles.client.ports: has ports, but in the template client-server nobody opens flows to client (ports belong to server)",
        "Contract b@small: spec.roles.server.ports[1]: tcp/1 is listed twice",
        "Service s@small: spec.roles[0]: the contract b@small (template client-server) has no role sever (did you mean server?)",
        "Service s@small: spec.roles[2]: client:front@app is listed twice",
        "Template peer: metadata.name: the template peer is built in",
        "Template peer: spec.roles[1]: the role a is listed twice",
        "Template peer: spec.flows[0].to: the template has no role c",
        "Link l: spec.nodes: a link has two different ends",
        "External e: spec.addresses[0]: \"10.0.0.1/8\" has bits set beyond its prefix",
        "External e: spec.addresses[1]: \"10.0.0.300\" is no address",
        "External e: spec.roles: an external without a domain plays no roles",
        "Guardrail g: spec.from: there is no Domain apps (did you mean Domain app?)",
        "Guardrail g: spec.to: there is no Service webb@app (did you mean Service web@app?)",
    ] {
        assert!(refused.contains(needle), "{needle}\n\n{refused}");
    }
    assert_eq!(fabric.state.revision, before.revision);
    assert_eq!(fabric.state.intent_hash(), before.intent_hash());
    assert_eq!(fabric.state.history, before.history);
}

#[test]
fn what_others_refer_to_cannot_be_deleted() {
    let mut fabric = with_graph();
    let refused = delete(&mut fabric, vec![key(Kind::Contract, "front")]).expect_err("refused");
    for service in ["web", "proxy"] {
        let needle = format!(
            "Service {service}@app: spec.roles[0]: refers to Contract front@app, which would be deleted"
        );
        assert!(refused.contains(&needle), "{refused}");
    }
    let refused = delete(&mut fabric, vec![key(Kind::Domain, "app")]).expect_err("refused");
    assert!(refused.contains("Contract front@app: metadata.domain: refers to Domain app"), "{refused}");
    let refused = delete(&mut fabric, vec![key(Kind::Service, "wed")]).expect_err("refused");
    assert!(refused.contains("there is no such object (did you mean Service web@app?)"), "{refused}");

    let everything = fabric.state.objects.keys().cloned().collect();
    assert_eq!(delete(&mut fabric, everything), Ok(4));
    assert!(fabric.state.objects.is_empty() && fabric.state.identities.is_empty());
}

#[test]
fn the_base_revision_is_compared() {
    let mut fabric = with_graph();
    let apply = Apply { base: Some(1), ..Apply::default() };
    let refused = fabric.command(Command::Apply(apply)).expect_err("refused");
    assert_eq!(refused, Refusal::Conflict { base: 1, present: 2 });
    let apply = Apply { base: Some(2), ..Apply::default() };
    assert_eq!(fabric.command(Command::Apply(apply)).map(|applied| applied.revision), Ok(2));
}

#[test]
fn identities_are_never_used_again() {
    let mut fabric = with_graph();
    let (web, proxy) = (identity(&fabric.state, "web@app"), identity(&fabric.state, "proxy@app"));
    assert_eq!((proxy, web), (Some(1), Some(2)), "in order of keys");
    delete(&mut fabric, vec![key(Kind::Service, "web")]).expect("deleted");
    assert_eq!(identity(&fabric.state, "web@app"), None);
    fabric.yaml(GRAPH).expect("applied");
    assert_eq!(identity(&fabric.state, "web@app"), Some(3));
    assert_eq!(identity(&fabric.state, "proxy@app"), proxy);

    let external = |roles: &str| {
        format!(
            "{{apiVersion: selvedge/v1, kind: External, metadata: {{name: out, domain: app}},
              spec: {{addresses: [192.0.2.1], roles: [{roles}]}}}}"
        )
    };
    fabric.yaml(&external("")).expect("applied");
    assert_eq!(identity(&fabric.state, "out@app"), None, "it plays no role");
    fabric.yaml(&external("server:front")).expect("applied");
    assert_eq!(identity(&fabric.state, "out@app"), Some(4));
}

#[test]
fn a_ttl_ends_at_an_instant_and_time_never_runs_backwards() {
    let mut fabric = with_graph();
    let text = "\
{apiVersion: selvedge/v1, kind: Contract, metadata: {name: trial, domain: app},
 spec: {template: peer, roles: {peer: {ports: [any]}}, ttl: 2h}}";
    let expires_at = |fabric: &Fabric| match &fabric.state.objects[&key(Kind::Contract, "trial")] {
        Spec::Contract(contract) => {
            assert_eq!(contract.ttl, None);
            contract.expires_at
        }
        other => panic!("{other:?}"),
    };
    fabric.now_ms = 1_000_000;
    fabric.yaml(text).expect("applied");
    assert_eq!(expires_at(&fabric), Some(1_000_000 + 7_200_000));
    // A new leader whose clock is behind.
    fabric.now_ms = 500_000;
    assert!(fabric.yaml(text).expect("applied").changes.is_empty());
    assert_eq!(expires_at(&fabric), Some(1_000_000 + 7_200_000));

    let both = text.replace("ttl: 2h", "ttl: 2h, expiresAt: '2030-01-01T00:00:00Z'");
    assert!(fabric.yaml(&both).expect_err("refused").contains("excludes expiresAt"));
    assert!(fabric.yaml(&text.replace("2h", "0s")).expect_err("refused").contains("longer than nothing"));
}

#[test]
fn rollback_is_an_apply() {
    let mut fabric = with_graph();
    let (revision, hash) = (fabric.state.revision, fabric.state.objects_hash());
    let changed = GRAPH.replace("tcp/80", "tcp/81").replace("client:front", "");
    fabric.yaml(&changed).expect("applied");
    delete(&mut fabric, vec![key(Kind::Service, "web")]).expect("deleted");
    let applied = fabric.command(Command::Rollback { to: revision, base: None }).expect("rolled back");
    assert_eq!((applied.revision, applied.changes.len()), (revision + 3, 3));
    assert_eq!(fabric.state.objects_hash(), hash);
    assert_eq!(fabric.state.history.back().map(|e| e.summary.as_str()), Some("rollback to revision 2"));

    let empty = fabric.command(Command::Rollback { to: 1, base: None }).expect("rolled back");
    assert!(empty.changes.iter().all(|change| change.action == ChangeAction::Deleted));
    let refused = fabric.command(Command::Rollback { to: 99, base: None }).expect_err("the future");
    assert!(matches!(refused, Refusal::NotFound(_)));
}

#[test]
fn the_history_is_bounded() {
    let mut fabric = with_graph();
    for i in 0..Limits::HISTORY + 10 {
        fabric.yaml(&GRAPH.replace("tcp/80", &format!("tcp/{}", 81 + i))).expect("applied");
    }
    assert_eq!(fabric.state.history.len(), Limits::HISTORY);
    let refused = fabric.command(Command::Rollback { to: 2, base: None }).expect_err("forgotten");
    assert!(refused.to_string().contains("no longer in the history"), "{refused}");
    assert!(fabric.state.remembered.len() <= Limits::REMEMBERED_COMMANDS);
    let oldest = fabric.state.history[0].revision - 1;
    fabric.command(Command::Rollback { to: oldest, base: None }).expect("the oldest that is known");
}

#[test]
fn diff_and_preview_tell_what_an_apply_would_do() {
    let mut fabric = with_graph();
    let set = manifest::parse(&GRAPH.replace("tcp/80", "tcp/443"), None).expect("valid");
    let gone = vec![key(Kind::Service, "proxy")];
    let apply = Apply {
        set: set.iter().filter(|object| object.key != gone[0]).cloned().collect(),
        delete: gone.clone(),
        ..Apply::default()
    };
    let before = fabric.state.clone();
    let diff = policy::diff(&fabric.state, &apply.set, &gone);
    let told: Vec<_> = diff.iter().map(|c| (c.action, c.what.as_str())).collect();
    assert_eq!(
        told,
        [(ChangeAction::Updated, "Contract front@app"), (ChangeAction::Deleted, "Service proxy@app")]
    );
    assert_eq!(fabric.state.preview(&apply, 0).as_ref(), Ok(&diff));
    assert_eq!(fabric.state, before);
    let applied = fabric.command(Command::Apply(apply)).expect("applied");
    assert_eq!(applied.changes, diff);
}
