//! Whatever is wrong comes back as problem details.

use selvedge_node::api::{ApiError, limits::MAX_BODY_BYTES};
use serde_json::json;

use super::Served;

#[tokio::test]
async fn bad_requests_are_problem_details() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.get("/v1/nowhere").await.problem(404, "not-found");
    client.get("/v1/objects/domain/nope").await.problem(404, "not-found");
    client.get("/v1/objects/contract/api").await.problem(400, "bad-request");
    client.get("/v1/objects/weather/x").await.problem(400, "bad-request");
    client.get("/v1/objects?colour=red").await.problem(400, "bad-request");
    client.get("/v1/explain?from=a&to=b@c&port=tcp/1").await.problem(400, "bad-request");
    client.get("/v1/explain?from=a@c&to=b@c&port=tcp/0").await.problem(400, "bad-request");
    client.get("/v1/watch?topics=weather").await.problem(400, "bad-request");
    let got = client.ask("PATCH", "/v1/members", &[], "").await;
    got.problem(405, "method-not-allowed");
    assert!(got.headers["allow"].to_str().unwrap().contains("GET"));
    let json = [("content-type", "application/json")];
    client.ask("POST", "/v1/rollback", &json, "{\"to\":").await.problem(400, "bad-request");
    client.ask("POST", "/v1/rollback", &json, "{\"to\":\"x\"}").await.problem(400, "bad-request");
    client.ask("POST", "/v1/rollback", &json, "{\"to\":1,\"x\":2}").await.problem(400, "bad-request");
    client.ask("POST", "/v1/rollback", &[], "{}").await.problem(415, "unsupported-media-type");
    let png = [("content-type", "image/png")];
    client.ask("POST", "/v1/apply", &png, "x").await.problem(415, "unsupported-media-type");
}

#[tokio::test]
async fn a_bad_manifest_names_the_place() {
    let served = Served::start().await;
    let bad = "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: shop}\nspec: {descrption: x}\n";
    let got = served.client().await.ask("POST", "/v1/apply?file=shop.yaml", &[], bad).await;
    let problem = got.problem(422, "invalid");
    assert_eq!(problem["problems"][0]["file"], "shop.yaml");
    assert_eq!(problem["problems"][0]["line"], 4);
    assert!(served.fake.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let served = Served::start().await;
    let domain = r#"{"apiVersion":"selvedge/v1","kind":"Domain","metadata":{"name":"shop"},"spec":{}}"#;
    let padded = |bytes: usize| format!("{domain}{}", " ".repeat(bytes - domain.len()));
    let got = served.client().await.ask("POST", "/v1/apply", &[], &padded(MAX_BODY_BYTES)).await;
    assert_eq!(got.status, 200);
    let got = served.client().await.ask("POST", "/v1/apply", &[], &padded(MAX_BODY_BYTES + 1)).await;
    got.problem(413, "too-large");
}

#[tokio::test]
async fn a_missing_quorum_is_told_with_voters_and_remedy() {
    let served = Served::start().await;
    let error = ApiError::no_quorum(vec!["aws-1".into()], "start aws-1");
    *served.fake.refuse.lock().unwrap() = Some(error);
    let body = json!({"apiVersion":"selvedge/v1","kind":"Domain","metadata":{"name":"shop"},"spec":{}});
    let problem = served.client().await.post_json("/v1/apply", body).await.problem(503, "no-quorum");
    assert_eq!(problem["missing"], json!(["aws-1"]));
    assert_eq!(problem["remedy"], "start aws-1");
}

#[tokio::test]
async fn request_ids_are_taken_over_only_when_harmless() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let got = client.ask("GET", "/v1/members", &[("x-request-id", "abc-1")], "").await;
    assert_eq!(got.headers["x-request-id"], "abc-1");
    let got = client.ask("GET", "/v1/members", &[("x-request-id", "a b")], "").await;
    assert_ne!(got.headers["x-request-id"], "a b");
}
