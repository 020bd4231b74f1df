//! Binding: one TCP listener and several UDP sockets on one address.

use std::{io, net::SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, UdpSocket};

use super::DnsError;

/// How often to look for a port that is free for UDP as well as for TCP, when any port will do.
const PORT_ATTEMPTS: usize = 16;
/// Connections that may wait to be accepted.
const TCP_BACKLOG: i32 = 128;
/// Receive buffer of a UDP socket, in bytes: some thousand queries that wait while a worker is busy.
const UDP_RECEIVE_BUFFER_BYTES: usize = 1 << 20;

/// The sockets of one address.
pub(crate) struct Bound {
    pub(crate) address: SocketAddr,
    pub(crate) tcp: TcpListener,
    pub(crate) udp: Vec<UdpSocket>,
}

/// Binds `workers` UDP sockets and one TCP listener to `wanted`. With port 0, TCP chooses the port and
/// UDP takes the same.
pub(crate) fn bind(wanted: SocketAddr, workers: usize) -> Result<Bound, DnsError> {
    let attempts = if wanted.port() == 0 { PORT_ATTEMPTS } else { 1 };
    let mut attempt = 1;
    loop {
        match bind_once(wanted, workers) {
            Err(DnsError::Bind { transport: "udp", .. }) if attempt < attempts => attempt += 1,
            result => return result,
        }
    }
}

fn bind_once(wanted: SocketAddr, workers: usize) -> Result<Bound, DnsError> {
    let failed = |transport| move |source| DnsError::Bind { address: wanted, transport, source };
    let tcp = tcp(wanted).map_err(failed("tcp"))?;
    let address = tcp.local_addr().map_err(failed("tcp"))?;
    let udp = (0..workers).map(|_| udp(address)).collect::<Result<_, _>>().map_err(failed("udp"))?;
    Ok(Bound { address, tcp, udp })
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket(address, Type::STREAM, Protocol::TCP)?;
    // Lets a restarted server bind while old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(TCP_BACKLOG)?;
    TcpListener::from_std(socket.into())
}

fn udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket(address, Type::DGRAM, Protocol::UDP)?;
    socket.set_reuse_port(true)?;
    // A smaller buffer than wished for is no reason not to serve.
    let _ = socket.set_recv_buffer_size(UDP_RECEIVE_BUFFER_BYTES);
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}
