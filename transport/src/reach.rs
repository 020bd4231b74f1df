//! Positive evidence that a peer is gone.
//!
//! QUIC says nothing when a process is killed: its peers wait for the idle timeout. The system of the
//! dead process's machine does say something, ICMP "port unreachable", but only a *connected* UDP
//! socket is told. So a peer that keeps silent while a request waits is sent [`UNANSWERED`] from such a
//! socket. Two refusals in a row count; a machine that is off or a firewall that swallows ICMP gives
//! none, and then the idle timeout decides. Forged ICMP messages cost us one redial.
//!
//! What is said to QUIC's own packets counts as well, and is often all that there is to hear: see
//! [`crate::unreachable`].

use std::{
    io::ErrorKind,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{net::UdpSocket, time};

use crate::{
    isolation::Isolation,
    limits::{PROBE_AFTER, PROBE_INTERVAL},
    link::Link,
    unreachable::Unreachable,
};

/// How long a refusal may take. Longer round trips are left to the idle timeout.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(150);
/// Refusals without a sign of life between them that count as evidence.
const REFUSALS_NEEDED: u64 = 2;
/// A packet of QUIC that no endpoint answers and none believes, for asking whether a port is open: a
/// version negotiation (RFC 9000, sections 6 and 17.2.1) with empty connection ids, which belong to no
/// connection. On the wire it is like everything else between nodes.
pub const UNANSWERED: [u8; 11] = [0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// Whether the system at `address` says that nobody listens on that UDP port. `false` means nothing.
pub async fn is_port_closed(address: SocketAddr) -> bool {
    let local: IpAddr =
        if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let Ok(socket) = UdpSocket::bind((local, 0)).await else { return false };
    if socket.connect(address).await.is_err() || socket.send(&UNANSWERED).await.is_err() {
        return false;
    }
    let mut answer = [0; 16];
    match time::timeout(ANSWER_TIMEOUT, socket.recv(&mut answer)).await {
        Ok(Err(error)) => error.kind() == ErrorKind::ConnectionRefused,
        Ok(Ok(_)) | Err(_) => false,
    }
}

/// Returns when the port was found closed twice; for use while a handshake is under way.
pub(crate) async fn until_port_closed(address: SocketAddr, unreachable: &Unreachable) {
    let (before, mut refusals) = (unreachable.count(address), 0);
    time::sleep(PROBE_AFTER).await;
    loop {
        refusals += u64::from(is_port_closed(address).await);
        if refusals + unreachable.count(address).saturating_sub(before) >= REFUSALS_NEEDED {
            return;
        }
        time::sleep(PROBE_INTERVAL).await;
    }
}

/// Returns when the peer of a link is silent and its port was found closed; for use while a request
/// waits. Of several requests on a link one probes; the end of the connection tells the others. Of a peer that
/// a drill cuts off, nothing is heard.
pub(crate) async fn until_gone(link: &Link, isolation: &Isolation) {
    let (mut heard, mut refusals) = (link.received(), 0);
    // What was said before the request came counts too, so that one on a dead link fails at once.
    while refusals + link.refusals() < REFUSALS_NEEDED {
        time::sleep(PROBE_INTERVAL).await;
        if link.received() != heard || isolation.of(&link.peer.node).is_any() {
            (heard, refusals) = (link.received(), 0);
            continue;
        }
        let Ok(_only_one) = link.probing.try_lock() else { continue };
        refusals += u64::from(is_port_closed(link.remote()).await);
    }
}
