//! A grant that comes into force by stages, on a processor and a workload node.

use selvedge_fabric::command::Role;
use serde_json::{Value, json};

use crate::{
    api::client::Client,
    whole::{Running, config, found},
};

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
/// What only somebody who may reach the contract is answered.
const NAME: &str = "/v1/resolve?name=api.shop&as=web@shop";

async fn apply(node: &Running, port: u16, rollout: &str) {
    let contract = format!(
        "apiVersion: selvedge/v1\nkind: Contract\nmetadata: {{name: api, domain: shop}}\nspec: {{template: \
         client-server, roles: {{server: {{ports: [tcp/{port}]}}}}, rollout: {rollout}}}\n"
    );
    let mut client = Client::unix(&node.socket).await;
    let yaml = [("content-type", "application/yaml")];
    let applied = client.ask("POST", "/v1/apply", &yaml, &(SERVICES.to_owned() + &contract)).await;
    assert_eq!(applied.status, 200);
}

fn alarm<'a>(status: &'a Value, code: &str) -> Option<&'a str> {
    let alarms = status["alarms"].as_array().map(Vec::as_slice).unwrap_or_default();
    alarms.iter().find(|alarm| alarm["code"] == code).and_then(|alarm| alarm["message"].as_str())
}

fn allowed(answer: &Value) -> bool {
    answer["rcode"] == "NOERROR"
}

fn refused(answer: &Value) -> bool {
    answer["rcode"] == "NXDOMAIN"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_tried_on_one_node_first_and_stopped_when_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let processor = Running::founder(&found(dir.path(), "p1")).await;
    let token = processor.token(json!({"kind": "join", "role": "workload", "zone": "aws"})).await;
    let token_file = dir.path().join("token");
    std::fs::write(&token_file, token).unwrap();
    let mut joining = config(dir.path(), "w1", Role::Workload);
    joining.join_token_file = Some(token_file);
    let workload = Running::start(&joining);
    workload.until("/v1/status", "it joins", |s| s["ready"] == true && s["quorum"] == true).await;

    // To its end: the canary, its zone, everywhere.
    apply(&processor, 80, "{soak: 2s}").await;
    let begun = processor.until("/v1/status", "it begins", |s| alarm(s, "rollout").is_some()).await;
    assert!(alarm(&begun, "rollout").unwrap().contains("on node w1 only"), "{begun}");
    processor.until(NAME, "everywhere in the end", allowed).await;
    processor.until("/v1/status", "it is over", |s| alarm(s, "rollout").is_none()).await;

    // The canary alone, and when that goes, nobody.
    apply(&processor, 81, "null").await;
    apply(&processor, 82, "{soak: 15s}").await;
    workload.until(NAME, "the canary enforces it", allowed).await;
    processor.until(NAME, "nobody else does", refused).await;
    workload.stop().await;
    processor.until("/v1/status", "it is stopped", |s| alarm(s, "rollout-halted").is_some()).await;
    assert!(refused(&processor.get(NAME).await));
    apply(&processor, 82, "null").await;
    processor.until(NAME, "promoted", allowed).await;
    processor.stop().await;
}
