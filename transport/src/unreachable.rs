//! What other hosts say about ports that nobody listens on: ICMP "port unreachable" (RFC 792, RFC 4443).
//!
//! The socket of QUIC is not connected, so that by itself it is told nothing. Asked to, Linux keeps what
//! came for it in an error queue, with the address that the refused packet was for (`IP_RECVERR`, ip(7)).
//!
//! Reading there matters, because hosts say so rarely: Linux at most six times at once and then once a
//! second to each other host (`icmp_ratelimit`), however many packets come. QUIC's own packets use that up
//! within moments of a peer's death, and a probe from another socket ([`crate::reach`]) hears nothing.

use std::{
    collections::BTreeMap,
    io::{self, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket},
    os::fd::{AsFd, AsRawFd as _},
    sync::{Arc, Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt},
};
use socket2::SockRef;
use tokio::io::Interest;

use crate::{Transport, transport::Shared};

/// Most addresses that are kept. Whoever can forge ICMP may fill it; then it begins anew, and a peer that is
/// really gone is noticed by its next refusal or its silence.
const MAX_ADDRESSES: usize = 1_024;
/// How much of a refused packet is read: nothing of it is needed.
const QUOTE_BYTES: usize = 64;

/// Room for what is said and for all that QUIC asks the kernel to add to packets, which it adds to these as
/// well: what does not fit is cut off, and the rest with it.
const CONTROL_BYTES: usize = 512;

/// How often each UDP address was said to have no listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct Unreachable(Arc<Mutex<BTreeMap<SocketAddr, u64>>>);

impl Unreachable {
    /// How often so far.
    pub(crate) fn count(&self, address: SocketAddr) -> u64 {
        self.lock().get(&address).copied().unwrap_or(0)
    }

    /// Every address with its count.
    pub(crate) fn all(&self) -> Vec<(SocketAddr, u64)> {
        self.lock().iter().map(|(address, count)| (*address, *count)).collect()
    }

