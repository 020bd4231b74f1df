//! Whole nodes, in this process.

use std::{
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use selvedge_fabric::command::Role;
use selvedge_node::{
    InitOptions, NodeConfig,
    config::{Listen, Profile, Timers},
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::client::Client;

/// Long enough for a machine that does much else.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn udp() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn tcp() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A node of its own directory below `dir`, on free ports of the loopback device.
pub(crate) fn config(dir: &Path, name: &str, role: Role) -> NodeConfig {
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
        timers: Timers { profile: Profile::Local, ..Timers::default() },
        ..NodeConfig::default()
    }
}

/// The first processor of a new fabric, below `dir`.
pub(crate) fn found(dir: &Path, name: &str) -> NodeConfig {
    let config = config(dir, name, Role::Processor);
    selvedge_node::init(&InitOptions {
        fabric: "test".parse().unwrap(),
        node: name.parse().unwrap(),
        zone: "aws".parse().unwrap(),
        data_dir: config.data_dir.clone(),
        suffix: "fabric.internal".to_owned(),
        ipv4_pool: "127.64.0.0/10".to_owned(),
        ipv4_block_len: 24,
        certificate_lifetime: Duration::from_secs(24 * 3_600),
    })
    .unwrap();
    config
}

/// A node that runs.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<anyhow::Result<()>>,
    pub(crate) socket: PathBuf,
}

impl Running {
    pub(crate) fn start(config: &NodeConfig) -> Self {
        let stop = CancellationToken::new();
        let running = selvedge_node::run(config.clone(), stop.clone());
        let task = tokio::spawn(async move { running.await.inspect_err(|error| eprintln!("{error:#}")) });
        Self { stop, task, socket: config.listen.socket.clone() }
    }

    /// Starts the first processor of a fabric and waits until its first command is committed.
    pub(crate) async fn founder(config: &NodeConfig) -> Self {
        let founder = Self::start(config);
        founder.until("/v1/status", "a founded fabric", |s| s["ready"] == true && s["quorum"] == true).await;
        founder
    }

    pub(crate) async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap().unwrap();
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        Client::unix(&self.socket).await.get(path).await.json()
    }

    /// Makes a token; returns its text.
    pub(crate) async fn token(&self, request: Value) -> String {
        let created = Client::unix(&self.socket).await.post_json("/v1/tokens", request).await.json();
        created["token"].as_str().unwrap_or_else(|| panic!("{created}")).to_owned()
    }

    /// Waits until what `path` answers satisfies `condition`.
    pub(crate) async fn until(&self, path: &str, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
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

    /// Whether there is an event `code` of `severity` with these words.
    pub(crate) async fn told(&self, severity: &str, code: &str, words: &str) -> bool {
        let events = self.get("/v1/events").await;
        events.as_array().unwrap().iter().any(|e| {
            e["code"] == code && e["severity"] == severity && e["message"].as_str().unwrap().contains(words)
        })
    }
}
