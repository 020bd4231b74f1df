//! Connected UDP sockets that tell when nothing listens at a peer's address any more.
//!
//! The kernel reports a received "port unreachable" only to a *connected* socket (RFC 1122, section
//! 4.1.3.3; `udp(7)`), as ECONNREFUSED of the next call. QUIC's one unconnected socket never hears of it.
//! What is sent is a packet that a live endpoint drops ([`UNANSWERED`]).

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
};

use selvedge_fabric::key::NodeId;
use selvedge_transport::UNANSWERED;

/// A socket that was not used for so long is closed.
const IDLE_MS: u64 = 10_000;

#[derive(Debug)]
struct Open {
    address: SocketAddr,
    socket: UdpSocket,
    used_ms: u64,
}

/// The sockets, one for each peer that is poked; the watch bounds how many those are.
#[derive(Debug, Default)]
pub(crate) struct Poker {
    open: BTreeMap<NodeId, Open>,
}

impl Poker {
    /// Sends a packet. True when an earlier one was refused.
    pub(crate) fn poke(&mut self, peer: NodeId, address: SocketAddr, now_ms: u64) -> bool {
        if self.open.get(&peer).is_none_or(|open| open.address != address) {
            match connect(address) {
                Ok(socket) => self.open.insert(peer, Open { address, socket, used_ms: now_ms }),
                // No route: says nothing about the peer.
                Err(_) => return false,
            };
        }
        let Some(open) = self.open.get_mut(&peer) else { return false };
        open.used_ms = now_ms;
        is_refusal(open.socket.send(&UNANSWERED))
    }

    /// The peers of which a refusal came in.
    pub(crate) fn poll_refused(&mut self, now_ms: u64) -> Vec<NodeId> {
        self.open.retain(|_, open| now_ms.saturating_sub(open.used_ms) < IDLE_MS);
        let refused =
            |(&peer, open): (&NodeId, &Open)| is_refusal(open.socket.recv(&mut [0; 16])).then_some(peer);
        self.open.iter().filter_map(refused).collect()
    }
}

fn connect(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(address)?;
    Ok(socket)
}

fn is_refusal(result: io::Result<usize>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn a_closed_port_refuses_and_an_open_one_does_not() {
        let listening = UdpSocket::bind("127.0.0.1:0").unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let mut poker = Poker::default();
        let mut refused = Vec::new();
        for _ in 0..20 {
            if poker.poke(NodeId(1), listening.local_addr().unwrap(), 0) {
                refused.push(NodeId(1));
            }
            if poker.poke(NodeId(2), closed, 0) {
                refused.push(NodeId(2));
            }
            thread::sleep(Duration::from_millis(5));
            refused.extend(poker.poll_refused(0));
        }
        assert!(refused.len() >= 3 && refused.iter().all(|id| *id == NodeId(2)), "{refused:?}");
        poker.poll_refused(IDLE_MS);
        assert!(poker.open.is_empty());
    }
}
