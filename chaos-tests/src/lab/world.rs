//! A fabric over clouds that all use the same addresses inside, joined by a wide area that delays, loses,
//! reorders and is cut. Processors have public addresses, workload nodes are behind NAT. Needs root, and a
//! thread with [namespaces of its own](super::kernel::Own::Host).

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::MutexGuard,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_lab::{Clouds, Conditions, Host, Reach};
use serde_json::Value;

use super::{
    Finished, PATIENCE, ask_at, binary, eventually, node::die_with_this_thread, run_at, take_turn,
    workload::Workload,
};

/// The clouds of most drills.
pub const THREE_CLOUDS: [&str; 3] = ["aws", "azr", "gcp"];

/// Which node is started, and where.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its cloud, which is its zone.
    pub cloud: &'a str,
    /// Whether it is a processor, reachable from everywhere, or a workload node behind NAT. The first node
    /// founds the fabric and is a processor.
    pub is_processor: bool,
}

/// A fabric in the wide world. Everything of it ends when this value is dropped.
#[derive(Debug)]
pub struct World {
    /// Declared first: processes end before the ground goes.
    nodes: Vec<Node>,
    /// The ground: conditions, cuts, captures.
    pub clouds: Clouds,
    manner: Manner,
    dir: tempfile::TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// What nodes are made for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Everything, over a wide area.
    Far,
    /// Agreement alone, with the times of a data centre.
    Near,
}

#[derive(Debug)]
struct Node {
    host: Host,
    process: Option<Child>,
    /// Another binary than the one under test.
    binary: Option<PathBuf>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Node {
    fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

impl World {
    /// Clouds with these conditions between them, and no node yet.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn new(clouds: &[&str], seed: u64, conditions: Conditions) -> anyhow::Result<Self> {
        Self::made_for(Manner::Far, clouds, seed, conditions)
    }

    /// The same for nodes without an overlay and with the times of a data centre: for what is about
    /// agreement alone.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn near(clouds: &[&str], seed: u64, conditions: Conditions) -> anyhow::Result<Self> {
        Self::made_for(Manner::Near, clouds, seed, conditions)
    }

