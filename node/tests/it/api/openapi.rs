//! The OpenAPI description and the router say the same.

use super::Served;

#[tokio::test]
async fn every_documented_operation_is_there() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let document = client.get("/v1/openapi.json").await.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    let mut operations = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        let workload = path.starts_with("/v1/discover") || path == "/v1/service/stat";
        if workload || path == "/v1/watch" {
            continue;
        }
        let concrete = path.replace("{kind}", "domain").replace("{name}", "x").replace("{id}", "x");
        for method in methods.as_object().unwrap().keys() {
            let got = client.ask(&method.to_uppercase(), &concrete, &[], "").await;
            let unrouted = got.status == 405
                || (got.status == 404 && String::from_utf8_lossy(&got.body).contains("no such path"));
            assert!(!unrouted, "{method} {path}: {}", got.status);
            operations += 1;
        }
    }
    assert!(operations > 25, "{operations}");
}

#[tokio::test]
async fn schemas_have_no_dangling_reference() {
    let text = selvedge_node::api::openapi_document();
    let document: serde_json::Value = serde_json::from_str(text).unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    for reference in text.split("#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
    for name in ["Member", "Status", "ApplyReply", "ProblemDetails", "SelfReply"] {
        assert!(schemas.contains_key(name), "{name}");
    }
}
