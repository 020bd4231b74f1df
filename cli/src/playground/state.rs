//! What a playground tells about itself: the line it prints when it is ready, which is also the file
//! `playground.json` by which drills find it.

use std::{
    fs,
    net::{IpAddr, SocketAddr},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::{Context as _, bail};
use rustix::process::geteuid;
use serde::{Deserialize, Serialize};

use crate::drill::ground::Door;

/// Name of the state file in a playground's directory.
const STATE_FILE: &str = "playground.json";

/// A running playground.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// Everything of it is up.
    pub(crate) ready: bool,
    pub(crate) suffix: String,
    pub(crate) nodes: Vec<NodeInfo>,
    /// Its endpoints; none before it is ready.
    #[serde(default)]
    pub(crate) endpoints: Vec<EndpointInfo>,
    /// What it does without; nothing with real packets.
    #[serde(default)]
    pub(crate) without: Option<String>,
    /// Names of the contracts of its graphs, without the suffix.
    pub(crate) contracts: Vec<String>,
    /// Who uses these contracts.
    #[serde(default)]
    pub(crate) uses: Vec<Use>,
    /// Where drills ask for what they break; nothing before it is ready.
    #[serde(default)]
    pub(crate) control: PathBuf,
    pub(crate) dir: PathBuf,
    /// The playground's own process.
    pub(crate) pid: u32,
}

/// A contract with its players.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Use {
    /// Its name, without the suffix.
    pub(crate) contract: String,
    pub(crate) clients: Vec<String>,
    pub(crate) servers: Vec<String>,
    pub(crate) ports: Vec<u16>,
}

/// A node of a playground.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NodeInfo {
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) role: String,
    pub(crate) pid: u32,
    pub(crate) socket: PathBuf,
    pub(crate) api: String,
    pub(crate) dns: SocketAddr,
}

/// An endpoint of a playground.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct EndpointInfo {
    pub(crate) id: String,
    pub(crate) service: String,
    pub(crate) node: String,
    pub(crate) addresses: Vec<IpAddr>,
    /// The ports that it serves.
    #[serde(default)]
    pub(crate) ports: Vec<u16>,
    /// The network of its own that it lives in, with real packets.
    pub(crate) network: Option<NetworkInfo>,
}

/// The network of an endpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NetworkInfo {
    /// The network namespace.
    pub(crate) netns: PathBuf,
    /// The resolv.conf(5) for programs in it.
    pub(crate) resolv_conf: PathBuf,
}

impl NodeInfo {
    /// Whether it takes part in agreement: only such nodes accept writes.
    pub(crate) fn is_processor(&self) -> bool {
        self.role == "processor"
    }

    /// Where its API is reached.
    pub(crate) fn door(&self) -> Door {
        Door::Socket(self.socket.clone())
    }

    /// The cloud it lies in: the first part of its zone.
    pub(crate) fn cloud(&self) -> &str {
        self.zone.split('/').next().unwrap_or_default()
    }
}

