//! Requests of whoever may reach the socket: bodies and queries of any bytes are answered, never with an
//! internal error.

use std::fmt::Write;

use selvedge_fuzz::fuzz;

use super::Served;

const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
/// What takes a body: method, path, media type, a good body.
const BODIES: [(&str, &str, &str, &str); 9] = [
    ("POST", "/v1/apply", YAML, include_str!("../../../../configs/graphs/voting-app.yaml")),
    (
        "POST",
        "/v1/apply",
        JSON,
        r#"{"objects": [{"apiVersion": "selvedge/v1", "kind": "Domain"}], "base": 3}"#,
    ),
    ("POST", "/v1/diff", YAML, "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: a}\nspec: {}\n"),
    ("POST", "/v1/delete", JSON, r#"{"objects": [{"kind": "Domain", "name": "a"}], "dry_run": true}"#),
    (
        "POST",
        "/v1/assert",
        YAML,
        "- deny: {from: '*@a', to: '*@b'}\n- allow: {from: x@a, to: y@a, port: tcp/80}\n",
    ),
    ("POST", "/v1/rollback", JSON, r#"{"to": 3, "base": 4}"#),
    (
        "POST",
        "/v1/tokens",
        JSON,
        r#"{"kind": "join", "role": "workload", "zone": "aws/eu", "uses": 2, "ttl_ms": 900}"#,
    ),
    ("POST", "/v1/endpoints", JSON, r#"{"service": "web@app", "token": "x", "ports": [{"port": "tcp/80"}]}"#),
    ("PUT", "/v1/nodes/p1/state", JSON, r#"{"state": "draining"}"#),
];
/// What takes a query, and a good one.
const QUERIES: [(&str, &str); 6] = [
    ("/v1/resolve", "name=web.app&type=A&as=front@app"),
    ("/v1/explain", "from=front@app&to=web@app&port=tcp/80"),
    ("/v1/reach", "service=web@app&direction=in"),
    ("/v1/objects", "kind=Domain&domain=app"),
    ("/v1/history", "limit=5"),
    ("/v1/events", "since=0&limit=5"),
];

/// A query of any bytes, as a client that escapes them sends it.
fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, &byte| {
        if byte.is_ascii_alphanumeric() || b"=&-.".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[test]
fn requests() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let served = runtime.block_on(Served::start());
    // The first byte says which.
    let numbered = |n: usize, text: &str| [&[u8::try_from(n).unwrap()], text.as_bytes()].concat();
    let bodies = BODIES.iter().enumerate().map(|(n, (.., body))| numbered(n, body));
    let queries = QUERIES.iter().enumerate().map(|(n, (_, query))| numbered(BODIES.len() + n, query));
    fuzz("API requests", &bodies.chain(queries).collect::<Vec<_>>(), |bytes| {
        let Some((&number, bytes)) = bytes.split_first() else { return };
        let number = usize::from(number) % (BODIES.len() + QUERIES.len());
        let got = runtime.block_on(async {
            let mut client = served.client().await;
            if let Some((method, path, media, _)) = BODIES.get(number) {
                client.ask(method, path, &[("content-type", media)], bytes).await
            } else {
                client.get(&format!("{}?{}", QUERIES[number - BODIES.len()].0, escaped(bytes))).await
            }
        });
        served.fake.forget();
        assert!(got.status != 500, "{}", String::from_utf8_lossy(&got.body));
        if got.status >= 400 {
            assert!(got.json()["code"].is_string(), "an error without its code");
        }
    });
}
