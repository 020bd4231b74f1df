//! Isolation for a drill: packets to or from some peers are dropped, as if the network did it.
//!
//! It is done beneath QUIC, at the one socket that everything between nodes goes through, so that both ends see
//! what they would see of a cut cable: silence, and connections that time out. Packets know addresses alone, and
//! where clouds use the same private ones, an address that is written somewhere may be another node's; so only
//! those count at which a connection proved who is there. A peer that comes from a new one is known by its
//! certificate, and falls silent in the next moment.
//!
//! The end is part of the filter: whoever set it may be gone by then.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::{Duration, Instant},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use selvedge_fabric::{
    id::NodeName,
    isolation::{Cut, Cuts},
};

use crate::{Transport, transport::Shared};

/// Most addresses of cut off peers that are remembered; beyond, the oldest name gives way.
const MAX_ADDRESSES: usize = 4_096;
/// How often a dial that waits looks whether it may go on.
const LOOK_PAUSE: Duration = Duration::from_millis(50);

/// What is dropped, and until when.
#[derive(Debug, Default)]
pub(crate) struct Isolation {
    /// Whether anything may be: a packet costs one look at this where no drill runs.
    active: AtomicBool,
    filter: RwLock<Filter>,
}

#[derive(Debug, Default)]
struct Filter {
    cuts: Cuts,
    until: Option<Instant>,
    /// Where peers that are cut off were met.
    met: BTreeMap<SocketAddr, NodeName>,
}

impl Filter {
    fn of(&self, node: &NodeName, now: Instant) -> Cut {
        if self.until.is_some_and(|until| now < until) { self.cuts.of(node) } else { Cut::default() }
    }

    fn at(&self, address: SocketAddr, now: Instant) -> Cut {
        if self.until.is_none_or(|until| now >= until) {
            return Cut::default();
        }
        self.met.get(&canonical(address)).map_or(self.cuts.everybody, |node| self.cuts.of(node))
    }
}

impl Isolation {
    /// Replaces what is dropped. `met` says where peers are at this moment.
    fn set(&self, cuts: Cuts, until: Instant, met: Vec<(SocketAddr, NodeName)>) {
        let mut filter = self.filter.write().unwrap_or_else(PoisonError::into_inner);
        self.active.store(!cuts.is_empty(), Ordering::Release);
        filter.met.retain(|_, node| cuts.of(node).is_any());
        let cut_off = met.into_iter().filter(|(_, node)| cuts.of(node).is_any());
        filter.met.extend(cut_off.map(|(at, node)| (canonical(at), node)));
        (filter.cuts, filter.until) = (cuts, Some(until));
    }

    /// What is cut between this node and a peer.
    pub(crate) fn of(&self, node: &NodeName) -> Cut {
        self.look().map_or_else(Cut::default, |filter| filter.of(node, Instant::now()))
    }

    /// What is cut between this node and whoever is at an address.
    pub(crate) fn at(&self, address: SocketAddr) -> Cut {
        self.look().map_or_else(Cut::default, |filter| filter.at(address, Instant::now()))
    }

    /// Notes where a peer was met. Returns what is cut between this node and it.
    pub(crate) fn meet(&self, node: &NodeName, address: SocketAddr) -> Cut {
        let cut = self.of(node);
        if cut.is_any() {
            let mut filter = self.filter.write().unwrap_or_else(PoisonError::into_inner);
            if filter.met.len() >= MAX_ADDRESSES {
                filter.met.pop_first();
            }
            filter.met.insert(canonical(address), node.clone());
        }
        cut
    }

    /// Returns as soon as nothing is cut between this node and a peer.
    pub(crate) async fn until_over(&self, node: &NodeName) {
        while self.of(node).is_any() {
            tokio::time::sleep(LOOK_PAUSE).await;
        }
    }

    fn look(&self) -> Option<RwLockReadGuard<'_, Filter>> {
        let active = self.active.load(Ordering::Acquire);
        active.then(|| self.filter.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Transport {
    /// From now on until `until`, drops packets to and from peers as `cuts` says, instead of what was dropped
    /// before; empty cuts drop nothing. Whoever renews in time keeps peers silent that have moved meanwhile.
    pub fn isolate(&self, cuts: Cuts, until: Instant) {
        let links = self.0.pool().links();
        // Before the filter is locked: a connection sends, and so looks at the filter, under its own lock.
        let met =
            links.iter().map(|link| (link.connection.remote_address(), link.peer.node.clone())).collect();
        self.0.isolation.set(cuts, until, met);
    }

    /// What is cut between this node and a peer at this moment.
    #[must_use]
    pub fn cut(&self, node: &NodeName) -> Cut {
        self.0.isolation.of(node)
    }
}

impl Shared {
    /// Whether the peer of a new connection is cut off; then it hears no more.
    pub(crate) fn is_cut_off(&self, node: &NodeName, address: SocketAddr) -> bool {
        self.isolation.meet(node, address).is_any()
    }
}

/// The socket of QUIC, with a filter on it.
#[derive(Debug)]
pub(crate) struct Filtered {
    pub(crate) socket: Arc<dyn AsyncUdpSocket>,
    pub(crate) isolation: Arc<Isolation>,
}

impl AsyncUdpSocket for Filtered {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.socket).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        // To its sender, what is lost on the way was sent.
        if self.isolation.at(transmit.destination).to { Ok(()) } else { self.socket.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = self.socket.poll_recv(cx, bufs, meta);
        if let Poll::Ready(Ok(count)) = received {
            for meta in meta.iter_mut().take(count).filter(|meta| self.isolation.at(meta.addr).from) {
                // Nothing came; QUIC skips it.
                meta.len = 0;
            }
        }
        received
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.socket.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.socket.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.socket.may_fragment()
    }
}

/// IPv4 as such: a socket for both families writes it as IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filter_ends_by_itself_and_knows_peers_by_where_they_were_met() {
        let (isolation, now) = (Isolation::default(), Instant::now());
        let [a, b] = ["a", "b"].map(|name| NodeName::new(name).unwrap());
        let [at_a, at_b, new] = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let cuts = Cuts { nodes: [(a.clone(), Cut { to: true, from: false })].into(), ..Cuts::default() };
        let met = || vec![(at_a, a.clone()), (at_b, b.clone())];
        isolation.set(cuts.clone(), now + Duration::from_secs(60), met());
        assert!(isolation.at(at_a).to && !isolation.at(at_a).from && !isolation.at(at_b).is_any());
        let mapped = SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), 1);
        assert!(isolation.at(mapped).to, "the same address");
        assert!(!isolation.meet(&b, new).is_any() && isolation.meet(&a, new).to && isolation.at(new).to);
        assert!(
            isolation.look().unwrap().of(&a, now + Duration::from_secs(60)) == Cut::default(),
            "it is over"
        );
        isolation.set(cuts, now, met());
        assert!(!isolation.at(at_a).is_any() && !isolation.of(&a).is_any(), "an end in the past");
        let everybody = Cuts { everybody: Cut::BOTH, ..Cuts::default() };
        isolation.set(everybody, now + Duration::from_secs(60), Vec::new());
        assert!(isolation.at(SocketAddr::from(([192, 0, 2, 1], 9))).from && isolation.of(&b).to);
        isolation.set(Cuts::default(), now + Duration::from_secs(60), met());
        assert!(!isolation.at(at_a).is_any() && isolation.look().is_none());
    }
}
