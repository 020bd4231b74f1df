//! Joins that are refused, by a whole processor: what the one who asked is told, and what others see.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use selvedge_fabric::{
    command::Role,
    key::{FabricId, TokenId},
    token::{JoinTokenText, Secret},
};
use selvedge_node::{
    InitOptions, NodeConfig,
    config::{Listen, Profile, Timers},
    enroll::client::{JoinError, Joining, join},
    pki::{self, NodeKey, SealingKey},
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::client::Client;

/// Long enough for a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

fn udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// The first processor of a fabric.
pub(crate) struct Founder {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    socket: PathBuf,
}

/// Makes a fabric in a new directory below `dir`.
pub(crate) fn found(dir: &Path, node: &str) -> NodeConfig {
    let config = NodeConfig {
        name: Some(node.parse().unwrap()),
        data_dir: dir.join(node),
        listen: Listen {
            fabric: udp(),
            gossip: udp(),
            api: tcp(),
            dns: vec![tcp()],
            workload_api: tcp(),
            socket: dir.join(format!("{node}.sock")),
        },
        timers: Timers { profile: Profile::Local },
        ..NodeConfig::default()
    };
    selvedge_node::init(&InitOptions {
        fabric: "demo".parse().unwrap(),
        node: node.parse().unwrap(),
        zone: "aws".parse().unwrap(),
        data_dir: config.data_dir.clone(),
        suffix: "fabric.internal".to_owned(),
        ipv4_pool: "100.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        certificate_lifetime: Duration::from_secs(24 * 3600),
    })
    .unwrap();
    config
}

impl Founder {
    pub(crate) async fn start(config: NodeConfig) -> Self {
        let (stop, socket) = (CancellationToken::new(), config.listen.socket.clone());
        let task = tokio::spawn(selvedge_node::run(config, stop.clone()));
        let founder = Self { stop, task, socket };
        founder.ready().await;
        founder
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn ready(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(Instant::now() < deadline && !self.task.is_finished(), "the processor does not start");
            if tokio::net::UnixStream::connect(&self.socket).await.is_ok() {
                let status = Client::unix(&self.socket).await.get("/v1/status").await.json();
                // A quorum of one is there before the fabric's first command is committed.
                if status["quorum"] == true && status["ready"] == true {
                    return;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn join_token(&self, ttl_ms: u64) -> JoinTokenText {
        let request = json!({"kind": "join", "role": "processor", "zone": "azr", "ttl_ms": ttl_ms});
        let reply = Client::unix(&self.socket).await.post_json("/v1/tokens", request).await.json();
        let text = reply["token"].as_str().unwrap_or_else(|| panic!("{reply}"));
        JoinTokenText::parse(text).unwrap()
    }

    /// Whether a refused join was told with these words.
    async fn told(&self, words: &str) -> bool {
        let events = Client::unix(&self.socket).await.get("/v1/events").await.json();
        let mut events = events.as_array().unwrap().iter();
        events.any(|e| {
            e["code"] == "join-refused"
                && e["severity"] == "security"
                && e["message"].as_str().unwrap().contains(words)
        })
    }

    async fn refuses(&self, token: &JoinTokenText, name: &str, words: &str) {
        match ask(token, name).await {
            Err(JoinError::Refused { reason, .. }) => assert!(reason.contains(words), "{words}: {reason}"),
            other => panic!("{words}: {:?}", other.map(|_| "admitted")),
        }
        assert!(self.told(words).await, "no event says {words:?}");
    }
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
    let founder = Founder::start(found(dir.path(), "p1")).await;

    let short = founder.join_token(5_000).await;
    tokio::time::sleep(Duration::from_millis(5_020)).await;
    founder.refuses(&short, "late", "has expired").await;

    let good = founder.join_token(3_600_000).await;
    let other_zone = JoinTokenText { zone: "gcp".parse().unwrap(), ..good.clone() };
    founder.refuses(&other_zone, "p2", "admits to zone azr, not gcp").await;
    let other_role = JoinTokenText { role: Role::Workload, ..good.clone() };
    founder.refuses(&other_role, "p2", "admits a processor, not a workload").await;
    let guessed = JoinTokenText { secret: Secret::new([7; 32]), ..good.clone() };
    founder.refuses(&guessed, "p2", "wrong secret").await;
    let unknown = JoinTokenText { id: TokenId([7; 9]), ..good.clone() };
    founder.refuses(&unknown, "p2", "unknown or revoked").await;
    let foreign = JoinTokenText { fabric: FabricId([7; 16]), ..good.clone() };
    founder.refuses(&foreign, "p2", "of another").await;

    founder.refuses(&good, "p1", "there is a node p1 already").await;
    ask(&good, "p2").await.unwrap();
    founder.refuses(&good, "p3", "used up").await;
    founder.refuses(&good, "p2", "p2 already").await;

    founder.stop().await;
}