    /// [`THREE_CLOUDS`] so far apart as other sites are; nothing is lost on the way, so that whatever is lost was lost
    /// by the product. No node yet.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn of_three(seed: u64) -> anyhow::Result<Self> {
        let conditions = Conditions { delay: Duration::from_millis(5), ..Conditions::IDEAL };
        Self::new(&THREE_CLOUDS, seed, conditions)
    }

    /// A processor `CLOUD-1` in each of [`THREE_CLOUDS`], and then a workload node `CLOUD-w`.
    ///
    /// # Errors
    /// When one cannot be started, or does not get ready in time.
    pub fn start_pairs(&mut self) -> anyhow::Result<()> {
        for (number, is_processor) in [("1", true), ("w", false)] {
            for cloud in THREE_CLOUDS {
                self.start(Place { name: &format!("{cloud}-{number}"), cloud, is_processor })?;
            }
        }
        Ok(())
    }

    fn made_for(manner: Manner, clouds: &[&str], seed: u64, conditions: Conditions) -> anyhow::Result<Self> {
        let turn = take_turn();
        let (clouds, dir) = (Clouds::new(clouds, seed, conditions)?, tempfile::tempdir()?);
        Ok(Self { nodes: Vec::new(), clouds, manner, dir, _turn: turn })
    }

    /// Makes a host and starts a node on it. The first one founds the fabric, the others join it by its
    /// public address.
    ///
    /// # Errors
    /// When it cannot be started, or does not get ready in time.
    pub fn start(&mut self, place: Place<'_>) -> anyhow::Result<()> {
        let seed = self.nodes.first().map(|founder| founder.host.name.clone());
        self.start_by(place, seed.as_deref())
    }

    /// The same; it joins by another seed than the founder.
    ///
    /// # Errors
    /// When it cannot be started, or does not get ready in time.
    pub fn start_by(&mut self, place: Place<'_>, seed: Option<&str>) -> anyhow::Result<()> {
        let reach = if place.is_processor { Reach::Public } else { Reach::Behind };
        let host = self.clouds.host(place.cloud, place.name, reach)?;
        let dir = self.dir.path().join(place.name);
        std::fs::create_dir_all(&dir)?;
        let joining = match seed {
            None => {
                let mut init = host.namespace.command(binary::selvedge()?);
                init.args(["fabric", "init", "--name", "world", "--node", place.name, "--zone", place.cloud]);
                let made = init.arg("--data-dir").arg(dir.join("data")).stdin(Stdio::null()).output()?;
                ensure!(made.status.success(), "fabric init: {}", String::from_utf8_lossy(&made.stderr));
                String::new()
            }
            Some(seed) => self.joining(self.host(seed)?, place, &dir)?,
        };
        std::fs::write(dir.join("node.toml"), self.config(place, &host, &joining))?;
        self.nodes.push(Node { host, process: None, binary: None });
        self.launch(place.name)
    }

    /// Kills a node (`kill -9`).
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn kill(&mut self, name: &str) -> anyhow::Result<()> {
        self.node_mut(name)?.kill();
        Ok(())
    }

    /// Asks a node to stop, and waits until it has.
    ///
    /// # Errors
    /// When there is none of that name, it does not run, or does not stop.
    pub fn stop(&mut self, name: &str) -> anyhow::Result<()> {
        let process = &mut self.node_mut(name)?.process;
        let running = process.as_mut().with_context(|| format!("{name} does not run"))?;
        kill_process(Pid::from_child(running), Signal::TERM)?;
        eventually(&format!("{name} does not stop"), PATIENCE, || {
            ensure!(running.try_wait()?.is_some(), "it runs");
            Ok(())
        })?;
        *process = None;
        Ok(())
    }

    /// From its next start on, a node is of another binary than the one under test.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn set_binary(&mut self, name: &str, binary: &Path) -> anyhow::Result<()> {
        self.node_mut(name)?.binary = Some(binary.to_owned());
        Ok(())
    }

    /// Waits until every node that runs takes exactly those for alive that run.
    ///
    /// # Errors
    /// When that does not happen within [`PATIENCE`].
    pub fn settle(&self) -> anyhow::Result<()> {
        let running: Vec<_> = self.nodes.iter().filter(|node| node.process.is_some()).collect();
        eventually("the nodes do not agree", PATIENCE, || {
            for node in &running {
                let members = self.ask(&node.host.name, &["members"])?;
                let members = members.as_array().into_iter().flatten();
                let (alive, others): (Vec<_>, Vec<_>) = members.partition(|m| m["state"] == "alive");
                let others: Vec<_> = others.iter().map(|m| (&m["name"], &m["state"])).collect();
                let runs = running.len();
                ensure!(alive.len() == runs, "{} sees {others:?}; {runs} run", node.host.name);
            }
            Ok(())
        })
        .map(drop)
        .with_context(|| self.logs())
    }

    /// Starts a node that was killed, on what it has.
    ///
    /// # Errors
    /// When there is no such node, or it does not get ready in time.
    pub fn launch(&mut self, name: &str) -> anyhow::Result<()> {
        self.launch_only(name)?;
        eventually(&format!("{name} does not get ready"), PATIENCE, || {
            let status = self.ask(name, &["status"])?;
            ensure!(status["ready"] == true, "{status}");
            Ok(())
        })
        .with_context(|| self.log(name))?;
        Ok(())
    }

    /// The same, without waiting for it to get ready.
    ///
    /// # Errors
    /// When there is no such node, or it cannot be started.
    pub fn launch_only(&mut self, name: &str) -> anyhow::Result<()> {
        let dir = self.dir.path().join(name);
        let log = File::options().append(true).create(true).open(dir.join("log"))?;
        let node = self.node_mut(name)?;
        let binary = node.binary.clone().map_or_else(binary::selvedge, Ok)?;
        let mut command = node.host.namespace.command(binary);
        command.args(["node", "run", "--config"]).arg(dir.join("node.toml"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        die_with_this_thread(&mut command);
        node.process = Some(command.spawn().context("cannot start a node")?);
        Ok(())
    }

    /// Stops a node in the middle of what it does (SIGSTOP), or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&mut self, name: &str, paused: bool) -> anyhow::Result<()> {
        let node = self.node_mut(name)?;
        let process = node.process.as_ref().with_context(|| format!("{name} does not run"))?;
        let signal = if paused { Signal::STOP } else { Signal::CONT };
        Ok(kill_process(Pid::from_child(process), signal)?)
    }

    /// Forgets a node whose process ends now and does not come back. Its host goes with it.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn forget(&mut self, name: &str) -> anyhow::Result<()> {
        let at = self.nodes.iter().position(|node| node.host.name == name);
        drop(self.nodes.remove(at.with_context(|| format!("there is no node {name}"))?));
        Ok(())
    }

    /// Seed and token of a node that joins.
    fn joining(&self, seed: &Host, place: Place<'_>, dir: &Path) -> anyhow::Result<String> {
        let role = role(place);
        let words = ["token", "join", "--role", role, "--zone", place.cloud, "--uses", "1", "--ttl", "1h"];
        let mut token = Value::Null;
        // A leader may just be wanted.
        eventually("no token is made", PATIENCE, || {
            token = self.ask(&seed.name, &words)?;
            Ok(())
        })?;
        let file = dir.join("join.token");
        std::fs::write(&file, token["token"].as_str().context("no token")?)?;
        let seed = seed.public.context("the seed is not public")?;
        Ok(format!("seeds = [\"{seed}:7401\"]\njoin-token-file = {:?}\n", file.to_string_lossy()))
    }

    /// A processor tells both of its addresses, the one inside first, which is another node's in every
    /// other cloud. A workload node tells what it sees of itself.
    fn config(&self, place: Place<'_>, host: &Host, joining: &str) -> String {
        let advertise = host.public.map_or_else(String::new, |public| {
            let both = |port: u16| format!("[\"{}:{port}\", \"{public}:{port}\"]", host.inside);
            format!("[advertise]\nfabric = {}\ngossip = {}\napi = {}\n", both(7401), both(7400), both(7443))
        });
        let (overlay, profile) = match self.manner {
            Manner::Far => ("auto", "wan"),
            Manner::Near => ("off", "local"),
        };
        format!(
            "name = \"{}\"\nrole = \"{}\"\nzone = \"{}\"\ndata-dir = {:?}\n{joining}\n\
             [listen]\nfabric = \"0.0.0.0:7401\"\ngossip = \"0.0.0.0:7400\"\napi = \"0.0.0.0:7443\"\n\
             dns = [\"127.0.0.1:53\"]\nsocket = {:?}\n\n{advertise}\n[overlay]\nenabled = \"{overlay}\"\n\n\
             [dns]\nhost-view = \"all\"\n\n[timers]\nprofile = \"{profile}\"\n",
            place.name,
            role(place),
            place.cloud,
            self.dir.path().join(place.name).join("data").to_string_lossy(),
            self.socket(place.name).to_string_lossy(),
        )
    }

    /// Runs `selvedge … -o json` against a node; it must succeed.
    ///
    /// # Errors
    /// When it does not, or prints no JSON.
    pub fn ask(&self, name: &str, args: &[&str]) -> anyhow::Result<Value> {
        ask_at(&self.socket(name), args)
    }

    /// Runs `selvedge` against a node, whatever comes of it.
    ///
    /// # Errors
    /// When it cannot be run at all.
    pub fn run(&self, name: &str, args: &[&str]) -> anyhow::Result<Finished> {
        run_at(&self.socket(name), args)
    }

    /// All nodes, in the order in which they were started first.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.host.name.clone()).collect()
    }

    /// The socket of a node's API.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        self.dir.path().join(name).join("api.sock")
    }

    /// The certificate of the fabric's root, as the founder keeps it.
    ///
    /// # Errors
    /// When there is no founder.
    pub fn ca_file(&self) -> anyhow::Result<PathBuf> {
        let founder = self.nodes.first().context("no node runs")?;
        Ok(self.dir.path().join(&founder.host.name).join("data/ca.pem"))
    }

    /// The machine of a node.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn host(&self, name: &str) -> anyhow::Result<&Host> {
        let found = self.nodes.iter().find(|node| node.host.name == name);
        found.map(|node| &node.host).with_context(|| format!("there is no node {name}"))
    }

    fn node_mut(&mut self, name: &str) -> anyhow::Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.host.name == name);
        found.with_context(|| format!("there is no node {name}"))
    }

    /// A new workload, attached to a node as a service.
    ///
    /// # Errors
    /// When it cannot be made or attached.
    pub fn workload(
        &self,
        node: &str,
        name: &str,
        service: &str,
        ports: &[&str],
    ) -> anyhow::Result<Workload> {
        let founder = &self.nodes.first().context("no node runs")?.host.name;
        let token = self.ask(founder, &["token", "service", "--service", service, "--ttl", "1h"])?;
        let token = self.file(&format!("{service}.token"), token["token"].as_str().context("no token")?)?;
        let mut workload = Workload::new(name)?;
        workload.attach(&self.socket(node), service, &token, ports)?;
        Ok(workload)
    }

    /// A file that goes with the world.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// What a node logged.
    #[must_use]
    pub fn log(&self, name: &str) -> String {
        let log = std::fs::read(self.dir.path().join(name).join("log")).unwrap_or_default();
        format!("the log of {name}:\n{}", String::from_utf8_lossy(&log))
    }

    /// What all nodes logged.
    #[must_use]
    pub fn logs(&self) -> String {
        self.nodes.iter().map(|node| self.log(&node.host.name)).collect::<Vec<_>>().join("\n")
    }
}

const fn role(place: Place<'_>) -> &'static str {
    if place.is_processor { "processor" } else { "workload" }
}
