//! Who may do what, on which listener.

use std::{net::SocketAddr, sync::Arc};

use serde_json::json;
use tokio::net::TcpListener;

use super::{Served, client::Client};

/// Serves TLS with a certificate of its own, and gives a client configuration that trusts it.
async fn tls(served: &mut Served) -> (SocketAddr, Arc<rustls::ClientConfig>) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = served.server.clone();
    served.tasks.spawn(async move { server.serve_tls(listener, Arc::new(config)).await });
    (address, Arc::new(client))
}

#[tokio::test]
async fn the_network_needs_a_token() {
    let mut served = Served::start().await;
    let (address, config) = tls(&mut served).await;
    let mut client = Client::tls(address, config).await;
    let got = client.get("/v1/members").await;
    got.problem(401, "unauthenticated");
    assert_eq!(got.headers["www-authenticate"], "Bearer");
    for bad in ["Bearer wrong", "Basic all", "Bearer"] {
        client.ask("GET", "/v1/members", &[("authorization", bad)], "").await.problem(401, "unauthenticated");
    }
    client.get("/metrics").await.problem(401, "unauthenticated");
    for open in ["/healthz", "/v1/openapi.json"] {
        assert_eq!(client.get(open).await.status, 200, "{open}");
    }
}

#[tokio::test]
async fn rights_bound_what_a_token_does() {
    let mut served = Served::start().await;
    let (address, config) = tls(&mut served).await;
    let mut client = Client::tls(address, config).await;
    let join = json!({"kind": "join", "role": "processor", "zone": "aws"}).to_string();
    let register = json!({"service": "a@b", "token": "t"}).to_string();
    let command = json!({"service": "a@b", "token": "t", "checks": [{"kind": "command", "command": ["id"]}]})
        .to_string();
    let domain = r#"{"apiVersion":"selvedge/v1","kind":"Domain","metadata":{"name":"shop"},"spec":{}}"#;
    let revocation = json!({"fabric_id": "f", "fence_epoch": 0, "node": "p2", "key": "k", "at_ms": 1,
        "signature": "s"})
    .to_string();
    // Path, body, and the status for tokens with read, domain and admin rights.
    let cases = [
        ("/v1/apply", domain, [403, 200, 200]),
        ("/v1/apply?dry_run=true", domain, [200, 200, 200]),
        ("/v1/rollback", r#"{"to":1}"#, [403, 403, 200]),
        ("/v1/tokens", &join, [403, 403, 200]),
        ("/v1/revocations", &revocation, [403, 403, 200]),
        ("/v1/endpoints", &register, [403, 200, 200]),
        ("/v1/endpoints", &command, [403, 403, 403]),
    ];
    for (path, body, statuses) in cases {
        for (token, status) in ["look", "some", "all"].into_iter().zip(statuses) {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let got = client.ask("POST", path, &headers, body).await;
            assert_eq!(got.status, status, "{token} {path} {:?}", got.body);
        }
    }
    let isolate = json!({"drill": "partition", "holder": "h", "cuts": [{"whom": "all"}]}).to_string();
    for (method, body) in [("PUT", isolate.as_str()), ("DELETE", "")] {
        for (token, status) in [("look", 403), ("some", 403), ("all", 200)] {
            let bearer = format!("Bearer {token}");
            let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
            let got = client.ask(method, "/v1/isolation", &headers, body).await;
            assert_eq!(got.status, status, "{token} {method} {:?}", got.body);
        }
    }
}

#[tokio::test]
async fn a_workload_is_known_by_its_address_and_sees_only_its_own() {
    let mut served = Served::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = served.server.clone();
    served.tasks.spawn(async move { server.serve_workload(listener).await });

    let mut stranger = Client::tcp_from("127.0.0.1", address).await;
    stranger.get("/v1/self").await.problem(401, "unauthenticated");
    let mut endpoint = Client::tcp_from("127.64.0.9", address).await;
    assert_eq!(endpoint.get("/v1/self").await.status, 200);
    assert_eq!(endpoint.get("/v1/service/stat").await.json()["name"], "endpoint:voting-svc-1");
    endpoint.get("/v1/discover/api.shop").await.problem(404, "not-found");
    assert_eq!(served.fake.last(), "discover api@shop by endpoint:voting-svc-1");
    endpoint.get("/v1/discover/api").await.problem(400, "bad-request");
    for other in ["/v1/members", "/v1/objects", "/metrics", "/v1/tokens"] {
        endpoint.get(other).await.problem(404, "not-found");
    }
}
