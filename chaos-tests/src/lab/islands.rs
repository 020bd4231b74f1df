//! Nodes in network namespaces of their own, joined by cables (veth pairs) and nothing else: what is not
//! cabled does not reach each other. Everything is made and removed here; needs root.

use std::{
    collections::BTreeMap,
    fs::File,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::MutexGuard,
};

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::{
    Finished, PATIENCE, ask_at, binary, eventually, node::die_with_this_thread, run_at, take_turn,
    workload::Workload,
};

/// Which node is started, and where.
#[derive(Debug, Clone, Copy)]
pub struct Island<'a> {
    /// Its name, at most five letters.
    pub name: &'a str,
    /// `processor` or `workload`. The first island founds the fabric and is a processor.
    pub role: &'a str,
    /// Its zone.
    pub zone: &'a str,
}

/// A fabric of nodes that reach each other only by cable.
#[derive(Debug)]
pub struct Islands {
    /// Declared first: processes end before the namespaces go.
    nodes: Vec<Running>,
    namespaces: Vec<Namespace>,
    dir: tempfile::TempDir,
    cables: u8,
    /// Of islands whose binary is another than the one under test.
    binaries: BTreeMap<String, PathBuf>,
    _turn: MutexGuard<'static, ()>,
}

#[derive(Debug)]
struct Running {
    name: String,
    process: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[derive(Debug)]
struct Namespace {
    island: String,
    name: String,
    /// Its ends of cables.
    addresses: Vec<Ipv4Addr>,
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = ip(&["netns", "del", &self.name]);
    }
}

