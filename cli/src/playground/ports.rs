//! Ports for one playground.
//!
//! Two playgrounds must run side by side, of different users too, and a killed one must leave no stale
//! claim. So a block of ports is claimed by listening on its first port: the kernel is the lock
//! manager, and the lock ends with the process. Blocks lie below Linux's ephemeral range, so that no
//! outgoing connection can take one of their ports in between.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};

use anyhow::{Context as _, ensure};

/// First port of the first block.
const FIRST_PORT: u16 = 20_480;
/// Ports in a block, the first of which is the lock.
const BLOCK_PORTS: u16 = 1_024;
/// Blocks up to the ephemeral range, which starts at 32768: the most playgrounds on one machine.
const BLOCKS: u16 = 12;
/// Ports that a node may use.
pub(crate) const PORTS_PER_NODE: u16 = 8;
/// Most nodes of a playground: half of the block is theirs, the rest is for endpoints.
pub(crate) const MAX_NODES: usize = (BLOCK_PORTS / 2 / PORTS_PER_NODE) as usize - 1;
/// Most ports of endpoints of a playground.
pub(crate) const MAX_ENDPOINT_PORTS: usize = (BLOCK_PORTS / 2) as usize;

/// A block of ports that no other playground uses while this value lives.
#[derive(Debug)]
pub(crate) struct PortBlock {
    base: u16,
    _lock: TcpListener,
}

impl PortBlock {
    /// Claims the first block in which the ports of `nodes` nodes and `endpoints` endpoint ports are free.
    pub(crate) fn claim(nodes: usize, endpoints: usize) -> anyhow::Result<Self> {
        ensure!(nodes <= MAX_NODES, "{nodes} nodes are more than the {MAX_NODES} of one playground");
        ensure!(
            endpoints <= MAX_ENDPOINT_PORTS,
            "the graphs need {endpoints} endpoint ports, more than the {MAX_ENDPOINT_PORTS} of one playground"
        );
        (0..BLOCKS)
            .filter_map(|index| Self::lock(FIRST_PORT + index * BLOCK_PORTS))
            .find(|block| block.is_free(nodes, endpoints))
            .with_context(|| {
                let last = FIRST_PORT + BLOCKS * BLOCK_PORTS - 1;
                format!(
                    "no free block of {BLOCK_PORTS} ports on 127.0.0.1 between {FIRST_PORT} and {last}; \
                     stop another playground, or what listens there (ss -tulpn)"
                )
            })
    }

    fn lock(base: u16) -> Option<Self> {
        let lock = TcpListener::bind((Ipv4Addr::LOCALHOST, base)).ok()?;
        Some(Self { base, _lock: lock })
    }

    fn is_free(&self, nodes: usize, endpoints: usize) -> bool {
        let node_ports = (0..nodes).flat_map(|n| (0..PORTS_PER_NODE).map(move |p| (n, p)));
        node_ports.map(|(n, p)| self.node_port(n, p)).all(port_is_free)
            && (0..endpoints).map(|e| self.endpoint_port(e).port()).all(|p| port_is_free(loopback(p)))
    }

    /// Port `which` (below [`PORTS_PER_NODE`]) of node number `node` (below [`MAX_NODES`]).
    pub(crate) fn node_port(&self, node: usize, which: u16) -> SocketAddr {
        // The first slot holds the lock.
        loopback(self.base + PORTS_PER_NODE * (as_offset(node) + 1) + which)
    }

    /// Port number `index` (below [`MAX_ENDPOINT_PORTS`]) of those for endpoints. Endpoints of all
    /// playgrounds share the same loopback addresses, so their ports must differ.
    pub(crate) fn endpoint_port(&self, index: usize) -> SocketAddr {
        loopback(self.base + BLOCK_PORTS / 2 + as_offset(index))
    }
}

fn as_offset(index: usize) -> u16 {
    u16::try_from(index).unwrap_or(u16::MAX)
}

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn port_is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn two_blocks_never_overlap() {
        let one = PortBlock::claim(6, 40).expect("a block");
        let two = PortBlock::claim(6, 40).expect("another block");
        let ports = |b: &PortBlock| -> BTreeSet<u16> {
            let nodes = (0..6).flat_map(|n| (0..PORTS_PER_NODE).map(move |p| (n, p)));
            nodes
                .map(|(n, p)| b.node_port(n, p).port())
                .chain((0..40).map(|e| b.endpoint_port(e).port()))
                .collect()
        };
        assert_eq!(ports(&one).len(), 6 * usize::from(PORTS_PER_NODE) + 40);
        assert!(ports(&one).is_disjoint(&ports(&two)));
    }

    #[test]
    fn a_block_with_a_taken_port_is_passed_over() {
        let probe = PortBlock::claim(1, 1).expect("a block");
        let taken = probe.node_port(0, 3);
        drop(probe);
        // Somebody else may take the port in between; then the claim passes it over all the same.
        let _holder = UdpSocket::bind(taken);
        let block = PortBlock::claim(1, 1).expect("another block");
        assert_ne!(block.node_port(0, 3), taken);
    }

    #[test]
    fn the_last_ports_stay_inside_the_block() {
        let block = PortBlock::claim(0, 0).expect("a block");
        assert!(block.node_port(MAX_NODES - 1, PORTS_PER_NODE - 1).port() < block.endpoint_port(0).port());
        assert!(block.endpoint_port(MAX_ENDPOINT_PORTS - 1).port() < block.base + BLOCK_PORTS);
        assert!(PortBlock::claim(MAX_NODES + 1, 0).is_err());
    }
}
