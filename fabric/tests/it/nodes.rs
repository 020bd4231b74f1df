//! Nodes and tokens: who is admitted, who is refused, what is used again and what never.

use selvedge_fabric::{
    command::{
        AdmissionState, Admit, ApiToken, Command, JoinToken, Refusal, Rights, Role, SealedSecret,
        ServiceToken, TokenScope,
    },
    key::{Hash, TokenId},
    object::Kind,
};

use crate::support::{Fabric, admit, key, name, params};

fn join_token(id: u8, role: Role, uses_left: u32) -> JoinToken {
    JoinToken {
        id: TokenId([id; 9]),
        secret_hash: Hash([0xE0 | id; 32]),
        role,
        zone: "aws".parse().expect("a zone"),
        not_after_ms: 20_000,
        uses_left,
    }
}

fn with_token(node: &str, seed: u8, role: Role, token: u8) -> Admit {
    Admit { token: Some(TokenId([token; 9])), ..admit(node, seed, role) }
}

/// A fabric with a join token for three workload nodes.
fn fabric() -> Fabric {
    let mut fabric = Fabric::new();
    fabric.command(Command::CreateJoinToken(join_token(1, Role::Workload, 3))).expect("a token");
    fabric
}

fn refused(fabric: &mut Fabric, admit: Admit, needle: &str) {
    let before = fabric.state.clone();
    let refusal = fabric.command(Command::Admit(admit)).expect_err(needle).to_string();
    assert!(refusal.contains(needle), "{needle}: {refusal}");
    assert_eq!(fabric.state.intent_hash(), before.intent_hash());
    assert_eq!(fabric.state.revision, before.revision);
}

#[test]
fn a_fabric_is_made_once() {
    let mut fabric = Fabric::new();
    let first = admit("p2", 2, Role::Processor);
    let again = fabric.command(Command::Init { params: params(), first: first.clone() });
    assert!(matches!(again, Err(Refusal::Lifecycle(_))));
    let mut state = selvedge_fabric::policy::PolicyState::default();
    let envelope = fabric.envelope(Command::Admit(first.clone()));
    assert!(state.apply(&envelope).expect_err("nothing yet").to_string().contains("fabric init"));
    let mut bad = params();
    bad.suffix = "Fabric..internal".to_owned();
    let envelope = fabric.envelope(Command::Init { params: bad, first });
    assert!(state.apply(&envelope).expect_err("bad suffix").to_string().contains("DNS suffix"));
    assert_eq!((state.revision, state.nodes.len()), (0, 0));
}

#[test]
fn a_join_token_admits_as_often_as_it_says() {
    let mut fabric = fabric();
    let join = |node, seed| Command::Admit(with_token(node, seed, Role::Workload, 1));
    fabric.command(join("w1", 11)).expect("first");
    let again = fabric.command(join("w1", 11)).expect("the reply was lost");
    assert!(again.changes.is_empty());
    fabric.command(join("w2", 12)).expect("second");
    fabric.command(join("w3", 13)).expect("third");
    refused(&mut fabric, with_token("w4", 14, Role::Workload, 1), "used up");
    fabric.command(join("w3", 13)).expect("identical, although the token is used up");
    let blocks: Vec<u32> = fabric.state.nodes.values().map(|node| node.block).collect();
    assert_eq!(blocks, [1, 2, 3, 4], "the lowest free ones, without 0");
}

#[test]
fn wrong_joins_are_refused() {
    let mut fabric = fabric();
    refused(&mut fabric, admit("w1", 11, Role::Workload), "no join token");
    refused(&mut fabric, with_token("w1", 11, Role::Workload, 9), "not known");
    refused(&mut fabric, with_token("w1", 11, Role::Processor, 1), "for a workload");
    let elsewhere = Admit { zone: "gcp".parse().expect("a zone"), ..with_token("w1", 11, Role::Workload, 1) };
    refused(&mut fabric, elsewhere, "for the zone aws, not gcp");
    refused(&mut fabric, with_token("p1", 11, Role::Workload, 1), "there is a node p1 already");
    refused(&mut fabric, with_token("w1", 1, Role::Workload, 1), "is admitted already, as p1");
    fabric.command(Command::RevokeToken { id: TokenId([1; 9]) }).expect("revoked");
    refused(&mut fabric, with_token("w1", 11, Role::Workload, 1), "not known");
    fabric.command(Command::CreateJoinToken(join_token(2, Role::Workload, 1))).expect("a token");
    fabric.now_ms = 20_000;
    refused(&mut fabric, with_token("w1", 11, Role::Workload, 2), "expired");
    // The clock of a new leader is behind: what has ended stays so.
    fabric.now_ms = 10_000;
    refused(&mut fabric, with_token("w1", 11, Role::Workload, 2), "expired");
}

#[test]
fn a_removed_key_never_returns_and_its_block_rests() {
    let mut fabric = fabric();
    let join = |node, seed| Command::Admit(with_token(node, seed, Role::Workload, 1));
    fabric.command(join("w1", 11)).expect("joined");
    fabric.command(Command::RemoveNode { node: name("w1") }).expect("removed");
    refused(&mut fabric, with_token("w1", 11, Role::Workload, 1), "never admitted again");
    fabric.command(join("w1", 12)).expect("the name with a new key");
    assert_eq!(fabric.state.nodes[&name("w1")].block, 3, "block 2 rests");
    let released = fabric.command(Command::ReleaseBlocks { blocks: vec![2, 77] }).expect("released");
    assert_eq!(released.changes.len(), 1);
    let again = fabric.command(Command::ReleaseBlocks { blocks: vec![2] }).expect("released already");
    assert_eq!((again.changes.len(), again.revision), (0, released.revision));
    fabric.command(join("w2", 13)).expect("joined");
    assert_eq!(fabric.state.nodes[&name("w2")].block, 2);
    refused(&mut fabric, with_token("w9", 11, Role::Workload, 1), "never admitted again");
}

