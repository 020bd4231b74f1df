//! What reaches the backend, and what comes back.

use serde_json::json;

use super::Served;

const DOMAIN: &str = r#"{"apiVersion":"selvedge/v1","kind":"Domain","metadata":{"name":"shop"},"spec":{}}"#;

#[tokio::test]
async fn an_apply_reaches_the_backend_with_its_author_and_base() {
    let served = Served::start().await;
    let got = served.client().await.ask("POST", "/v1/apply?if_revision=7", &[], DOMAIN).await;
    assert_eq!(got.status, 200, "{:?}", got.body);
    assert_eq!(got.json()["revision"], 1);
    assert_eq!(got.headers["selvedge-revision"], "1");
    let uid = std::fs::metadata(&served.socket).map(|m| std::os::unix::fs::MetadataExt::uid(&m)).unwrap();
    assert_eq!(served.fake.last(), format!("apply Domain shop base=Some(7) by local:{uid}"));
}

#[tokio::test]
async fn a_dry_run_writes_nothing() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for path in ["/v1/apply?dry_run=true", "/v1/diff"] {
        let got = client.ask("POST", path, &[], DOMAIN).await;
        assert_eq!(got.json()["changes"][0]["action"], "created");
        assert_eq!(served.fake.last(), "dry_run");
    }
    assert_eq!(*served.fake.revision.borrow(), 0);
}

#[tokio::test]
async fn every_operation_finds_its_backend() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let object = json!({"objects": [{"kind": "contracts", "name": "api@shop"}], "if_revision": 3});
    let join = json!({"kind": "join", "role": "processor", "zone": "aws"});
    let register =
        json!({"service": "a@shop", "token": "t", "checks": [{"kind": "command", "command": ["true"]}]});
    let posts = [
        ("/v1/delete", object, "apply Contract api@shop base=Some(3)"),
        ("/v1/rollback", json!({"to": 1}), "rollback 1"),
        ("/v1/tokens", join, "Join { role: \"processor\", zone: \"aws\", uses: None"),
        ("/v1/endpoints", register, "register a@shop"),
    ];
    for (path, body, asked) in posts {
        let got = client.post_json(path, body).await;
        assert_eq!(got.status, 200, "{path}: {:?}", got.body);
        assert!(served.fake.last().starts_with(asked), "{path}: {}", served.fake.last());
    }
    let gets = [
        ("/v1/objects?kind=services&domain=shop", "list Some(Service) Some(shop)"),
        ("/v1/wait?revision=3&live=true&timeout_ms=50", "wait 3 true 50ms"),
        ("/v1/resolve?name=api.shop&type=srv&as=a@shop", "resolve api.shop SRV Some(a@shop)"),
        ("/v1/explain?from=a@shop&to=b@shop&port=tcp/80", "explain a@shop b@shop tcp/80"),
    ];
    for (path, asked) in gets {
        let got = client.get(path).await;
        assert_eq!((got.status, served.fake.last().as_str()), (200, asked), "{path}: {:?}", got.body);
    }
    let drain = json!({"state": "draining"}).to_string();
    let put =
        client.ask("PUT", "/v1/nodes/aws-1/state", &[("content-type", "application/json")], &drain).await;
    assert_eq!((put.status, served.fake.last().as_str()), (200, "aws-1 Draining"));
    assert_eq!(client.ask("DELETE", "/v1/endpoints/e1", &[], "").await.status, 204);
    assert_eq!(client.ask("DELETE", "/v1/nodes/aws-1", &[], "").await.status, 200);
    assert_eq!(served.fake.last(), "remove aws-1");
}

#[tokio::test]
async fn names_with_a_slash_or_a_domain_are_paths() {
    let served = Served::start().await;
    let mut client = served.client().await;
    assert_eq!(client.get("/v1/objects/zone/aws/east").await.json()["metadata"]["name"], "aws/east");
    assert_eq!(client.get("/v1/objects/service/a@shop").await.json()["kind"], "Service");
    assert_eq!(client.get("/v1/describe/domain/shop").await.json()["object"]["kind"], "Domain");
}

#[tokio::test]
async fn a_linearizable_read_asks_for_a_barrier_first() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.get("/v1/members").await;
    assert_eq!(served.fake.last(), "");
    client.ask("GET", "/v1/members", &[("selvedge-read", "linearizable")], "").await;
    assert_eq!(served.fake.last(), "barrier");
}

#[tokio::test]
async fn monitoring_gets_its_formats() {
    let served = Served::start().await;
    let mut client = served.client().await;
    assert_eq!(client.get("/healthz").await.status, 200);
    let ready = client.get("/readyz").await;
    assert_eq!((ready.status, &ready.json()["waiting_for"][0]), (503, &json!("a plan")));
    let plain = client.get("/metrics").await;
    assert!(!plain.body.ends_with(b"# EOF\n"));
    let open = client.ask("GET", "/metrics", &[("accept", "application/openmetrics-text")], "").await;
    assert!(open.body.ends_with(b"# EOF\n"));
}
