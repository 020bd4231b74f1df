//! A fabric of one node on a host of its own, for what happens within one host.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
    sync::MutexGuard,
};

use anyhow::{Context as _, ensure};

use super::{LabNode, PATIENCE, ask, binary, eventually, take_turn, workload::Workload};

/// Where the node's ports are; the host is its own, so nobody else has them.
const PORTS: [(&str, u16); 5] =
    [("fabric", 7401), ("gossip", 7400), ("api", 7443), ("dns", 53), ("workload-api", 5500)];

/// A fabric of one processor. It ends when this value is dropped.
#[derive(Debug)]
pub struct Founder {
    /// The node.
    pub node: LabNode,
    _dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Founder {
    /// Makes a fabric with real packets, and starts its only node. `more` is appended to its configuration.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(more: &str) -> anyhow::Result<Self> {
        Self::start_in(tempfile::tempdir()?, more)
    }

    /// The same, with everything of the node under a directory that is there.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_in(dir: tempfile::TempDir, more: &str) -> anyhow::Result<Self> {
        Self::start_with(dir, more, &[])
    }

    /// The same, with more arguments to `fabric init`.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start_with(dir: tempfile::TempDir, more: &str, init: &[&str]) -> anyhow::Result<Self> {
        let turn = take_turn();
        let place = dir.path().join("n1");
        fs::create_dir_all(&place)?;
        let data = place.join("data");
        let init = Command::new(binary::selvedge()?)
            .args(["fabric", "init", "--name", "lab", "--node", "n1", "--zone", "aws", "--data-dir"])
            .arg(&data)
            .args(init)
            .output()?;
        ensure!(init.status.success(), "fabric init: {}", String::from_utf8_lossy(&init.stderr));
        fs::write(place.join("node.toml"), config(&place, &data, more))?;
        let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        let mut node = LabNode::new("n1", "aws", "processor", place, dns);
        node.restart()?;
        let this = Self { node, _dir: dir, _turn: turn };
        this.is_ready()?;
        Ok(this)
    }

    /// Waits until the node is ready.
    ///
    /// # Errors
    /// When it does not get so.
    pub fn is_ready(&self) -> anyhow::Result<()> {
        let ready = eventually("the node is not ready", PATIENCE, || {
            let status = ask(&self.node, &["status"])?;
            ensure!(status["ready"] == true, "{status}");
            Ok(())
        });
        ready.map(drop).with_context(|| self.node.log_tail())
    }

    /// Applies manifests and waits until they are enforced.
    ///
    /// # Errors
    /// When they are not.
    pub fn apply(&self, manifests: &str) -> anyhow::Result<()> {
        let file = self.file("graph.yaml", manifests)?;
        ask(&self.node, &["apply", "-f", &file.to_string_lossy(), "--wait"]).map(drop)
    }

    /// A file with a new service token.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn service_token(&self, service: &str) -> anyhow::Result<PathBuf> {
        let token = ask(&self.node, &["token", "service", "--service", service])?;
        self.file(&format!("{service}.token"), token["token"].as_str().context("a token")?)
    }

    /// A new workload, attached to the node as a service.
    ///
    /// # Errors
    /// When it cannot be made or attached.
    pub fn workload(&self, name: &str, service: &str, ports: &[&str]) -> anyhow::Result<Workload> {
        let token = self.service_token(service)?;
        let mut workload = Workload::new(name)?;
        workload.attach(&self.node.socket, service, &token, ports)?;
        Ok(workload)
    }

    /// Writes a file beside the node's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.node.dir.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

fn config(place: &Path, data: &Path, more: &str) -> String {
    let mut text = format!("name = \"n1\"\ndata-dir = {data:?}\n\n[listen]\n");
    for (name, port) in PORTS {
        let address = format!("\"127.0.0.1:{port}\"");
        let value = if name == "dns" { format!("[{address}]") } else { address };
        text += &format!("{name} = {value}\n");
    }
    text + &format!("socket = {:?}\n\n[packets]\nmode = \"required\"\n{more}\n", place.join("api.sock"))
}
