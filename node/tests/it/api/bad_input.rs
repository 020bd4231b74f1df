//! Whatever is wrong comes back as problem details.

use selvedge_fabric::{command::Problem, manifest::MAX_MANIFEST_BYTES};
use selvedge_node::api::{
    ApiError, FILES_MEDIA_TYPE,
    limits::MAX_BODY_BYTES,
    types::{ManifestFile, ManifestFiles},
};
use serde_json::json;

use super::Served;

const DOMAIN: &str = r#"{"apiVersion":"selvedge/v1","kind":"Domain","metadata":{"name":"shop"},"spec":{}}"#;

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
async fn problems_that_the_policy_finds_get_their_place_in_the_file() {
    let served = Served::start().await;
    let files = ManifestFiles {
        files: vec![
            ManifestFile { name: "a.yaml".into(), text: DOMAIN.into() },
            ManifestFile { name: "b.yaml".into(), text: format!("\n\n{}", DOMAIN.replace("shop", "bar")) },
        ],
    };
    let problem = Problem {
        place: None,
        object: Some("Domain bar".into()),
        field: None,
        message: "too many".into(),
        remedy: None,
    };
    *served.fake.refuse.lock().unwrap() = Some(ApiError::invalid(vec![problem]));
    let headers = [("content-type", FILES_MEDIA_TYPE)];
    let body = serde_json::to_string(&files).unwrap();
    let got = served.client().await.ask("POST", "/v1/apply", &headers, &body).await.problem(422, "invalid");
    assert_eq!((&got["problems"][0]["file"], &got["problems"][0]["line"]), (&json!("b.yaml"), &json!(3)));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let served = Served::start().await;
    let padded = |bytes: usize| format!("{DOMAIN}{}", " ".repeat(bytes - DOMAIN.len()));
    let got = served.client().await.ask("POST", "/v1/apply", &[], &padded(MAX_MANIFEST_BYTES)).await;
    assert_eq!(got.status, 200);
    let got = served.client().await.ask("POST", "/v1/apply", &[], &padded(MAX_BODY_BYTES)).await;
    got.problem(422, "invalid");
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
