//! Clouds, their hosts, and what joins them.

use std::net::Ipv4Addr;

use tun_rs::{DeviceBuilder, Layer, SyncDevice};

use crate::{
    Capture, Conditions, Edge, Exchange, HAIRPIN_MAC, LabError, Namespace, Ports, Relay, Site, Tally,
    frame::Mac, gateway_mac,
};

/// Most clouds: their public addresses are 198.18.1.0/24 to 198.18.200.0/24.
pub const MAX_CLOUDS: usize = 200;
/// Most hosts that a cloud ever had.
pub const MAX_HOSTS: usize = 200;
/// Largest packet in clouds and between them, bytes.
pub const MTU: u16 = 1_500;

/// The number of a cloud's first host in its addresses; gateway and masquerade have 1.
const FIRST_HOST: usize = 11;
/// The last byte of the address that a gateway reaches its own public addresses by.
const HAIRPIN: u8 = 254;
/// The gateway inside, the same in every cloud.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);
/// The gateway's port in the wide area.
const WIDE: &str = "wide";
/// The port of a host.
const HOST_PORT: &str = "eth0";

/// Whether a host can be reached from other clouds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It has a public address of its own, translated one to one.
    Public,
    /// It can only go out, by the public address of its cloud: behind NAT.
    Behind,
}

/// A machine in a cloud. It lives for as long as this value or a process inside.
#[derive(Debug)]
pub struct Host {
    /// What it was called.
    pub name: String,
    /// In which cloud it is.
    pub cloud: String,
    /// Its address inside: the first host has the same in every cloud, and so on.
    pub inside: Ipv4Addr,
    /// Its address in the wide area, if it can be reached there.
    pub public: Option<Ipv4Addr>,
    /// Where its programs run.
    pub namespace: Namespace,
}

/// Clouds that all use 10.0.0.0/16 inside, joined by a [`Relay`]. Everything of it is gone when this value
/// and the hosts are, and when this process is killed: nothing has a name or a file in the system.
#[derive(Debug)]
pub struct Clouds {
    relay: Relay,
    clouds: Vec<Cloud>,
}

#[derive(Debug)]
struct Cloud {
    name: String,
    site: Site,
    gateway: Namespace,
    hosts: usize,
}

impl Clouds {
    /// Clouds of these names, without hosts, in a wide area with these conditions everywhere. What happens
    /// to frames follows from the seed. Needs root, and the program `ip`.
    ///
    /// # Errors
    /// When there are too many or the system refuses.
    pub fn new(names: &[&str], seed: u64, conditions: Conditions) -> Result<Self, LabError> {
        if names.len() > MAX_CLOUDS {
            return Err(LabError::TooManyClouds(names.len(), MAX_CLOUDS));
        }
        let (mut clouds, mut ports, mut edges) = (Vec::new(), Vec::new(), Vec::new());
        for (number, name) in (0_u8..).zip(names) {
            let site = Site(number);
            let gateway = Namespace::new()?;
            ports.push(port(&gateway, site)?);
            furnish(&gateway, site, names.len())?;
            edges.push(Edge::new(public(site, 1)));
            clouds.push(Cloud { name: (*name).to_owned(), site, gateway, hosts: 0 });
        }
        let relay = Relay::start(Exchange::new(seed, conditions, edges)?, ports)?;
        Ok(Self { relay, clouds })
    }

    /// A new host in a cloud. Hosts of one cloud reach each other directly.
    ///
    /// # Errors
    /// When there is no such cloud, it is full, or the system refuses.
    pub fn host(&mut self, cloud: &str, name: &str, reach: Reach) -> Result<Host, LabError> {
        let site = self.site(cloud)?;
        let place = &mut self.clouds[usize::from(site.0)];
        if place.hosts >= MAX_HOSTS {
            return Err(LabError::TooManyHosts(cloud.to_owned(), MAX_HOSTS));
        }
        place.hosts += 1;
        let number = (FIRST_HOST + place.hosts - 1) as u8;
        let (inside, namespace) = (Ipv4Addr::new(10, 0, 0, number), Namespace::new()?);
        let (port, door) = (format!("host{number}"), namespace.path());
        place.gateway.ip([
            format!(
                "link add {port} mtu {MTU} type veth peer name {HOST_PORT} mtu {MTU} netns {}",
                door.display()
            ),
            format!("link set {port} master inside up"),
        ])?;
        namespace.ip([
            format!("addr add {inside}/16 dev {HOST_PORT}"),
            format!("link set {HOST_PORT} up"),
            format!("route add default via {GATEWAY}"),
        ])?;
        let public = (reach == Reach::Public).then(|| public(site, number));
        if let Some(public) = public {
            self.relay.exchange().publish(site, inside, public);
        }
        Ok(Host { name: name.to_owned(), cloud: cloud.to_owned(), inside, public, namespace })
    }

