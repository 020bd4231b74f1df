//! How an endpoint is wired into a network namespace: a veth(4) pair, one end inside, the other here.
//!
//! Inside, the namespace gets the endpoint's addresses and routes to the fabric's ranges by way of the
//! node's own overlay address, and nothing else changes: whatever other interfaces it has, it keeps.
//! Here, the endpoint's addresses are routed to the veth. Both ends know each other's link-layer
//! address from the start, so neither asks, and neither can be answered by somebody else.
//!
//! The order matters. The gate (the program that decides every packet) is on the interface before the
//! interface has an address or is up; where it cannot be installed, nothing of the rest happens.

use std::net::IpAddr;

use selvedge_fabric::id::EndpointId;
use sha2::{Digest as _, Sha256};

use crate::net::{Found, Link, Namespace, NetError, Netlink, Subnet, sysctl};

/// Beginning of the names of our interfaces on the host.
pub const HOST_PREFIX: &str = "sv-";
/// The interface that has the addresses of process trees: they are in the host's own network.
pub const LOOPBACK: &str = "lo";
/// Name of the interface inside.
pub const INSIDE: &str = "selvedge0";

/// What to wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wiring {
    /// The endpoint.
    pub endpoint: EndpointId,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// The node's own overlay addresses, by which the endpoint reaches everything.
    pub gateways: Vec<IpAddr>,
    /// The ranges of the fabric.
    pub ranges: Vec<Subnet>,
    /// Largest packet, bytes.
    pub mtu: u32,
}

impl Wiring {
    /// Name of the interface on the host. Interface names have at most 15 bytes and endpoint names may
    /// have more, so it is a hash; `ip link` shows the endpoint beside it.
    #[must_use]
    pub fn host_interface(&self) -> String {
        host_interface(&self.endpoint)
    }

