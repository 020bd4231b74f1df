//! A processor and a workload node, whole, in one process.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use selvedge_fabric::command::Role;
use selvedge_node::{
    InitOptions, NodeConfig,
    api::types::TokenRequest,
    config::{Listen, Profile, Timers},
};
use serde_json::Value;
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

fn config(dir: &Path, name: &str, role: Role) -> NodeConfig {
    NodeConfig {
        name: Some(name.parse().unwrap()),
        data_dir: dir.join(name),
        role: Some(role),
        zone: Some("aws".parse().unwrap()),
        listen: Listen {
            fabric: udp(),
            gossip: udp(),
            api: tcp(),
            dns: vec![tcp()],
            workload_api: tcp(),
            socket: dir.join(format!("{name}.sock")),
        },
        timers: Timers { profile: Profile::Local },
        ..NodeConfig::default()
    }
}

/// A node that runs.
struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    socket: PathBuf,
}

impl Running {
    fn start(config: &NodeConfig) -> Self {
        let stop = CancellationToken::new();
        let running = selvedge_node::run(config.clone(), stop.clone());
        let task = tokio::spawn(async move { running.await.inspect_err(|error| eprintln!("{error:#}")) });
        Self { stop, task, socket: config.listen.socket.clone() }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    async fn get(&self, path: &str) -> Value {
        Client::unix(&self.socket).await.get(path).await.json()
    }

    /// Waits until what `path` answers satisfies `condition`.
    async fn until(&self, path: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            assert!(!self.task.is_finished(), "the node ended while waiting: {what}");
            let answer = if tokio::net::UnixStream::connect(&self.socket).await.is_ok() {
                self.get(path).await
            } else {
                Value::Null
            };
            if condition(&answer) {
                return answer;
            }
            assert!(Instant::now() < deadline, "{what}: {answer}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn apply(&self, domain: &str) -> crate::api::client::Got {
        let manifest =
            format!("apiVersion: selvedge/v1\nkind: Domain\nmetadata: {{name: {domain}}}\nspec: {{}}\n");
        let mut client = Client::unix(&self.socket).await;
        client.ask("POST", "/v1/apply", &[("content-type", "application/yaml")], &manifest).await
    }
}

async fn join_token(processor: &Running) -> String {
    let request = TokenRequest::Join {
        role: "workload".to_owned(),
        zone: "aws".to_owned(),
        uses: None,
        ttl_ms: None,
        seeds: Vec::new(),
    };
    let mut client = Client::unix(&processor.socket).await;
    let created = client.post_json("/v1/tokens", serde_json::to_value(request).unwrap()).await.json();
    created["token"].as_str().expect("a token").to_owned()
}

fn found(config: &NodeConfig) {
    selvedge_node::init(&InitOptions {
        fabric: "test".parse().unwrap(),
        node: config.name.clone().unwrap(),
        zone: "aws".parse().unwrap(),
        data_dir: config.data_dir.clone(),
        suffix: "fabric.internal".to_owned(),
        ipv4_pool: "127.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        certificate_lifetime: Duration::from_secs(3600),
    })
    .unwrap();
}

fn alive(members: &Value, name: &str, role: &str) -> bool {
    let members = members.as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().any(|m| m["name"] == name && m["role"] == role && m["state"] == "alive")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_workload_node_follows_the_policy_and_starts_alone_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut processor_config = config(dir.path(), "p1", Role::Processor);
    found(&processor_config);
    let processor = Running::start(&processor_config);
    processor.until("/v1/status", "a founded fabric", |s| s["ready"] == true && s["quorum"] == true).await;
    assert_eq!(processor.apply("first").await.status, 200);

    let token_file = dir.path().join("token");
    std::fs::write(&token_file, join_token(&processor).await).unwrap();
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

    let refused = workload.apply("second").await.problem(422, "refused");
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
    assert_eq!(processor.apply("third").await.status, 200);
    let revision = processor.get("/v1/status").await["revision"].as_u64();
    workload.until("/v1/status", "it follows again", move |s| s["revision"].as_u64() >= revision).await;
    workload.stop().await;
    processor.stop().await;
}