impl State {
    /// Writes the state file into its directory, at once and whole.
    pub(crate) fn save(&self) -> anyhow::Result<()> {
        let (file, draft) = (self.dir.join(STATE_FILE), self.dir.join("playground.json.new"));
        let text = serde_json::to_vec_pretty(self)?;
        fs::write(&draft, text)
            .and_then(|()| fs::rename(&draft, &file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    /// Reads the state file of `dir`; nothing when there is none.
    pub(crate) fn load(dir: &Path) -> anyhow::Result<Option<Self>> {
        let file = dir.join(STATE_FILE);
        match fs::read(&file) {
            Ok(text) => {
                let parsed = serde_json::from_slice(&text);
                parsed.map(Some).with_context(|| format!("{} is not a playground's state", file.display()))
            }
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    /// Whether its process still runs.
    pub(crate) fn is_running(&self) -> bool {
        is_process(self.pid, "playground")
    }

    /// The running playground in `dir`, or the one of this user that was ready last.
    pub(crate) fn find(dir: Option<&Path>) -> anyhow::Result<Self> {
        let Some(dir) = dir else { return Self::latest() };
        match Self::load(dir)? {
            Some(state) if state.is_running() => Ok(state),
            _ => {
                bail!("no playground is running in {}; start one: selvedge playground --dir D", dir.display())
            }
        }
    }

    fn latest() -> anyhow::Result<Self> {
        let mut signs: Vec<_> = fs::read_dir(runtime_dir())
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|sign| Some((sign.metadata().ok()?.modified().ok()?, sign.path())))
            .collect();
        signs.sort_by_key(|(made, _): &(SystemTime, _)| std::cmp::Reverse(*made));
        let running = |sign: &PathBuf| {
            let dir = fs::read_to_string(sign).ok()?;
            Self::load(Path::new(&dir)).ok()?.filter(Self::is_running)
        };
        signs.iter().find_map(|(_, sign)| running(sign)).context(
            "no playground of this user is running; start one in another terminal: selvedge playground",
        )
    }
}

/// A sign in the user's runtime directory that a playground is there; gone with this value.
#[derive(Debug)]
pub(crate) struct Sign(PathBuf);

impl Sign {
    /// Puts up a sign for the playground in `dir`.
    pub(crate) fn put_up(dir: &Path) -> anyhow::Result<Self> {
        let runtime = runtime_dir();
        let make = || -> anyhow::Result<Self> {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&runtime)?;
            let meta = fs::symlink_metadata(&runtime)?;
            // In a shared /tmp somebody else may have been there first.
            if !meta.is_dir() || meta.uid() != geteuid().as_raw() || meta.permissions().mode() & 0o022 != 0 {
                bail!("it is not a directory of this user alone");
            }
            let sign = runtime.join(std::process::id().to_string());
            fs::write(&sign, dir.as_os_str().as_encoded_bytes())?;
            Ok(Self(sign))
        };
        make().with_context(|| format!("cannot use {}", runtime.display()))
    }
}

impl Drop for Sign {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        // Goes only when this was the last playground.
        let _ = fs::remove_dir(runtime_dir());
    }
}

fn runtime_dir() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir()) {
        Some(dir) => dir.join("selvedge-playgrounds"),
        None => std::env::temp_dir().join(format!("selvedge-playgrounds-{}", geteuid().as_raw())),
    }
}

/// Whether process `pid` runs with `argument` on its command line. Process ids are used again, so that
/// one alone says little.
pub(crate) fn is_process(pid: u32, argument: &str) -> bool {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|&byte| byte == 0).any(|word| word == argument.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(dir: &Path) -> State {
        let node = NodeInfo {
            name: "aws-p1".into(),
            zone: "aws/us-1".into(),
            role: "processor".into(),
            pid: 7,
            socket: dir.join("aws-p1/api.sock"),
            api: "https://127.0.0.1:20490".into(),
            dns: "127.0.0.1:20491".parse().expect("an address"),
        };
        State {
            ready: true,
            suffix: "fabric.internal".into(),
            nodes: vec![node],
            endpoints: Vec::new(),
            without: None,
            contracts: vec!["voting-frontend.voting-app".into()],
            uses: Vec::new(),
            control: PathBuf::new(),
            dir: dir.to_owned(),
            pid: u32::MAX,
        }
    }

    #[test]
    fn a_saved_state_is_read_again() {
        let dir = tempfile::tempdir().expect("a directory");
        assert!(State::load(dir.path()).expect("readable").is_none());
        state(dir.path()).save().expect("saved");
        let loaded = State::load(dir.path()).expect("readable").expect("there");
        assert_eq!((loaded.nodes[0].name.as_str(), loaded.nodes[0].cloud()), ("aws-p1", "aws"));
        fs::write(dir.path().join(STATE_FILE), "{}").expect("written");
        assert!(State::load(dir.path()).is_err());
    }

    #[test]
    fn the_ready_line_has_the_promised_fields() {
        let line = serde_json::to_value(state(Path::new("/tmp/d"))).expect("JSON");
        assert_eq!(line["ready"], true);
        assert_eq!(line["suffix"], "fabric.internal");
        for field in ["name", "zone", "role", "pid", "socket", "api", "dns"] {
            assert!(!line["nodes"][0][field].is_null(), "{field}");
        }
        assert_eq!(line["nodes"][0]["dns"], "127.0.0.1:20491");
    }

    #[test]
    fn a_playground_that_ended_is_not_found() {
        let dir = tempfile::tempdir().expect("a directory");
        state(dir.path()).save().expect("saved");
        let error = State::find(Some(dir.path())).expect_err("not running");
        assert!(error.to_string().contains("selvedge playground"), "{error:#}");
        let program = std::env::args().next().expect("a program");
        assert!(is_process(std::process::id(), &program));
        assert!(!is_process(std::process::id(), "no such argument"));
    }
}