impl Islands {
    /// Makes namespaces and cables between pairs of them, and starts nothing.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(names: &[&str], cables: &[(&str, &str)]) -> anyhow::Result<Self> {
        let turn = take_turn();
        let (nodes, namespaces, dir) = (Vec::new(), Vec::new(), tempfile::tempdir()?);
        let binaries = BTreeMap::new();
        let mut islands = Self { nodes, namespaces, dir, cables: 0, binaries, _turn: turn };
        for island in names {
            let name = format!("selvedge-{}-{island}", std::process::id());
            ip(&["netns", "add", &name])?;
            let namespace = Namespace { island: (*island).to_owned(), name, addresses: Vec::new() };
            islands.namespaces.push(namespace);
            islands.ip(island, &["link", "set", "lo", "up"])?;
        }
        for (a, b) in cables {
            islands.cable(a, b)?;
        }
        Ok(islands)
    }

    fn cable(&mut self, a: &str, b: &str) -> anyhow::Result<()> {
        self.cables += 1;
        let ends = [(a, format!("cable{}", self.cables), 1), (b, format!("cable{}", self.cables), 2)];
        let names = [self.namespace(a)?.name.clone(), self.namespace(b)?.name.clone()];
        let (left, right) = (&ends[0].1, &ends[1].1);
        ip(&[
            "link", "add", left, "netns", &names[0], "type", "veth", "peer", "name", right, "netns",
            &names[1],
        ])?;
        for (island, device, host) in &ends {
            // A range for benchmarks of devices (RFC 2544), which nothing else uses.
            let address = Ipv4Addr::new(198, 18, self.cables, *host);
            self.ip(island, &["addr", "add", &format!("{address}/24"), "dev", device])?;
            self.ip(island, &["link", "set", device, "up"])?;
            let namespace = self.namespaces.iter_mut().find(|n| n.island == **island);
            namespace.context("no such island")?.addresses.push(address);
        }
        Ok(())
    }

    /// Starts a node. The first one founds the fabric; others join it by the first cable that they share
    /// with it.
    ///
    /// # Errors
    /// When it cannot be started, or does not answer in time.
    pub fn start(&mut self, island: Island<'_>) -> anyhow::Result<()> {
        let dir = self.dir.path().join(island.name);
        std::fs::create_dir_all(&dir)?;
        let joining = match self.nodes.first() {
            None => {
                let data = dir.join("data");
                let data = data.to_string_lossy();
                let words =
                    ["fabric", "init", "--name", "islands", "--node", island.name, "--zone", island.zone];
                let made = self.selvedge(island.name, &[&words[..], &["--data-dir", &data]].concat())?;
                ensure!(made.status.success(), "fabric init: {}", String::from_utf8_lossy(&made.stderr));
                String::new()
            }
            Some(founder) => self.joining(&founder.name.clone(), island, &dir)?,
        };
        std::fs::write(dir.join("node.toml"), self.config(island, &dir, &joining)?)?;
        self.launch(island.name)
    }

    /// Kills a node (`kill -9`), and starts it again on what it has.
    ///
    /// # Errors
    /// When there is no such node, or it does not come back.
    pub fn kill_and_restart(&mut self, island: &str) -> anyhow::Result<()> {
        let at = self.nodes.iter().position(|node| node.name == island).context("no such node")?;
        // It ends with the value.
        drop(self.nodes.remove(at));
        self.launch(island)
    }

    fn launch(&mut self, island: &str) -> anyhow::Result<()> {
        self.start_again(island)?;
        self.is_ready(island)
    }

    /// From its next start on, a node is of another binary than the one under test.
    pub fn set_binary(&mut self, island: &str, binary: &Path) {
        self.binaries.insert(island.to_owned(), binary.to_owned());
    }

    /// Starts a node on what it has, and does not wait for it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_again(&mut self, island: &str) -> anyhow::Result<()> {
        let dir = self.dir.path().join(island);
        let log = File::options().append(true).create(true).open(dir.join("log"))?;
        let mut command = self.command(island)?;
        command.args(["node", "run", "--config"]).arg(dir.join("node.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        die_with_this_thread(&mut command);
        let process = command.spawn().context("cannot start a node")?;
        self.nodes.push(Running { name: island.to_owned(), process });
        Ok(())
    }

    /// Waits until a node is ready.
    ///
    /// # Errors
    /// When it does not get so.
    pub fn is_ready(&self, island: &str) -> anyhow::Result<()> {
        let ready = eventually(&format!("{island} does not get ready"), PATIENCE, || {
            let status = self.ask(island, &["status"])?;
            ensure!(status["ready"] == true, "{status}");
            Ok(())
        });
        ready.map(drop).with_context(|| self.log(island))
    }

    /// The data directory of a node.
    #[must_use]
    pub fn data(&self, island: &str) -> PathBuf {
        self.dir.path().join(island).join("data")
    }

    /// The address of an island's end of its cable to another.
    ///
    /// # Errors
    /// When there is no such cable.
    pub fn address(&self, island: &str, towards: &str) -> anyhow::Result<Ipv4Addr> {
        let number = self.cable_between(island, towards)?;
        let named = |a: &&Ipv4Addr| format!("cable{}", a.octets()[2]) == number;
        self.namespace(island)?.addresses.iter().find(named).copied().context("no address there")
    }

    /// The address, with the length of its network, that an island has on its end of a cable.
    ///
    /// # Errors
    /// When there is no such cable.
    pub fn address_of(&self, island: &str, cable: &str) -> anyhow::Result<String> {
        let is_of = |a: &&Ipv4Addr| format!("cable{}", a.octets()[2]) == cable;
        let address = self.namespace(island)?.addresses.iter().find(is_of);
        Ok(format!("{}/24", address.with_context(|| format!("{island} has no {cable}"))?))
    }

    /// The name of the interface at `from` of the cable that leads to `to`.
    ///
    /// # Errors
    /// When there is no such cable.
    pub fn cable_between(&self, from: &str, to: &str) -> anyhow::Result<String> {
        let (ours, theirs) = (&self.namespace(from)?.addresses, &self.namespace(to)?.addresses);
        let same = |a: &&Ipv4Addr| theirs.iter().any(|b| a.octets()[..3] == b.octets()[..3]);
        let shared = ours.iter().find(same).with_context(|| format!("no cable from {from} to {to}"))?;
        Ok(format!("cable{}", shared.octets()[2]))
    }

    /// A directory that goes with the islands and that those who are not root get through.
    ///
    /// # Errors
    /// When it cannot be made so.
    pub fn open_dir(&self) -> anyhow::Result<PathBuf> {
        use std::os::unix::fs::PermissionsExt as _;
        let open = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(self.dir.path(), open)?;
        Ok(self.dir.path().to_owned())
    }

    /// Kills a node.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn stop(&mut self, island: &str) -> anyhow::Result<()> {
        let position = self.nodes.iter().position(|node| node.name == island);
        drop(self.nodes.remove(position.with_context(|| format!("{island} does not run"))?));
        Ok(())
    }

    /// Seeds and token of a node that joins.
    fn joining(&self, founder: &str, island: Island<'_>, dir: &Path) -> anyhow::Result<String> {
        let words =
            ["token", "join", "--role", island.role, "--zone", island.zone, "--uses", "1", "--ttl", "1h"];
        let token = self.ask(founder, &words)?;
        let file = dir.join("join.token");
        std::fs::write(&file, token["token"].as_str().context("no token")?)?;
        let mine = &self.namespace(island.name)?.addresses;
        let theirs = &self.namespace(founder)?.addresses;
        let shared = |a: &Ipv4Addr| mine.iter().any(|b| a.octets()[..3] == b.octets()[..3]);
        let seed = theirs.iter().find(|a| shared(a)).context("no cable to the founder")?;
        Ok(format!("seeds = [\"{seed}:7401\"]\njoin-token-file = {:?}\n", file.to_string_lossy()))
    }

    fn config(&self, island: Island<'_>, dir: &Path, joining: &str) -> anyhow::Result<String> {
        let addresses = &self.namespace(island.name)?.addresses;
        let all = |port: u16| {
            addresses.iter().map(|address| format!("\"{address}:{port}\"")).collect::<Vec<_>>().join(", ")
        };
        Ok(format!(
            "name = \"{}\"\nrole = \"{}\"\nzone = \"{}\"\ndata-dir = {:?}\n{joining}\n\
             [listen]\nfabric = \"0.0.0.0:7401\"\ngossip = \"0.0.0.0:7400\"\napi = \"0.0.0.0:7443\"\n\
             dns = [\"127.0.0.1:53\"]\nsocket = {:?}\n\n\
             [advertise]\nfabric = [{}]\ngossip = [{}]\n\n[overlay]\nenabled = \"auto\"\n\n\
             [timers]\nprofile = \"local\"\n",
            island.name,
            island.role,
            island.zone,
            dir.join("data").to_string_lossy(),
            self.socket(island.name).to_string_lossy(),
            all(7401),
            all(7400),
        ))
    }

    /// Runs `selvedge … -o json` against a node; it must succeed.
    ///
    /// # Errors
    /// When it does not, or prints no JSON.
    pub fn ask(&self, island: &str, args: &[&str]) -> anyhow::Result<Value> {
        ask_at(&self.socket(island), args)
    }

    /// Runs `selvedge` against a node, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn run(&self, island: &str, args: &[&str]) -> anyhow::Result<Finished> {
        run_at(&self.socket(island), args)
    }

    /// The socket of a node's API.
    #[must_use]
    pub fn socket(&self, island: &str) -> PathBuf {
        self.dir.path().join(island).join("api.sock")
    }

    /// The path of a file with a new token of a service.
    ///
    /// # Errors
    /// When the founder does not make one.
    pub fn service_token(&self, service: &str) -> anyhow::Result<String> {
        let founder = self.nodes.first().context("no island runs")?;
        let token = self.ask(&founder.name, &["token", "service", "--service", service, "--ttl", "1h"])?;
        self.file(&format!("{service}.token"), token["token"].as_str().context("no token")?)
    }

    /// A new workload, attached to a node as a service.
    ///
    /// # Errors
    /// When it cannot be made or attached.
    pub fn workload(
        &self,
        island: &str,
        name: &str,
        service: &str,
        ports: &[&str],
    ) -> anyhow::Result<Workload> {
        let token = self.service_token(service)?;
        let mut workload = Workload::new(name)?;
        workload.attach(&self.socket(island), service, token.as_ref(), ports)?;
        Ok(workload)
    }

    /// A file that goes with the islands.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> anyhow::Result<String> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path.to_string_lossy().into_owned())
    }

    /// Runs `ip` inside an island's namespace.
    ///
    /// # Errors
    /// When it fails.
    pub fn ip(&self, island: &str, args: &[&str]) -> anyhow::Result<()> {
        ip(&[&["-n", &self.namespace(island)?.name], args].concat())
    }

    /// Runs a program inside an island's namespace and returns how it ended and what it printed.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn exec(&self, island: &str, words: &[&str]) -> anyhow::Result<std::process::Output> {
        let name = &self.namespace(island)?.name;
        Ok(Command::new("ip").args(["netns", "exec", name]).args(words).stdin(Stdio::null()).output()?)
    }

    /// Does something on a thread inside an island's namespace.
    ///
    /// # Errors
    /// Those of what is done, or when the namespace cannot be entered.
    pub fn within<T: Send>(
        &self,
        island: &str,
        act: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let place = File::open(Path::new("/run/netns").join(&self.namespace(island)?.name))?;
        // Namespaces belong to threads: this one ends with what is done.
        let entered = || {
            use std::os::fd::AsFd as _;
            move_into_link_name_space(place.as_fd(), Some(LinkNameSpaceType::Network))?;
            act()
        };
        let ended = std::thread::scope(|scope| scope.spawn(entered).join());
        ended.map_err(|_| anyhow::anyhow!("it panicked"))?
    }

    /// What a node logged.
    #[must_use]
    pub fn log(&self, island: &str) -> String {
        let log = std::fs::read(self.dir.path().join(island).join("log")).unwrap_or_default();
        format!("the log of {island}:\n{}", String::from_utf8_lossy(&log))
    }

    fn namespace(&self, island: &str) -> anyhow::Result<&Namespace> {
        self.namespaces.iter().find(|n| n.island == island).with_context(|| format!("no island {island}"))
    }

    /// The binary under test, inside an island's network and in no mounts of its own, so that what it pins
    /// outlives it. `nsenter` replaces itself by it, so the process is its own.
    fn command(&self, island: &str) -> anyhow::Result<Command> {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.namespace(island)?.name)).arg("--");
        command.arg(self.binaries.get(island).cloned().map_or_else(binary::selvedge, Ok)?);
        Ok(command)
    }

    fn selvedge(&self, island: &str, args: &[&str]) -> anyhow::Result<std::process::Output> {
        Ok(self.command(island)?.args(args).stdin(Stdio::null()).output()?)
    }
}

fn ip(args: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(args).output().context("cannot run ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {}: {}", args.join(" "), said.trim());
    Ok(())
}
