//! Whole nodes in the hands of a drill.

use selvedge_fabric::command::Role;
use selvedge_node::{NodeConfig, config::Drills};
use serde_json::{Value, json};

use crate::{
    api::client::{Client, Got},
    whole::{Running, config, found},
};

/// Long enough to be ended by hand.
const LONG_MS: u64 = 600_000;

async fn isolate(node: &Running, holder: &str, lease_ms: u64, cuts: &Value) -> Got {
    let request = json!({"drill": "exercise", "holder": holder, "lease_ms": lease_ms, "cuts": cuts});
    let headers = [("content-type", "application/json")];
    Client::unix(&node.socket).await.ask("PUT", "/v1/isolation", &headers, request.to_string()).await
}

async fn end(node: &Running, holder: &str) -> Value {
    let path = format!("/v1/isolation{holder}");
    Client::unix(&node.socket).await.ask("DELETE", &path, &[], "").await.json()
}

/// A founder in cloud aws and a processor in azr that see each other.
async fn two(dir: &std::path::Path, second: Drills) -> (Running, Running) {
    let first = NodeConfig { drills: Drills { allow: true }, ..found(dir, "p1") };
    let founder = Running::founder(&first).await;
    let token_file = dir.join("token");
    let request = json!({"kind": "join", "role": "processor", "zone": "azr"});
    std::fs::write(&token_file, founder.token(request).await).unwrap();
    let joining = NodeConfig {
        zone: Some("azr".parse().unwrap()),
        join_token_file: Some(token_file),
        drills: second,
        ..config(dir, "p2", Role::Processor)
    };
    let other = Running::start(&joining);
    both(&founder, &other, "alive").await;
    (founder, other)
}

async fn both(p1: &Running, p2: &Running, state: &str) {
    p1.until("/v1/members", &format!("p1 sees p2 {state}"), |members| is(members, "p2", state)).await;
    p2.until("/v1/members", &format!("p2 sees p1 {state}"), |members| is(members, "p1", state)).await;
}

fn is(members: &Value, name: &str, state: &str) -> bool {
    let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().any(|m| m["name"] == name && m["state"] == state)
}

fn alarm(status: &Value) -> Option<String> {
    let alarm = status["alarms"].as_array()?.iter().find(|a| a["code"] == "drill")?;
    Some(alarm["message"].as_str()?.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_keeps_nodes_apart_and_ends_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let (p1, p2) = two(dir.path(), Drills { allow: true }).await;

    let held = isolate(&p1, "one", LONG_MS, &json!([{"whom": "cloud/azr"}])).await.json();
    assert_eq!(held["lease"]["cuts"], json!([{"whom": "cloud/azr", "direction": "both"}]), "{held}");
    isolate(&p1, "two", LONG_MS, &json!([])).await.problem(409, "conflict");
    let alarm_text = alarm(&p1.get("/v1/status").await).expect("an alarm");
    assert!(alarm_text.contains("drill exercise of local:"), "{alarm_text}");
    assert!(p1.told("warning", "drill-isolation", "cloud/azr (both ways)").await);
    // One side's gate is enough for both. Of two nodes neither can tell who is lost.
    both(&p1, &p2, "suspect").await;
    assert!(alarm(&p2.get("/v1/status").await).is_none(), "nobody holds p2");

    assert_eq!(end(&p1, "?holder=two").await["lease"]["drill"], "exercise", "not theirs to release");
    assert_eq!(end(&p1, "?holder=one").await["lease"], Value::Null);
    both(&p1, &p2, "alive").await;
    assert!(p1.told("info", "drill-isolation-ended", "the drill is over").await);

    // Whoever asked for this one is never heard of again.
    isolate(&p2, "three", 8_000, &json!([{"whom": "all"}])).await.json();
    both(&p1, &p2, "suspect").await;
    both(&p1, &p2, "alive").await;
    assert_eq!(p2.get("/v1/isolation").await["lease"], Value::Null);
    assert!(p2.told("info", "drill-isolation-ended", "nobody renewed it").await);
    assert!(alarm(&p2.get("/v1/status").await).is_none());

    // An operator's word is the last.
    isolate(&p2, "four", LONG_MS, &json!([])).await.json();
    assert_eq!(end(&p2, "").await["lease"], Value::Null);
    let again = isolate(&p2, "four", LONG_MS, &json!([])).await.problem(409, "conflict");
    assert!(again["detail"].as_str().unwrap().contains("ended on this node by an operator"), "{again}");
    p1.stop().await;
    p2.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_takes_part_in_no_drill_unless_its_configuration_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let (p1, p2) = two(dir.path(), Drills::default()).await;
    let refused = isolate(&p2, "one", LONG_MS, &json!([{"whom": "all"}])).await.problem(422, "refused");
    assert!(refused["detail"].as_str().unwrap().contains("drills.allow"), "{refused}");
    assert!(refused["remedy"].as_str().unwrap().contains("[drills] allow = true"), "{refused}");
    assert_eq!(p2.get("/v1/isolation").await["allowed"], false);
    for bad in [json!([{"whom": "others"}]), json!([{"whom": "all", "direction": "up"}])] {
        let got = isolate(&p1, "one", LONG_MS, &bad).await;
        assert!(got.status == 400 || got.status == 422, "{bad}: {}", got.status);
    }
    isolate(&p1, "one", 10, &json!([])).await.problem(400, "bad-request");
    assert_eq!(p1.get("/v1/isolation").await["lease"], Value::Null);
    p1.stop().await;
    p2.stop().await;
}
