//! The configuration of a node: typed, with documented defaults, printed at start.
//!
//! It says where this node is and where it listens. It holds no policy: everything that decides who
//! may talk to whom is agreed by the fabric.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::RangeInclusive,
    path::{Path, PathBuf},
    time::Duration,
};

use selvedge_dns::HostView;
use selvedge_fabric::{
    command::Role,
    id::{NodeName, ZoneName},
};
use serde::{Deserialize, Serialize};

/// Shortest certificate lifetime that is accepted; tests use seconds, production days.
pub const MIN_CERTIFICATE_LIFETIME: Duration = Duration::from_secs(5);
/// Below a second a voter would lose its seat for nothing, above a month it would keep it for nothing.
const DEAD_VOTER: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(30 * 24 * 3600);

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is no valid configuration.
    #[error("configuration {path}: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("configuration: {field}: {problem}")]
    Value {
        /// The field.
        field: &'static str,
        /// What is wrong, and what to write instead.
        problem: String,
    },
}

/// The configuration of a node, as its TOML file has it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct NodeConfig {
    /// Name of the node; the host name, when absent.
    #[serde(default)]
    pub name: Option<NodeName>,
    /// Where keys, the log and the last known facts are kept. Mode 0700.
    #[serde(default = "default_data_dir")]
    pub data_dir: PathBuf,
    /// What the node does. Only needed to join.
    #[serde(default)]
    pub role: Option<Role>,
    /// Where the node is. Only needed to join.
    #[serde(default)]
    pub zone: Option<ZoneName>,
    /// Fabric addresses (`host:port`) of nodes to join through; those of the join token, when empty.
    #[serde(default)]
    pub seeds: Vec<String>,
    /// File with the join token. Only needed to join.
    #[serde(default)]
    pub join_token_file: Option<PathBuf>,
    /// Where the node listens.
    #[serde(default)]
    pub listen: Listen,
    /// What the node tells others to reach it by.
    #[serde(default)]
    pub advertise: Advertise,
    /// The embedded DNS.
    #[serde(default)]
    pub dns: DnsConfig,
    /// Packets between nodes.
    #[serde(default)]
    pub overlay: OverlayConfig,
    /// Packets of workloads.
    #[serde(default)]
    pub packets: PacketsConfig,
    /// Time-outs.
    #[serde(default)]
    pub timers: Timers,
    /// Certificates.
    #[serde(default)]
    pub certificates: Certificates,
    /// Exercises.
    #[serde(default)]
    pub drills: Drills,
    /// Keep the identity although the machine changed. Said once on the command line, never in a file.
    #[serde(skip)]
    pub accept_new_host: bool,
}

/// Where the node listens.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Listen {
    /// UDP: join, Raft, probes, links.
    pub fabric: SocketAddr,
    /// UDP: gossip.
    pub gossip: SocketAddr,
    /// TCP with TLS: the API.
    pub api: SocketAddr,
    /// UDP and TCP: the DNS. Loopback and overlay addresses only.
    pub dns: Vec<SocketAddr>,
    /// TCP: the workload API. Loopback only.
    pub workload_api: SocketAddr,
    /// The local API socket, protected by its file mode.
    pub socket: PathBuf,
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            fabric: any(7401),
            gossip: any(7400),
            api: any(7443),
            dns: vec![local(53)],
            workload_api: local(5500),
            socket: PathBuf::from("/run/selvedge/api.sock"),
        }
    }
}

/// What the node tells others to reach it by. Empty lists stand for the listening addresses, or for
/// the address of the interface that leads to the seeds when a listening address is unspecified.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Advertise {
    /// For the fabric port.
    pub fabric: Vec<SocketAddr>,
    /// For gossip.
    pub gossip: Vec<SocketAddr>,
    /// For the API.
    pub api: Vec<SocketAddr>,
}

/// The embedded DNS.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct DnsConfig {
    /// What queries from the host itself may see: `none`, `all`, or one service's view.
    #[serde(with = "text")]
    pub host_view: HostView,
    /// Where other names are forwarded to; refused, when empty.
    pub upstreams: Vec<SocketAddr>,
    /// UDP workers.
    pub workers: usize,
}

impl Default for DnsConfig {
    fn default() -> Self {
        Self { host_view: HostView::None, upstreams: Vec::new(), workers: 2 }
    }
}

