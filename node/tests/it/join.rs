//! Joins that are refused, by a whole processor: what the one who asked is told, and what others see.

use std::time::Duration;

use selvedge_fabric::{
    command::Role,
    key::{FabricId, Signer, TokenId},
    token::{JoinTokenText, Secret},
};
use selvedge_node::{
    enroll::{
        JOIN_VERSION, JoinReply, JoinRequest,
        client::{JoinError, Joining, join},
    },
    pki::{self, NodeKey, SealingKey},
};
use selvedge_transport::join_request;
use serde_json::json;

use crate::whole::{PATIENCE, Running, found};

async fn join_token(founder: &Running, uses: u32, ttl_ms: u64) -> JoinTokenText {
    let request = json!({"kind": "join", "role": "processor", "zone": "azr", "uses": uses, "ttl_ms": ttl_ms});
    JoinTokenText::parse(&founder.token(request).await).unwrap()
}

async fn refuses(founder: &Running, token: &JoinTokenText, name: &str, words: &str) {
    match ask(token, name).await {
        Err(JoinError::Refused { reason, .. }) => assert!(reason.contains(words), "{words}: {reason}"),
        other => panic!("{words}: {:?}", other.map(|_| "admitted")),
    }
    assert!(founder.told("security", "join-refused", words).await, "no event says {words:?}");
}

/// Asks to join with a new key.
async fn ask(token: &JoinTokenText, name: &str) -> Result<(), JoinError> {
    let joining = Joining {
        token,
        seeds: &[],
        name: name.parse().unwrap(),
        csr: pki::csr(&NodeKey::generate().unwrap()).unwrap(),
        sealing_key: SealingKey::generate().unwrap().public_key(),
        addresses: Vec::new(),
    };
    join(&joining).await.map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_joins_are_refused_and_seen() {
    let dir = tempfile::tempdir().unwrap();
    let founder = Running::founder(&found(dir.path(), "p1")).await;

    let short = join_token(&founder, 1, 5_000).await;
    tokio::time::sleep(Duration::from_millis(5_020)).await;
    refuses(&founder, &short, "late", "has expired").await;

    let good = join_token(&founder, 1, 3_600_000).await;
    let other_zone = JoinTokenText { zone: "gcp".parse().unwrap(), ..good.clone() };
    refuses(&founder, &other_zone, "p2", "admits to zone azr, not gcp").await;
    let other_role = JoinTokenText { role: Role::Workload, ..good.clone() };
    refuses(&founder, &other_role, "p2", "admits a processor, not a workload").await;
    let guessed = JoinTokenText { secret: Secret::new([7; 32]), ..good.clone() };
    refuses(&founder, &guessed, "p2", "wrong secret").await;
    let unknown = JoinTokenText { id: TokenId([7; 9]), ..good.clone() };
    refuses(&founder, &unknown, "p2", "unknown or revoked").await;
    let foreign = JoinTokenText { fabric: FabricId([7; 16]), ..good.clone() };
    refuses(&founder, &foreign, "p2", "of another").await;

    refuses(&founder, &good, "p1", "there is a node p1 already").await;
    ask(&good, "p2").await.unwrap();
    refuses(&founder, &good, "p3", "used up").await;
    refuses(&founder, &good, "p2", "p2 already").await;

    founder.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_is_replayed_grants_nothing_and_is_seen() {
    let dir = tempfile::tempdir().unwrap();
    let founder = Running::founder(&found(dir.path(), "p1")).await;
    let token = join_token(&founder, 2, 3_600_000).await;
    let key = NodeKey::generate().unwrap();
    let request = JoinRequest {
        version: JOIN_VERSION,
        fabric: token.fabric,
        token: token.id,
        secret: token.secret.expose().to_vec(),
        name: "p2".parse().unwrap(),
        role: token.role,
        zone: token.zone.clone(),
        csr: pki::csr(&key).unwrap(),
        sealing_key: SealingKey::generate().unwrap().public_key(),
        addresses: Vec::new(),
    };
    let body = serde_json::to_vec(&request).unwrap();
    let seed = tokio::net::lookup_host(token.seeds[0].to_string()).await.unwrap().next().unwrap();
    let mut revisions = Vec::new();
    for _ in 0..2 {
        let reply = join_request(seed, &token.ca_pin, body.clone().into(), PATIENCE).await.unwrap();
        let reply: JoinReply = serde_json::from_slice(&reply).unwrap();
        assert_eq!(pki::certified_key(&reply.certificate).unwrap(), key.public_key());
        revisions.push(founder.get("/v1/status").await["revision"].clone());
        let tokens = founder.get("/v1/tokens").await;
        let mut tokens = tokens.as_array().unwrap().iter();
        let id = token.id.to_string();
        let used = tokens.find(|t| id.contains(t["id"].as_str().unwrap())).unwrap();
        assert_eq!(used["uses_left"], 1, "{used}");
    }
    assert_eq!(revisions[0], revisions[1], "nothing changed by the repetition");
    assert!(founder.told("info", "node-admitted", "azr").await);
    assert!(founder.told("warning", "join-repeated", "admitted already").await);
    founder.stop().await;
}