    /// Other conditions between two clouds, both ways.
    ///
    /// # Errors
    /// When there are no such clouds, or the conditions are none.
    pub fn set(&self, a: &str, b: &str, conditions: Conditions) -> Result<(), LabError> {
        self.set_one_way(a, b, conditions)?;
        self.set_one_way(b, a, conditions)
    }

    /// Other conditions from one cloud to another.
    ///
    /// # Errors
    /// When there are no such clouds, or the conditions are none.
    pub fn set_one_way(&self, from: &str, to: &str, conditions: Conditions) -> Result<(), LabError> {
        let (from, to) = (self.site(from)?, self.site(to)?);
        self.relay.exchange().wide().set(from, to, conditions)
    }

    /// Cuts what joins two clouds, or mends it.
    ///
    /// # Errors
    /// When there are no such clouds.
    pub fn cut(&self, a: &str, b: &str, cut: bool) -> Result<(), LabError> {
        self.cut_one_way(a, b, cut)?;
        self.cut_one_way(b, a, cut)
    }

    /// Cuts one direction, or mends it: what one cloud says is not heard in the other.
    ///
    /// # Errors
    /// When there are no such clouds.
    pub fn cut_one_way(&self, from: &str, to: &str, cut: bool) -> Result<(), LabError> {
        let (from, to) = (self.site(from)?, self.site(to)?);
        self.relay.exchange().wide().cut(from, to, cut);
        Ok(())
    }

    /// What became of the frames from one cloud to another so far.
    ///
    /// # Errors
    /// When there are no such clouds.
    pub fn tally(&self, from: &str, to: &str) -> Result<Tally, LabError> {
        let (from, to) = (self.site(from)?, self.site(to)?);
        Ok(self.relay.exchange().wide().tally(from, to))
    }

    /// Takes down every frame between clouds from now on.
    pub fn watch(&self, ports: Ports) {
        self.relay.exchange().watch(ports);
    }

    /// Ends the capture that [`Clouds::watch`] began.
    #[must_use]
    pub fn captured(&self) -> Option<Capture> {
        self.relay.exchange().captured()
    }

    /// The relay, for all else.
    #[must_use]
    pub const fn relay(&self) -> &Relay {
        &self.relay
    }

    /// The place of a cloud in the wide area.
    ///
    /// # Errors
    /// When there is none of this name.
    pub fn site(&self, cloud: &str) -> Result<Site, LabError> {
        let found = self.clouds.iter().find(|c| c.name == cloud);
        let names = || self.clouds.iter().map(|c| c.name.as_str()).collect::<Vec<_>>().join(", ");
        found.map(|c| c.site).ok_or_else(|| LabError::NoCloud(cloud.to_owned(), names()))
    }
}

/// A public address of a cloud.
const fn public(site: Site, host: u8) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, site.0 + 1, host)
}

/// The address of a gateway in the wide area, a range for benchmarks of devices that nothing else uses
/// (RFC 2544).
const fn gateway(site: Site) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, site.0 + 1)
}

/// The gateway's port in the wide area.
fn port(gateway: &Namespace, site: Site) -> Result<SyncDevice, LabError> {
    let builder = DeviceBuilder::new().name(WIDE).layer(Layer::L2).mac_addr(gateway_mac(site)).mtu(MTU);
    gateway.run(|| builder.enable(false).build_sync())?.map_err(LabError::kernel("make a TAP"))
}

/// Makes a gateway of a namespace: a switch for the hosts, and ways to the other clouds, each by its
/// gateway, and to the own public addresses, by the edge.
fn furnish(namespace: &Namespace, site: Site, clouds: usize) -> Result<(), LabError> {
    // Only IPv4 between clouds: IPv6 would announce itself to neighbours that it does not have.
    namespace.set(&format!("ipv6/conf/{WIDE}/disable_ipv6"), "1")?;
    namespace.set("ipv4/ip_forward", "1")?;
    let edge = Ipv4Addr::new(198, 18, 0, HAIRPIN);
    let mut lines = vec![
        "link add inside type bridge".to_owned(),
        format!("addr add {GATEWAY}/16 dev inside"),
        "link set inside up".to_owned(),
        format!("addr add {}/24 dev {WIDE}", gateway(site)),
        format!("link set {WIDE} up"),
        format!("neigh add {edge} lladdr {} dev {WIDE} nud permanent", text(HAIRPIN_MAC)),
    ];
    for other in (0..clouds).map(|n| Site(n as u8)) {
        let by = if other == site { edge } else { gateway(other) };
        lines.push(format!("route add {}/24 via {by}", public(other, 0)));
    }
    namespace.ip(lines)
}

fn text(mac: Mac) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}