/// Packets between nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct OverlayConfig {
    /// Whether this node sends, takes and carries packets.
    pub enabled: Enabled,
    /// Name of the TUN device.
    pub tun: String,
    /// Largest packet of the overlay, bytes. The default passes every underlay without being found out
    /// first; a larger one passes too, in two datagrams where the underlay is narrow.
    pub mtu: u16,
    /// Whether direct links to nodes with which there is traffic are tried; otherwise packets go over
    /// processors.
    pub direct: bool,
}

impl Default for OverlayConfig {
    fn default() -> Self {
        Self { enabled: Enabled::Auto, tun: "selvedge0".to_owned(), mtu: 1_280, direct: true }
    }
}

/// Whether a part that needs root is used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Enabled {
    /// Where the system allows it; told when it does not.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// Packets of workloads.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PacketsConfig {
    /// Whether they are decided on this node: `auto`, `off` or `required`.
    pub mode: PacketsMode,
    /// UDP and TCP port of the DNS at the gateway of workloads.
    pub dns_port: u16,
}

impl Default for PacketsConfig {
    fn default() -> Self {
        Self { mode: PacketsMode::default(), dns_port: 53 }
    }
}

/// Whether packets are decided.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PacketsMode {
    /// When the node may load eBPF programs. Otherwise nothing can be attached, and services are found
    /// but not enforced.
    #[default]
    Auto,
    /// Never.
    Off,
    /// Always; a node that cannot does not start.
    Required,
}

/// Time-outs of elections and failure detection.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Timers {
    /// Starting values, before round trips are measured.
    pub profile: Profile,
    /// A voter that is down for longer loses its seat to another processor of its cloud, or of a cloud
    /// without a voter: 1 s to 30 days. Longer than a restart of its machine, if that happens often.
    #[serde(with = "humantime_text")]
    pub dead_voter: Duration,
}

impl Default for Timers {
    fn default() -> Self {
        Self { profile: Profile::default(), dead_voter: selvedge_consensus::Timers::default().dead_voter }
    }
}

/// Starting values of time-outs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// One machine.
    Local,
    /// One site.
    #[default]
    Lan,
    /// Between clouds.
    Wan,
}

/// Certificates of nodes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Certificates {
    /// Lifetime of the certificates that this processor issues. Renewed after two thirds of it.
    #[serde(with = "humantime_text")]
    pub lifetime: Duration,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(7 * 24 * 3600) }
    }
}

/// Exercises.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Drills {
    /// Whether whoever has admin rights may isolate this node for a drill.
    pub allow: bool,
}

fn default_data_dir() -> PathBuf {
    PathBuf::from("/var/lib/selvedge")
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            name: None,
            data_dir: default_data_dir(),
            role: None,
            zone: None,
            seeds: Vec::new(),
            join_token_file: None,
            listen: Listen::default(),
            advertise: Advertise::default(),
            dns: DnsConfig::default(),
            overlay: OverlayConfig::default(),
            packets: PacketsConfig::default(),
            timers: Timers::default(),
            certificates: Certificates::default(),
            drills: Drills::default(),
            accept_new_host: false,
        }
    }
}