    /// Counts once more.
    pub(crate) fn note(&self, address: SocketAddr) {
        let mut counts = self.lock();
        if counts.len() >= MAX_ADDRESSES && !counts.contains_key(&address) {
            counts.clear();
        }
        *counts.entry(address).or_default() += 1;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SocketAddr, u64>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Transport {
    /// The UDP addresses of which other hosts said that nobody listens there any more (ICMP port
    /// unreachable), with how often since the start. Such a message can be forged.
    #[must_use]
    pub fn unreachable(&self) -> Vec<(SocketAddr, u64)> {
        self.0.unreachable.all()
    }
}

impl Shared {
    /// A host says that nobody listens at an address.
    pub(crate) fn handle_unreachable(&self, address: SocketAddr) {
        if self.isolation.at(address).is_any() {
            return;
        }
        tracing::debug!(%address, "nobody listens there any more, says its host");
        self.unreachable.note(address);
        for link in self.pool().links() {
            if link.remote() == address {
                link.note_refused();
            }
        }
    }
}

/// Hears what is said to the socket of `shared` until that is stopped.
pub(crate) async fn run(shared: Arc<Shared>, ear: Ear) {
    let told = Arc::clone(&shared);
    shared.stop.run_until_cancelled(ear.listen(move |address| told.handle_unreachable(address))).await;
}

/// Hears what is said to a socket.
#[derive(Debug)]
pub(crate) struct Ear(tokio::net::UdpSocket);

impl Ear {
    /// Has the kernel keep what is said to `socket`. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn of(socket: &UdpSocket) -> io::Result<Self> {
        // A socket for both families is told of both.
        setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?;
        if socket.local_addr()?.is_ipv6() {
            setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?;
        }
        // The same socket under another descriptor: quinn keeps its own.
        let socket = socket.try_clone()?;
        socket.set_nonblocking(true)?;
        Ok(Self(tokio::net::UdpSocket::from_std(socket)?))
    }

    /// Tells `refused` every address that has no listener, for ever.
    pub(crate) async fn listen(self, refused: impl Fn(SocketAddr) + Send) {
        // Without a reactor the endpoint is gone as well.
        while self.0.ready(Interest::ERROR).await.is_ok() {
            // Only what came before the queue was found empty is taken for heard.
            let _ = self.0.try_io(Interest::ERROR, || {
                // What waits is also the result of somebody's next call on the socket, unless it is taken.
                let _ = SockRef::from(&self.0).take_error();
                while let Ok(heard) = hear(&self.0) {
                    heard.into_iter().for_each(&refused);
                }
                Err::<(), _>(io::ErrorKind::WouldBlock.into())
            });
        }
    }
}

/// Takes one error from the queue; the address, when it says that nobody listens there.
fn hear(socket: &impl AsFd) -> Result<Option<SocketAddr>, Errno> {
    let mut quote = [0; QUOTE_BYTES];
    let mut parts = [IoSliceMut::new(&mut quote)];
    let mut control = vec![0; CONTROL_BYTES];
    let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_fd().as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let is_port_unreachable = |error: &nix::libc::sock_extended_err| {
        let icmp = [nix::libc::SO_EE_ORIGIN_ICMP, nix::libc::SO_EE_ORIGIN_ICMP6].contains(&error.ee_origin);
        icmp && error.ee_errno == Errno::ECONNREFUSED as u32
    };
    let refused = message.cmsgs()?.any(|said| match said {
        ControlMessageOwned::Ipv4RecvErr(error, _) | ControlMessageOwned::Ipv6RecvErr(error, _) => {
            is_port_unreachable(&error)
        }
        _ => false,
    });
    // Of an error the "sender" is whom the refused packet was for.
    Ok(message.address.filter(|_| refused).and_then(|address| plain(&address)))
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = address.as_sockaddr_in().map(|a| SocketAddr::V4(SocketAddrV4::from(*a)));
    let address = v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::V6(SocketAddrV6::from(*a))))?;
    Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn counted(unreachable: &Unreachable, address: SocketAddr) -> u64 {
        for _ in 0..1_000 {
            if unreachable.count(address) > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        unreachable.count(address)
    }

    async fn a_closed_port_is_heard_of(listen: &str, to: fn(u16) -> SocketAddr) {
        let closed = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let open = UdpSocket::bind("127.0.0.1:0").unwrap();
        let socket = UdpSocket::bind(listen).unwrap();
        // As QUIC sets it up.
        quinn::udp::UdpSocketState::new((&socket).into()).unwrap();
        let unreachable = Unreachable::default();
        let (ear, noted) = (Ear::of(&socket).unwrap(), unreachable.clone());
        let listening = tokio::spawn(ear.listen(move |address| noted.note(address)));
        socket.send_to(b"?", to(open.local_addr().unwrap().port())).unwrap();
        socket.send_to(b"?", to(closed)).unwrap();
        let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
        assert_eq!(counted(&unreachable, canonical(to(closed))).await, 1);
        assert_eq!(unreachable.all().len(), 1, "an open port says nothing");
        listening.abort();
    }

    #[tokio::test]
    async fn over_ipv4() {
        a_closed_port_is_heard_of("127.0.0.1:0", |port| ([127, 0, 0, 1], port).into()).await;
    }

    #[tokio::test]
    async fn over_ipv4_from_a_socket_for_both() {
        let mapped = |port| SocketAddr::new("::ffff:127.0.0.1".parse().unwrap(), port);
        a_closed_port_is_heard_of("[::]:0", mapped).await;
    }

    #[test]
    fn forged_messages_do_not_grow_the_memory() {
        let unreachable = Unreachable::default();
        for port in 0..=u16::MAX {
            unreachable.note(([192, 0, 2, 1], port).into());
        }
        assert!(unreachable.all().len() <= MAX_ADDRESSES);
    }
}