#[test]
fn states_of_nodes() {
    let mut fabric = fabric();
    let set = |node, state| Command::SetNodeState { node: name(node), state };
    let sealed = SealedSecret { encapsulated: vec![1], ciphertext: vec![2] };
    let last = fabric.command(set("p1", AdmissionState::Revoked)).expect_err("the last processor");
    assert!(last.to_string().contains("last processor"));
    assert!(fabric.command(Command::RemoveNode { node: name("p1") }).is_err());

    fabric.command(Command::CreateJoinToken(join_token(3, Role::Processor, 1))).expect("a token");
    fabric.command(Command::Admit(with_token("p2", 2, Role::Processor, 3))).expect("joined");
    fabric.command(Command::SealIssuer { node: name("p2"), sealed: sealed.clone() }).expect("sealed");
    fabric.command(set("p2", AdmissionState::Draining)).expect("draining");
    let same = fabric.command(set("p2", AdmissionState::Draining)).expect("draining already");
    assert!(same.changes.is_empty());
    fabric.command(set("p2", AdmissionState::Active)).expect("back");
    fabric.command(set("p2", AdmissionState::Revoked)).expect("revoked");
    assert!(!fabric.state.sealed_issuer.contains_key(&name("p2")));
    assert!(
        fabric.command(set("p2", AdmissionState::Active)).expect_err("final").to_string().contains("final")
    );
    refused(&mut fabric, with_token("p2", 2, Role::Processor, 3), "is revoked");
    let unknown = fabric.command(set("p22", AdmissionState::Draining)).expect_err("unknown");
    assert!(unknown.to_string().contains("did you mean p2?"), "{unknown}");
    fabric.command(Command::Admit(with_token("w1", 11, Role::Workload, 1))).expect("joined");
    let seal = Command::SealIssuer { node: name("w1"), sealed };
    assert!(fabric.command(seal).expect_err("a workload node").to_string().contains("only processors"));
}

#[test]
fn tokens_of_services_and_of_the_api() {
    let mut fabric = fabric();
    let service = |id: u8, service: &str| ServiceToken {
        id: TokenId([id; 9]),
        service: service.parse().expect("a reference"),
        key: key(id),
        scope: TokenScope::default(),
        not_after_ms: 50_000,
    };
    let missing = fabric.command(Command::CreateServiceToken(service(5, "web@app"))).expect_err("no service");
    assert!(missing.to_string().contains("there is no service web@app"));
    let graph = "\
{apiVersion: selvedge/v1, kind: Domain, metadata: {name: app}}
---
{apiVersion: selvedge/v1, kind: Service, metadata: {name: web, domain: app}}
";
    fabric.yaml(graph).expect("applied");
    fabric.command(Command::CreateServiceToken(service(5, "web@app"))).expect("a token");
    fabric.yaml(&graph.replace("app}}\n", "app}, spec: {description: changed}}\n")).expect("applied");
    assert_eq!(fabric.state.service_tokens.len(), 1, "applying a service leaves its tokens alone");
    let taken =
        fabric.command(Command::CreateServiceToken(service(1, "web@app"))).expect_err("id of the join token");
    assert!(taken.to_string().contains("another token"));
    let key = fabric.state.objects.keys().find(|key| key.kind == Kind::Service).cloned();
    let delete = selvedge_fabric::command::Apply { delete: key.into_iter().collect(), ..Default::default() };
    let applied = fabric.command(Command::Apply(delete)).expect("deleted");
    assert_eq!(applied.changes.len(), 2, "the service and its token: {:?}", applied.changes);
    assert!(fabric.state.service_tokens.is_empty());

    let api = |id: u8, name: &str, not_after_ms| ApiToken {
        id: TokenId([id; 9]),
        name: name.to_owned(),
        secret_hash: Hash([id; 32]),
        rights: Rights::Read,
        not_after_ms,
    };
    fabric.command(Command::CreateApiToken(api(7, "alice", 50_000))).expect("a token");
    assert!(
        fabric.command(Command::CreateApiToken(api(8, "local:0", 50_000))).is_err(),
        "would pass for root"
    );
    assert!(fabric.command(Command::CreateApiToken(api(8, "bob", 10_000))).is_err(), "ended already");
    fabric.command(Command::RevokeToken { id: TokenId([7; 9]) }).expect("revoked");
    assert!(matches!(
        fabric.command(Command::RevokeToken { id: TokenId([7; 9]) }),
        Err(Refusal::NotFound(_))
    ));
}

#[test]
fn the_hash_of_intent_covers_everything_but_secrets() {
    let mut fabric = fabric();
    let bare = fabric.state.without_secrets();
    assert_eq!(bare.intent_hash(), fabric.state.intent_hash());
    let shown = String::from_utf8(bare.encode()).expect("JSON");
    assert!(!shown.contains(&Hash([0xE1; 32]).to_string()), "the hash of a token's secret");
    let before = fabric.state.intent_hash();
    let objects = fabric.state.objects_hash();
    fabric.command(Command::Admit(with_token("w1", 11, Role::Workload, 1))).expect("joined");
    assert_ne!(fabric.state.intent_hash(), before);
    assert_eq!(fabric.state.objects_hash(), objects);
}
