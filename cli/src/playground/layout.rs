//! Which nodes a playground has, where they keep their files and where they listen. Pure: nothing is
//! made or bound here.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{bail, ensure};
use selvedge_fabric::id::{Name, ZoneName};

use super::ports::{MAX_NODES, PortBlock};

/// Longest path of a Unix socket that every tool takes; the kernel's own limit is 107 bytes.
const MAX_SOCKET_PATH_BYTES: usize = 99;

/// What a node is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Processor,
    Workload,
}

impl Role {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Processor => "processor",
            Self::Workload => "workload",
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::Processor => 'p',
            Self::Workload => 'w',
        }
    }
}

/// How many of what are asked for.
#[derive(Debug, Clone)]
pub(crate) struct Shape {
    pub(crate) clouds: Vec<ZoneName>,
    /// In each cloud.
    pub(crate) processors: usize,
    /// In each cloud.
    pub(crate) workloads: usize,
}

/// A node to be: its name and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeSlot {
    pub(crate) name: Name,
    pub(crate) zone: ZoneName,
    pub(crate) role: Role,
}

/// A node to be, with its files and addresses.
#[derive(Debug, Clone)]
pub(crate) struct NodePlan {
    pub(crate) slot: NodeSlot,
    /// Holds everything of the node: `node.toml`, `log`, and the directory `data`.
    pub(crate) dir: PathBuf,
    pub(crate) socket: PathBuf,
    /// Where it listens, in its own network.
    pub(crate) listen: Listen,
    /// Where others find it, when that is not where it listens.
    pub(crate) public: Option<IpAddr>,
    /// Where its API and DNS are reached from the host.
    pub(crate) api: SocketAddr,
    pub(crate) dns: SocketAddr,
}

/// Where a node listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listen {
    pub(crate) gossip: SocketAddr,
    pub(crate) fabric: SocketAddr,
    pub(crate) api: SocketAddr,
    pub(crate) dns: SocketAddr,
    pub(crate) workload_api: SocketAddr,
}

/// The network that a node lives in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// That of this host, which all nodes share.
    Host,
    /// One of its own, known to the others by this address; none, when it only calls out.
    Own(Option<IpAddr>),
}

impl NodePlan {
    pub(crate) fn name(&self) -> &str {
        self.slot.name.as_str()
    }

    /// Where others join the fabric through it.
    pub(crate) fn seed(&self) -> SocketAddr {
        self.advertised(self.listen.fabric)
    }

    /// What it tells others for a listening address.
    pub(crate) fn advertised(&self, listening: SocketAddr) -> SocketAddr {
        self.public.map_or(listening, |ip| SocketAddr::new(ip, listening.port()))
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.dir.join("data")
    }

    pub(crate) fn config_file(&self) -> PathBuf {
        self.dir.join("node.toml")
    }

    pub(crate) fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }

    pub(crate) fn join_token_file(&self) -> PathBuf {
        self.dir.join("join.token")
    }
}

impl Shape {
    /// The nodes, the processors of all clouds first: the first one founds the fabric.
    pub(crate) fn slots(&self) -> anyhow::Result<Vec<NodeSlot>> {
        ensure!(!self.clouds.is_empty(), "a playground needs at least one cloud: --clouds aws,azr,gcp");
        ensure!(self.processors > 0, "every cloud needs a processor: --processors 1 or more");
        let count = self.clouds.len() * (self.processors + self.workloads);
        ensure!(count <= MAX_NODES, "{count} nodes are more than the {MAX_NODES} of one playground");
        let mut slots = Vec::new();
        for (role, each) in [(Role::Processor, self.processors), (Role::Workload, self.workloads)] {
            for number in 1..=each {
                for zone in &self.clouds {
                    let prefix = zone.to_string().replace('/', "-");
                    let name = Name::new(&format!("{prefix}-{}{number}", role.letter()))?;
                    slots.push(NodeSlot { name, zone: zone.clone(), role });
                }
            }
        }
        let names: BTreeSet<_> = slots.iter().map(|s| &s.name).collect();
        if names.len() < slots.len() {
            bail!("--clouds names a cloud twice");
        }
        Ok(slots)
    }
}

/// Whether the sockets can lie beside the other files of their nodes under `root`.
pub(crate) fn sockets_fit(slots: &[NodeSlot], root: &Path) -> bool {
    slots.iter().all(|slot| socket_fits(&socket_beside(slot, root)))
}

/// Whether a Unix socket can have this path.
pub(crate) fn socket_fits(path: &Path) -> bool {
    path.as_os_str().len() <= MAX_SOCKET_PATH_BYTES
}

