//! What the network offers.

use std::{
    io::{self, ErrorKind},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
};

use super::{Check, read};

/// Smallest MTU of the underlay that carries QUIC (RFC 9000, section 14) with room for the headers.
const MIN_MTU: u32 = 1280;
/// UDP buffers that keep up with a burst; smaller ones only cost throughput.
const GOOD_BUFFER_BYTES: u64 = 4 * 1024 * 1024;
/// Ports below this one are for root unless the kernel is told otherwise.
const DNS_PORT: u16 = 53;

pub(super) fn mtu() -> Check {
    let mut smallest: Option<(u32, String)> = None;
    for entry in std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let up = read(&format!("/sys/class/net/{name}/operstate")) != "down";
        let mtu = read(&format!("/sys/class/net/{name}/mtu")).parse::<u32>().ok();
        if let Some(mtu) = mtu.filter(|_| up && name != "lo") {
            smallest = Some(smallest.map_or((mtu, name.clone()), |s| s.min((mtu, name.clone()))));
        }
    }
    match smallest {
        Some((mtu, name)) => {
            let remedy = format!("ip link set {name} mtu 1500, or raise it where the tunnel below is made");
            Check::new("mtu", mtu >= MIN_MTU, format!("{mtu} on {name}, the smallest"), remedy).required()
        }
        None => Check::new("mtu", true, "no interface but loopback", ""),
    }
}

pub(super) fn udp_buffers() -> Check {
    let limit = |name: &str| read(&format!("/proc/sys/net/core/{name}")).parse::<u64>().unwrap_or(0);
    let (receive, send) = (limit("rmem_max"), limit("wmem_max"));
    let detail = format!("at most {} KiB to receive, {} KiB to send", receive / 1024, send / 1024);
    let remedy =
        format!("sysctl -w net.core.rmem_max={GOOD_BUFFER_BYTES} net.core.wmem_max={GOOD_BUFFER_BYTES}");
    Check::new("udp-buffers", receive.min(send) >= GOOD_BUFFER_BYTES, detail, remedy)
}

pub(super) fn low_ports() -> Check {
    let first = read("/proc/sys/net/ipv4/ip_unprivileged_port_start").parse::<u16>().unwrap_or(1024);
    let may = bind_udp(DNS_PORT).map_or_else(|e| e.kind() != ErrorKind::PermissionDenied, |()| true);
    let detail = format!(
        "ports from {first} on are for everybody; this user {} take 53",
        if may { "may" } else { "may not" }
    );
    let remedy = "sysctl -w net.ipv4.ip_unprivileged_port_start=53, grant CAP_NET_BIND_SERVICE, or configure another DNS port";
    Check::new("low-ports", may, detail, remedy)
}

/// Whether the default ports are free. A running node holds them, which is no fault of the host.
pub(super) fn ports() -> Vec<Check> {
    let udp = |check, port| port_check(check, port, bind_udp(port));
    let tcp = |check, port| port_check(check, port, bind_tcp(port));
    vec![
        udp("port 7400/udp", 7400),
        udp("port 7401/udp", 7401),
        tcp("port 7443/tcp", 7443),
        udp("port 53/udp", DNS_PORT),
        tcp("port 53/tcp", DNS_PORT),
        tcp("port 5500/tcp", 5500),
    ]
}

fn port_check(check: &'static str, port: u16, bound: io::Result<()>) -> Check {
    let (ok, detail) = match bound {
        Ok(()) => (true, "free".to_owned()),
        // Not ours to try; the check of low ports says what to do.
        Err(e) if e.kind() == ErrorKind::PermissionDenied => (true, "not tried: needs root".to_owned()),
        Err(e) => (false, e.to_string()),
    };
    let remedy = format!("see who has it with `ss -lntup 'sport = :{port}'`, or configure another port");
    Check::new(check, ok, detail, remedy)
}

fn bind_udp(port: u16) -> io::Result<()> {
    UdpSocket::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map(|_| ())
}

fn bind_tcp(port: u16) -> io::Result<()> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_found() {
        let taken = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        assert!(!port_check("port", port, bind_udp(port)).ok);
        drop(taken);
        assert!(port_check("port", port, bind_udp(port)).ok);
        assert!(port_check("port", 1, Err(ErrorKind::PermissionDenied.into())).ok);
    }
}
