//! Three members of etcd on loopback, with its defaults. Debian: `etcd-server`.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::Process;
use crate::lab::{
    PATIENCE, eventually,
    http::{self, Request, Server},
};

/// How long anything is asked that should answer at once.
const SOON: Duration = Duration::from_secs(1);
const NAMES: [&str; 3] = ["m1", "m2", "m3"];

/// The cluster. It ends with this value.
#[derive(Debug)]
pub struct Etcd {
    /// Declared first: processes end before their directory goes.
    members: [Option<Process>; 3],
    clients: [SocketAddr; 3],
    peers: [SocketAddr; 3],
    dir: tempfile::TempDir,
}

/// A port that nobody has now.
fn free() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

impl Etcd {
    /// Starts it, and waits until it takes writes.
    ///
    /// # Errors
    /// When it cannot be started, or takes none.
    pub fn start() -> anyhow::Result<Self> {
        let (clients, peers) = ([free()?, free()?, free()?], [free()?, free()?, free()?]);
        let mut etcd = Self { members: [None, None, None], clients, peers, dir: tempfile::tempdir()? };
        (0..3).try_for_each(|member| etcd.launch(member))?;
        etcd.settle()?;
        Ok(etcd)
    }

    fn launch(&mut self, member: usize) -> anyhow::Result<()> {
        let name = NAMES[member];
        let (client, peer) =
            (format!("http://{}", self.clients[member]), format!("http://{}", self.peers[member]));
        let cluster = NAMES.iter().zip(self.peers).map(|(name, peer)| format!("{name}=http://{peer}"));
        let mut command = Command::new("etcd");
        command.args(["--name", name, "--data-dir"]).arg(self.dir.path().join(name));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &cluster.collect::<Vec<_>>().join(",")]);
        command.args(["--initial-cluster-state", "new"]);
        let log = File::options().append(true).create(true).open(self.dir.path().join("log"))?;
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.members[member] =
            Some(Process(command.spawn().context("cannot run etcd (Debian: etcd-server)")?));
        Ok(())
    }

    fn post(&self, member: usize, path: &str, body: &Value, patience: Duration) -> Option<Value> {
        let request = Request { method: "POST", path, headers: "", body: &body.to_string() };
        http::ask(Server::Tcp(self.clients[member]), request, patience).success()
    }

    /// Writes through a member; whether that was acknowledged.
    #[must_use]
    pub fn put(&self, member: usize, patience: Duration) -> bool {
        // "drill" and "write", in Base64.
        self.post(member, "/v3/kv/put", &json!({"key": "ZHJpbGw=", "value": "d3JpdGU="}), patience).is_some()
    }

    /// The member that leads.
    ///
    /// # Errors
    /// When none does, or they do not agree.
    pub fn leader(&self) -> anyhow::Result<usize> {
        let mut leads = Vec::new();
        for (member, name) in NAMES.iter().enumerate() {
            let status = self.post(member, "/v3/maintenance/status", &json!({}), SOON);
            let status = status.with_context(|| format!("{name} does not answer"))?;
            if status["leader"] == status["header"]["member_id"] {
                leads.push(member);
            }
        }
        ensure!(leads.len() == 1, "{leads:?} lead");
        Ok(leads[0])
    }

    /// Kills a member (`kill -9`).
    pub fn kill(&mut self, member: usize) {
        self.members[member] = None;
    }

    /// Starts what was killed, and waits until all know one leader and take writes.
    ///
    /// # Errors
    /// When they do not.
    pub fn heal(&mut self) -> anyhow::Result<()> {
        for member in 0..3 {
            if self.members[member].is_none() {
                self.launch(member)?;
            }
        }
        self.settle()
    }

    fn settle(&self) -> anyhow::Result<()> {
        eventually("etcd takes no writes", PATIENCE, || {
            self.leader()?;
            ensure!((0..3).all(|member| self.put(member, SOON)), "a write is refused");
            Ok(())
        })
        .map(drop)
        .with_context(|| std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default())
    }
}