fn socket_beside(slot: &NodeSlot, root: &Path) -> PathBuf {
    root.join(slot.name.as_str()).join("api.sock")
}

impl Listen {
    /// On ports of a block, with others on the same host.
    fn shared(ports: &PortBlock, index: usize) -> Self {
        Self {
            gossip: ports.node_port(index, 0),
            fabric: ports.node_port(index, 1),
            api: ports.node_port(index, 2),
            dns: ports.node_port(index, 3),
            workload_api: ports.node_port(index, 4),
        }
    }

    /// On the usual ports. API and DNS are for those on the host, and reached through doors.
    fn alone() -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            gossip: any(7400),
            fabric: any(7401),
            api: local(7443),
            dns: local(53),
            workload_api: local(5500),
        }
    }
}

/// Gives every node its files under `root`, its network and its ports; its socket lies there too, or in
/// `short_dir` when one is given.
pub(crate) fn lay_out(
    slots: Vec<(NodeSlot, Network)>,
    root: &Path,
    short_dir: Option<&Path>,
    ports: &PortBlock,
) -> Vec<NodePlan> {
    let place = |(index, (slot, network)): (usize, (NodeSlot, Network))| {
        let socket = match short_dir {
            Some(short) => short.join(format!("{}.sock", slot.name)),
            None => socket_beside(&slot, root),
        };
        let shared = Listen::shared(ports, index);
        let (listen, public) = match network {
            Network::Host => (shared, None),
            Network::Own(public) => (Listen::alone(), public),
        };
        let dir = root.join(slot.name.as_str());
        NodePlan { dir, slot, socket, listen, public, api: shared.api, dns: shared.dns }
    };
    slots.into_iter().enumerate().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(clouds: &[&str], processors: usize, workloads: usize) -> Shape {
        let clouds = clouds.iter().map(|c| c.parse().expect("a zone")).collect();
        Shape { clouds, processors, workloads }
    }

    #[test]
    fn the_first_nodes_lie_in_different_clouds() {
        let slots = shape(&["aws", "azr", "gcp"], 2, 1).slots().expect("slots");
        let names: Vec<_> = slots.iter().map(|s| s.name.as_str()).collect();
        let wanted =
            ["aws-p1", "azr-p1", "gcp-p1", "aws-p2", "azr-p2", "gcp-p2", "aws-w1", "azr-w1", "gcp-w1"];
        assert_eq!(names, wanted);
    }

    #[test]
    fn senseless_shapes_are_refused() {
        assert!(shape(&[], 2, 0).slots().is_err());
        assert!(shape(&["aws"], 0, 1).slots().is_err());
        assert!(shape(&["aws", "aws"], 1, 0).slots().is_err());
        assert!(shape(&["aws", "azr"], MAX_NODES, 0).slots().is_err());
    }

    #[test]
    fn long_directories_get_short_sockets() {
        let slots = shape(&["aws"], 1, 0).slots().expect("slots");
        let ports = PortBlock::claim(1, 0).expect("a block");
        let far = format!("/tmp/{}", "d".repeat(90));
        assert!(sockets_fit(&slots, Path::new("/tmp/d")));
        assert!(!sockets_fit(&slots, Path::new(&far)));
        let slots: Vec<_> = slots.into_iter().map(|slot| (slot, Network::Host)).collect();
        let near = lay_out(slots.clone(), Path::new("/tmp/d"), None, &ports);
        assert_eq!(near[0].socket, Path::new("/tmp/d/aws-p1/api.sock"));
        let far = lay_out(slots, Path::new(&far), Some(Path::new("/tmp/s")), &ports);
        assert_eq!(far[0].socket, Path::new("/tmp/s/aws-p1.sock"));
    }

    #[test]
    fn a_network_of_its_own_is_entered_through_ports_of_the_host() {
        let slots = shape(&["aws"], 2, 0).slots().expect("slots");
        let public = IpAddr::from([198, 18, 0, 1]);
        let networks = [Network::Own(Some(public)), Network::Own(None)];
        let ports = PortBlock::claim(2, 0).expect("a block");
        let slots = slots.into_iter().zip(networks).collect();
        let plans = lay_out(slots, Path::new("/tmp/d"), None, &ports);
        assert_eq!(plans[0].seed(), SocketAddr::new(public, 7401));
        assert_eq!(plans[1].seed(), plans[1].listen.fabric);
        assert!(plans.iter().all(|plan| plan.dns != plan.listen.dns && plan.dns.ip().is_loopback()));
        assert_ne!(plans[0].dns, plans[1].dns);
    }
}
