//! A processor and a workload node, whole, in one process.

use selvedge_fabric::command::Role;
use serde_json::{Value, json};

use crate::{
    api::client::Client,
    whole::{Running, config, found, udp},
};

async fn apply(node: &Running, domain: &str) -> crate::api::client::Got {
    let manifest =
        format!("apiVersion: selvedge/v1\nkind: Domain\nmetadata: {{name: {domain}}}\nspec: {{}}\n");
    let mut client = Client::unix(&node.socket).await;
    client.ask("POST", "/v1/apply", &[("content-type", "application/yaml")], &manifest).await
}

fn alive(members: &Value, name: &str, role: &str) -> bool {
    let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().any(|m| m["name"] == name && m["role"] == role && m["state"] == "alive")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_node_follows_the_policy_and_starts_alone_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut processor_config = found(dir.path(), "p1");
    let processor = Running::founder(&processor_config).await;
    assert_eq!(apply(&processor, "first").await.status, 200);

    let token_file = dir.path().join("token");
    std::fs::write(
        &token_file,
        processor.token(json!({"kind": "join", "role": "workload", "zone": "aws"})).await,
    )
    .unwrap();
    let mut workload_config = config(dir.path(), "w1", Role::Workload);
    workload_config.join_token_file = Some(token_file);
    let workload = Running::start(&workload_config);
    let revision = processor.get("/v1/status").await["revision"].as_u64().unwrap();
    let newer = move |s: &Value| s["ready"] == true && s["revision"].as_u64() >= Some(revision);
    let status = workload.until("/v1/status", "the policy arrives", newer).await;
    assert_eq!(status["role"], "workload");
    workload.until("/v1/status", "writes are known to fare well", |s| s["quorum"] == true).await;
    for node in [&processor, &workload] {
        node.until("/v1/members", "both see both", |m| {
            alive(m, "p1", "processor") && alive(m, "w1", "workload")
        })
        .await;
    }
    assert!(!dir.path().join("w1/raft").exists(), "a workload node holds no replica");

    let refused = apply(&workload, "second").await.problem(422, "refused");
    let remedy = refused["remedy"].as_str().unwrap();
    assert!(remedy.contains(&processor_config.listen.api.to_string()), "names where to write: {remedy}");

    processor.stop().await;
    let known = workload.get("/v1/status").await["revision"].clone();
    workload.stop().await;
    // Within one process some sockets of the nodes before close a little later.
    (workload_config.listen.fabric, workload_config.listen.gossip) = (udp(), udp());
    processor_config.listen.gossip = udp();
    let workload = Running::start(&workload_config);
    let alone = workload.until("/v1/status", "it starts alone", |s| s["ready"] == true).await;
    assert_eq!((&alone["revision"], &alone["quorum"]), (&known, &Value::Bool(false)));

    let processor = Running::start(&processor_config);
    processor.until("/v1/status", "it is back", |s| s["quorum"] == true).await;
    assert_eq!(apply(&processor, "third").await.status, 200);
    let revision = processor.get("/v1/status").await["revision"].as_u64();
    workload.until("/v1/status", "it follows again", move |s| s["revision"].as_u64() >= revision).await;
    workload.stop().await;
    processor.stop().await;
}
