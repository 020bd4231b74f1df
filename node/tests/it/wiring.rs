//! Two namespaces wired to a third that stands for the host: what one sends arrives at the other.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use rustix::thread::{UnshareFlags, unshare_unsafe};
use selvedge_fabric::id::EndpointId;
use selvedge_node::{
    attach::wiring::{WireError, Wiring},
    net::{Namespace, Netlink, Subnet},
};

const PATIENCE: Duration = Duration::from_secs(20);
const GATEWAYS: [&str; 2] = ["100.64.1.1", "fd5e::1"];

fn addresses(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn wiring(name: &str, own: &[&str]) -> Wiring {
    Wiring {
        endpoint: EndpointId::new(name).unwrap(),
        addresses: addresses(own),
        gateways: addresses(&GATEWAYS),
        ranges: vec![
            Subnet { address: "100.64.0.0".parse().unwrap(), len: 10 },
            Subnet { address: "fd5e::".parse().unwrap(), len: 48 },
        ],
        mtu: 1280,
    }
}

/// A new namespace, with nothing in it but a loopback device that is down.
#[allow(unsafe_code, reason = "unshare of file descriptors would be unsound; rustix has one call for all")]
fn namespace() -> Namespace {
    let made = std::thread::spawn(|| {
        // SAFETY: the call is unsound only with UnshareFlags::FILES.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
        Namespace::open(std::path::Path::new("/proc/thread-self/ns/net")).unwrap()
    });
    made.join().unwrap()
}

/// Whether the test has what it needs; otherwise it must not have to be run.
fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    let required = std::env::var("SELVEDGE_REQUIRE_KERNEL").is_ok_and(|v| v == "1");
    assert!(root || !required, "SELVEDGE_REQUIRE_KERNEL=1, but this test needs root and has it not");
    if !root {
        eprintln!("SKIPPED: needs root");
    }
    root
}

/// Runs the drill in a namespace of its own, which stands for the host.
fn on_a_host(drill: impl AsyncFnOnce() + Send) {
    let host = namespace();
    let run = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(drill());
    };
    host.run(run).unwrap();
}

#[test]
fn what_one_endpoint_sends_arrives_at_the_other() {
    if !is_root() {
        return;
    }
    on_a_host(async || {
        let (one, two) = (namespace(), namespace());
        let first = wiring("one", &["100.64.1.2", "fd5e::2"]);
        let second = wiring("two", &["100.64.1.3", "fd5e::3"]);
        let mut gated = Vec::new();
        for (wiring, inside) in [(&first, &one), (&second, &two)] {
            let host = Netlink::open().unwrap();
            let laid = wiring.lay::<WireError>(inside, async |link| {
                gated.push(link.name.clone());
                Ok(())
            });
            let link = laid.await.unwrap();
            assert_eq!(host.link(&wiring.host_interface()).await.unwrap().index, link.index);
        }
        assert_eq!(gated, [first.host_interface(), second.host_interface()]);
        for address in second.addresses.clone() {
            talk_tcp(&one, &two, address);
            talk_udp(&one, &two, address);
        }
        // The host itself is their gateway.
        let listener = TcpListener::bind((first.gateways[0], 5300)).unwrap();
        one.run(|| TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE).unwrap()).unwrap();

        let again = first.lay::<WireError>(&two, async |_| Ok(())).await.unwrap_err();
        assert!(again.to_string().contains("attached already"), "{again}");
        let host = Netlink::open().unwrap();
        assert!(host.delete_link(&second.host_interface()).await.unwrap());
        assert!(!host.delete_link(&second.host_interface()).await.unwrap(), "it was gone");
        let there = Netlink::open_in(&two).unwrap();
        assert!(there.link("selvedge0").await.is_err_and(|e| e.is_absent()), "gone inside too");
    });
}

#[test]
fn without_a_gate_nothing_is_left() {
    if !is_root() {
        return;
    }
    on_a_host(async || {
        let inside = namespace();
        let wiring = wiring("one", &["100.64.1.2"]);
        let refused = async |_: &_| Err(WireError::Occupied("no gate".to_owned()));
        wiring.lay::<WireError>(&inside, refused).await.unwrap_err();
        let there = Netlink::open_in(&inside).unwrap();
        assert_eq!(there.links().await.unwrap().len(), 1, "only the loopback device");
        assert_eq!(Netlink::open().unwrap().links().await.unwrap().len(), 1);
    });
}

fn talk_tcp(from: &Namespace, to: &Namespace, address: IpAddr) {
    let listener = to.run(|| TcpListener::bind((address, 80)).unwrap()).unwrap();
    let target = SocketAddr::new(address, 80);
    let mut client = from.run(|| TcpStream::connect_timeout(&target, PATIENCE).unwrap()).unwrap();
    let (mut served, _) = listener.accept().unwrap();
    // More than fits in one packet.
    let sent = vec![7; 100_000];
    let reader = std::thread::spawn(move || {
        let mut got = Vec::new();
        served.read_to_end(&mut got).map(|_| got)
    });
    client.write_all(&sent).unwrap();
    drop(client);
    assert_eq!(reader.join().unwrap().unwrap(), sent);
}

fn talk_udp(from: &Namespace, to: &Namespace, address: IpAddr) {
    let server = to.run(|| UdpSocket::bind((address, 53)).unwrap()).unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let any: SocketAddr = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }.parse().unwrap();
    let client = from.run(|| UdpSocket::bind(any).unwrap()).unwrap();
    client.send_to(b"asked", (address, 53)).unwrap();
    let mut buffer = [0; 16];
    let (n, _) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..n], b"asked");
}