    fn of_family(&self, ipv4: bool) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied().filter(move |a| a.is_ipv4() == ipv4)
    }

    /// The gateway of the family of an address.
    fn gateway_for(&self, address: IpAddr) -> Option<IpAddr> {
        self.gateways.iter().copied().find(|g| g.is_ipv4() == address.is_ipv4())
    }

    /// Lays the wire. `gate` is called with the interface on the host before any packet can pass it.
    ///
    /// # Errors
    /// What could not be done; nothing is left behind then.
    pub async fn lay<E: From<WireError>>(
        &self,
        inside: &Namespace,
        gate: impl AsyncFnOnce(&Link) -> Result<(), E>,
    ) -> Result<Link, E> {
        let host = Netlink::open().map_err(WireError::from)?;
        let laid = self.lay_on(&host, inside, gate).await;
        if laid.is_err()
            && let Err(error) = host.delete_link(&self.host_interface()).await
        {
            tracing::warn!(%error, endpoint = %self.endpoint, "a half-made interface stays behind");
        }
        laid
    }

    /// Lays the wire to an interface of this host that leads to the endpoint already.
    ///
    /// # Errors
    /// What could not be done.
    pub async fn lay_to<E: From<WireError>>(
        &self,
        interface: &str,
        gate: impl AsyncFnOnce(&Link) -> Result<(), E>,
    ) -> Result<Link, E> {
        let host = Netlink::open().map_err(WireError::from)?;
        let link = host.link(interface).await.map_err(WireError::from)?;
        gate(&link).await?;
        self.wire_host(&host, &link, None).await?;
        Ok(link)
    }

    /// Makes the addresses local to this host, for a process tree in its own network. The gate must be in
    /// its place before.
    ///
    /// # Errors
    /// What could not be done; [`take_from_host`] takes back what was.
    pub async fn lay_to_host(&self) -> Result<Link, WireError> {
        let host = Netlink::open()?;
        let loopback = host.link(LOOPBACK).await?;
        for gateway in self.gateways.iter().filter(|gateway| !is_local(**gateway)) {
            // Without a TUN nothing else gives it to this host. It is the node's own, and stays.
            host.add_address(&loopback, Subnet::host(*gateway)).await?;
        }
        for &address in &self.addresses {
            host.add_address(&loopback, Subnet::host(address)).await?;
        }
        Ok(loopback)
    }

    /// Which addresses of a process tree somebody took from this host, in words; empty when none.
    #[must_use]
    pub fn missing_on_host(&self, loopback: &Link, found: &Found) -> Vec<String> {
        let gone = self.addresses.iter().filter(|address| !found.has_address(loopback, **address));
        gone.map(|address| format!("its address {address}")).collect()
    }

    async fn lay_on<E: From<WireError>>(
        &self,
        host: &Netlink,
        inside: &Namespace,
        gate: impl AsyncFnOnce(&Link) -> Result<(), E>,
    ) -> Result<Link, E> {
        let (outer, inner) = self.make_pair(host, inside).await?;
        gate(&outer).await?;
        self.wire_host(host, &outer, Some(&inner.mac)).await?;
        self.wire_inside(inside, &inner, &outer.mac).await?;
        Ok(outer)
    }

    async fn make_pair(&self, host: &Netlink, inside: &Namespace) -> Result<(Link, Link), WireError> {
        let name = self.host_interface();
        // One of a life before this that ended in the middle.
        host.delete_link(&name).await?;
        let there = Netlink::open_in(inside)?;
        if there.link(INSIDE).await.is_ok() {
            return Err(WireError::Occupied(inside.path().display().to_string()));
        }
        let passing = name.replace(HOST_PREFIX, "svp");
        host.add_veth(&name, &passing, self.mtu).await?;
        let outer = host.link(&name).await?;
        host.describe(&outer, &format!("selvedge endpoint {}", self.endpoint)).await?;
        let peer = host.link(&passing).await?;
        host.move_link(&peer, inside, INSIDE).await?;
        Ok((outer, there.link(INSIDE).await?))
    }

    async fn wire_host(
        &self,
        host: &Netlink,
        outer: &Link,
        peer_mac: Option<&[u8]>,
    ) -> Result<(), WireError> {
        sysctl::forward_from(&outer.name)?;
        host.set_link(outer, self.mtu, true).await?;
        for &address in &self.addresses {
            let gateway = self.gateway_for(address).ok_or(WireError::NoGateway(address))?;
            // Every interface has the gateway's address: the endpoint finds it there with or without a TUN.
            host.add_address(outer, Subnet::host(gateway)).await?;
            if let Some(mac) = peer_mac {
                host.add_neighbour(outer, address, mac).await?;
            }
            host.add_route(Subnet::host(address), outer, None, Some(gateway)).await?;
        }
        Ok(())
    }

    /// What is not there of the host's side, in words; empty when all is. `peer`: whether the far end's
    /// link-layer address was said.
    ///
    /// # Errors
    /// When a setting that somebody changed cannot be made again.
    pub async fn missing(
        &self,
        host: &Netlink,
        link: &Link,
        found: &Found,
        peer: bool,
    ) -> Result<Vec<String>, WireError> {
        let mut missing = Vec::new();
        if sysctl::forward_from(&link.name)? {
            missing.push("its forwarding settings".to_owned());
        }
        if link.mtu != self.mtu {
            missing.push(format!("its MTU of {}", self.mtu));
        }
        for &address in &self.addresses {
            let gateway = self.gateway_for(address).ok_or(WireError::NoGateway(address))?;
            if !found.has_address(link, gateway) {
                missing.push(format!("the gateway's address {gateway}"));
            }
            if peer && !found.has_neighbour(link, address) {
                missing.push(format!("the neighbour {address}"));
            }
            if host.leads_to(address).await != Some(link.index) {
                missing.push(format!("the route to {address}"));
            }
        }
        Ok(missing)
    }

    /// Sets up the host's side again, where the endpoint's interface is.
    ///
    /// # Errors
    /// What could not be done.
    pub async fn restore(
        &self,
        host: &Netlink,
        link: &Link,
        inside: Option<&Namespace>,
    ) -> Result<(), WireError> {
        let mac = match inside {
            Some(inside) => Some(Netlink::open_in(inside)?.link(INSIDE).await?.mac),
            None => None,
        };
        self.wire_host(host, link, mac.as_deref()).await
    }

    async fn wire_inside(
        &self,
        inside: &Namespace,
        inner: &Link,
        gateway_mac: &[u8],
    ) -> Result<(), WireError> {
        let there = Netlink::open_in(inside)?;
        if let Ok(loopback) = there.link("lo").await {
            there.set_link(&loopback, loopback.mtu, true).await?;
        }
        inside.run(|| sysctl::quiet(INSIDE)).map_err(NetError::from)??;
        there.set_link(inner, self.mtu, true).await?;
        for &address in &self.addresses {
            let gateway = self.gateway_for(address).ok_or(WireError::NoGateway(address))?;
            there.add_address(inner, Subnet::host(address)).await?;
            there.add_neighbour(inner, gateway, gateway_mac).await?;
            there.add_route(Subnet::host(gateway), inner, None, Some(address)).await?;
        }
        for range in &self.ranges {
            let Some(source) = self.of_family(range.address.is_ipv4()).next() else { continue };
            there.add_route(*range, inner, self.gateway_for(source), Some(source)).await?;
        }
        Ok(())
    }
}

/// Takes addresses back from this host; fine when it has them no more.
///
/// # Errors
/// When the kernel refuses.
pub async fn take_from_host(addresses: &[IpAddr]) -> Result<(), WireError> {
    let host = Netlink::open()?;
    let loopback = host.link(LOOPBACK).await?;
    for &address in addresses {
        host.delete_address(&loopback, Subnet::host(address)).await?;
    }
    Ok(())
}

/// Whether this host has an address: only then a socket can have it.
fn is_local(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Why an endpoint could not be wired.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The kernel refused.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A setting could not be made.
    #[error("{0}; is /proc/sys writable here?")]
    Sysctl(#[from] sysctl::SysctlError),
    /// The namespace has an endpoint already.
    #[error("{0} is attached already: it has an interface {INSIDE}; detach its endpoint first")]
    Occupied(String),
    /// What was put back is not there.
    #[error("put back, and not there: {0}; does something else manage this host's network?")]
    Contested(String),
    /// An address of a family of which the node has none.
    #[error("the node has no overlay address to be the gateway of {0}")]
    NoGateway(IpAddr),
}

/// Name of an endpoint's interface on the host.
#[must_use]
pub fn host_interface(endpoint: &EndpointId) -> String {
    let digest = Sha256::digest(endpoint.to_string().as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    // 48 bits: two of a node's few hundred endpoints never share them.
    format!("{HOST_PREFIX}{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_and_differ() {
        let name = |text: &str| host_interface(&EndpointId::new(text).expect("a name"));
        assert_eq!(name("a").len(), 15);
        assert_ne!(name("voting-svc-abc"), name("voting-svc-abd"));
        assert_eq!(name("x"), name("x"));
    }
}