impl NodeConfig {
    /// Reads and checks a TOML file. Relative paths in it are relative to the working directory.
    ///
    /// # Errors
    /// When it cannot be read, is malformed (with line and column), or a value makes no sense.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let config: Self = toml::from_str(&text)
            .map_err(|e| ConfigError::Parse { path: path.to_owned(), source: Box::new(e) })?;
        config.check()?;
        Ok(config)
    }

    /// The configuration as TOML, to be printed at start. It holds no secret.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string_pretty(self).unwrap_or_else(|e| format!("# cannot be shown: {e}\n"))
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), ConfigError> {
        let value = |field, problem: &str| Err(ConfigError::Value { field, problem: problem.to_owned() });
        if self.certificates.lifetime < MIN_CERTIFICATE_LIFETIME {
            return value("certificates.lifetime", "must be at least 5s");
        }
        if !DEAD_VOTER.contains(&self.timers.dead_voter) {
            return value("timers.dead-voter", "must be 1s to 30days");
        }
        if !self.listen.workload_api.ip().is_loopback() {
            return value(
                "listen.workload-api",
                "callers are known by their address: use a loopback address",
            );
        }
        if self.listen.dns.iter().any(|a| a.ip().is_unspecified()) {
            return value("listen.dns", "would answer strangers: name loopback or overlay addresses");
        }
        // IPv6 needs the one (RFC 8200, section 5), two datagrams of the narrowest underlay hold the other.
        if !(1_280..=2_000).contains(&self.overlay.mtu) {
            return value("overlay.mtu", "must be 1280 to 2000");
        }
        let tun = &self.overlay.tun;
        if tun.is_empty() || tun.len() > 15 || !tun.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-') {
            return value("overlay.tun", "must be 1 to 15 letters, digits or '-'");
        }
        if self.dns.workers == 0 || self.dns.workers > 64 {
            return value("dns.workers", "must be 1 to 64");
        }
        // sockaddr_un holds 108 bytes, and a client may prefix a directory.
        if self.listen.socket.as_os_str().len() > 100 {
            return value(
                "listen.socket",
                "a Unix socket path may have at most 100 bytes: use a shorter directory",
            );
        }
        Ok(())
    }

    /// The node's name: the configured one, or the host name's first label.
    ///
    /// # Errors
    /// When the host name is no valid node name.
    pub fn node_name(&self) -> Result<NodeName, ConfigError> {
        if let Some(name) = &self.name {
            return Ok(name.clone());
        }
        let host = crate::identity::host_name();
        let label = host.split('.').next().unwrap_or_default().to_ascii_lowercase();
        NodeName::new(&label).map_err(|e| ConfigError::Value {
            field: "name",
            problem: format!("the host name is no node name ({e}): set one"),
        })
    }
}

/// What to tell others for a socket that listens at `bound`.
#[must_use]
pub fn advertised(configured: &[SocketAddr], bound: SocketAddr, outward: Option<IpAddr>) -> Vec<SocketAddr> {
    if !configured.is_empty() {
        return configured.to_vec();
    }
    if !bound.ip().is_unspecified() {
        return vec![bound];
    }
    outward.map(|ip| SocketAddr::new(ip, bound.port())).into_iter().collect()
}

/// Values by way of their text form.
mod text {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer, T: Display>(value: &T, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T>(d: D) -> Result<T, D::Error>
    where
        T: FromStr,
        T::Err: Display,
    {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// Durations as text such as `7d`.
mod humantime_text {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(value: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        humantime::parse_duration(&String::deserialize(d)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_pass_and_survive_a_round_trip() {
        let config = NodeConfig::default();
        config.check().expect("the defaults make sense");
        let again: NodeConfig = toml::from_str(&config.to_toml()).expect("what we print can be read");
        assert_eq!(again.listen.fabric, config.listen.fabric);
        assert_eq!(again.certificates.lifetime, config.certificates.lifetime);
    }

    /// Who writes the file may run the node, so this is about errors that can be read, and no panic.
    #[test]
    fn any_text_is_a_configuration_or_an_error() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/node");
        let files = std::fs::read_dir(dir).expect("configurations").map(|file| file.expect("a file").path());
        let mut seeds: Vec<_> = files.map(|path| std::fs::read(path).expect("a file")).collect();
        seeds.push(NodeConfig::default().to_toml().into_bytes());
        selvedge_fuzz::fuzz("configuration", &seeds, |bytes| {
            let Ok(text) = std::str::from_utf8(bytes) else { return };
            match toml::from_str::<NodeConfig>(text) {
                Ok(config) if config.check().is_ok() => {
                    let printed = config.to_toml();
                    let again: NodeConfig = toml::from_str(&printed).expect("what we print can be read");
                    assert_eq!(again.to_toml(), printed);
                }
                Ok(_) => {}
                Err(error) => assert!(!error.to_string().is_empty()),
            }
        });
    }

    #[test]
    fn shipped_configurations_can_be_used() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/node");
        let mut read = 0;
        for entry in std::fs::read_dir(dir).expect("the samples are there") {
            NodeConfig::load(&entry.expect("a file").path()).expect("a sample that works");
            read += 1;
        }
        assert!(read >= 2);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let error = toml::from_str::<NodeConfig>("nmae = \"a\"").expect_err("an unknown field");
        assert!(error.to_string().contains("nmae"), "{error}");
        let open = NodeConfig {
            listen: Listen { dns: vec!["0.0.0.0:53".parse().expect("an address")], ..Listen::default() },
            ..NodeConfig::default()
        };
        assert!(open.check().expect_err("an open resolver").to_string().contains("listen.dns"));
    }
}
