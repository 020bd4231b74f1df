//! Packets between hosts of clouds that use the same addresses inside.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::Command,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use selvedge_lab::{Clouds, Conditions, Host, Kind, Ports, Reach};

use crate::as_root;

/// Two of these at a time would measure each other.
static TURN: Mutex<()> = Mutex::new(());
const SEED: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(30);
const DELAY: Duration = Duration::from_millis(20);

fn alone(drill: impl FnOnce()) {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    as_root(drill);
}

/// Conditions with nothing but a delay.
const fn far() -> Conditions {
    Conditions { delay: DELAY, ..Conditions::IDEAL }
}

fn public(host: &Host) -> Ipv4Addr {
    host.public.expect("a public host")
}

fn pings(from: &Host, to: Ipv4Addr) -> bool {
    let mut ping: Command = from.namespace.command("ping");
    ping.args(["-n", "-c", "1", "-W", "2", &to.to_string()]).output().expect("ping runs").status.success()
}

/// Has `client` connect to `to`, where `server` listens, and send a number of bytes. Returns what the server
/// saw: the other end's address, and what was sent.
fn transfer(server: &Host, client: &Host, to: SocketAddr, bytes: &[u8]) -> (SocketAddr, Vec<u8>) {
    let listener = server.namespace.run(|| TcpListener::bind(("0.0.0.0", to.port()))).expect("inside");
    let listener = listener.expect("a port");
    thread::scope(|scope| {
        let receiving = scope.spawn(move || {
            let (mut stream, from) = listener.accept().expect("a connection");
            let mut received = Vec::new();
            stream.read_to_end(&mut received).expect("all of it");
            (from, received)
        });
        let connect = || TcpStream::connect_timeout(&to, PATIENCE);
        let mut stream = client.namespace.run(connect).expect("inside").expect("a connection");
        stream.write_all(bytes).expect("it is sent");
        drop(stream);
        receiving.join().expect("it is received")
    })
}

#[test]
fn hosts_with_the_same_address_in_two_clouds_talk_by_their_public_ones() {
    alone(|| {
        let mut clouds = Clouds::new(&["aws", "azr", "gcp"], SEED, far()).expect("clouds");
        let mut host = |cloud, name, reach| clouds.host(cloud, name, reach).expect("a host");
        let here = host("aws", "here", Reach::Public);
        let beside = host("aws", "beside", Reach::Public);
        let there = host("gcp", "there", Reach::Public);
        let behind = host("gcp", "behind", Reach::Behind);
        assert_eq!(here.inside, there.inside);

        // Within a cloud: directly, and by the public address.
        assert!(pings(&here, beside.inside) && pings(&here, public(&beside)));
        assert!(pings(&behind, public(&there)));
        // Between clouds, with the delay, and each sees the other's public address.
        let started = Instant::now();
        assert!(pings(&here, public(&there)));
        assert!(started.elapsed() >= 2 * DELAY);
        let sent: Vec<u8> = (0..300_000_u32).map(|n| (n % 251) as u8).collect();
        let (from, received) = transfer(&there, &here, (public(&there), 7401).into(), &sent);
        assert_eq!((from.ip(), received.len()), (public(&here).into(), sent.len()));
        assert!(received == sent);
        // From behind NAT only outwards, also to the own cloud's public hosts.
        let (from, _) = transfer(&here, &behind, (public(&here), 7401).into(), b"?");
        let nat = Ipv4Addr::new(198, 18, 3, 1);
        assert_eq!(from.ip(), nat);
        let (from, _) = transfer(&there, &behind, (public(&there), 7401).into(), b"?");
        assert_eq!(from.ip(), nat);
        assert!(!pings(&here, nat));
    });
}

#[test]
fn a_closed_port_is_told_also_through_the_edge() {
    alone(|| {
        let mut clouds = Clouds::new(&["aws", "gcp"], SEED, Conditions::IDEAL).expect("clouds");
        let server = clouds.host("aws", "server", Reach::Public).expect("a host");
        for reach in [Reach::Public, Reach::Behind] {
            let client = clouds.host("gcp", "client", reach).expect("a host");
            let socket = client.namespace.run(|| UdpSocket::bind("0.0.0.0:0")).expect("inside");
            let socket = socket.expect("a socket");
            socket.connect((public(&server), 7400)).expect("an address");
            socket.set_read_timeout(Some(PATIENCE)).expect("a limit");
            // The first datagram may be lost to address resolution, not so the error.
            socket.send(b"?").expect("it is sent");
            let error = socket.recv(&mut [0; 8]).expect_err("nobody is there");
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused, "{reach:?}: {error}");
        }
    });
}

#[test]
fn a_cut_is_one_way_or_both_and_is_mended() {
    alone(|| {
        let mut clouds = Clouds::new(&["aws", "azr", "gcp"], SEED, Conditions::IDEAL).expect("clouds");
        let mut host = |cloud| clouds.host(cloud, "node", Reach::Public).expect("a host");
        let (aws, azr, gcp) = (host("aws"), host("azr"), host("gcp"));
        assert!(pings(&aws, public(&gcp)));
        clouds.cut("aws", "gcp", true).expect("clouds");
        assert!(!pings(&aws, public(&gcp)));
        assert!(pings(&aws, public(&azr)) && pings(&azr, public(&gcp)));
        clouds.cut("aws", "gcp", false).expect("clouds");
        assert!(pings(&aws, public(&gcp)));
        clouds.cut_one_way("gcp", "aws", true).expect("clouds");
        let before = clouds.tally("aws", "gcp").expect("clouds").delivered;
        assert!(!pings(&aws, public(&gcp)));
        assert!(clouds.tally("aws", "gcp").expect("clouds").delivered > before);
        assert!(clouds.tally("gcp", "aws").expect("clouds").cut > 0);
        assert!(clouds.cut("aws", "ibm", true).is_err());
    });
}

#[test]
fn what_crosses_is_seen_and_named() {
    alone(|| {
        let mut clouds = Clouds::new(&["aws", "gcp"], SEED, Conditions::IDEAL).expect("clouds");
        clouds.watch(Ports::default());
        let server = clouds.host("aws", "server", Reach::Public).expect("a host");
        let client = clouds.host("gcp", "client", Reach::Public).expect("a host");
        transfer(&server, &client, (public(&server), 80).into(), b"to be found in clear text");
        // One record of TLS, and then something that is none.
        transfer(&server, &client, (public(&server), 7443).into(), b"\x16\x03\x01\x00\x02ok");
        let capture = clouds.captured().expect("a capture");
        assert!(clouds.captured().is_none());

        let found = capture.find(b"clear text").expect("it is in it");
        assert_eq!((found.kind, found.from), (Kind::Foreign, clouds.site("gcp").expect("a cloud")));
        assert!(found.describe().contains("198.18.2.11 > 198.18.1.11"), "{}", found.describe());
        assert_eq!(capture.missed(), 0);
        let kinds: Vec<_> = capture.counts().keys().copied().collect();
        assert_eq!(kinds, [Kind::Arp, Kind::ApiTls, Kind::Foreign], "{:?}", capture.counts());
        let mut file = Vec::new();
        capture.write_pcap(&mut file).expect("it is written");
        let bytes: usize = capture.frames().iter().map(|frame| 16 + frame.bytes.len()).sum();
        assert_eq!(file.len(), 24 + bytes);
    });
}

#[test]
fn wrong_wishes_are_told() {
    alone(|| {
        let wrong = Conditions { loss: 1.5, ..Conditions::IDEAL };
        let error = Clouds::new(&["aws"], SEED, wrong).expect_err("no probability");
        assert!(error.to_string().contains("loss is 1.5"), "{error}");
        let mut clouds = Clouds::new(&["aws", "gcp"], SEED, Conditions::IDEAL).expect("clouds");
        let error = clouds.host("ibm", "node", Reach::Public).expect_err("no such cloud");
        assert!(error.to_string().contains("aws, gcp"), "{error}");
    });
}

/// What the ground itself carries, so that one knows what a figure measured on it is worth:
/// `cargo test --release -p selvedge-lab -- --ignored --nocapture what_the_relay_carries`.
#[test]
#[ignore = "a measurement"]
fn what_the_relay_carries() {
    const BYTES: usize = 512 << 20;
    alone(|| {
        for (what, conditions) in [("ideal", Conditions::IDEAL), ("20 ms", far())] {
            let mut clouds = Clouds::new(&["aws", "gcp"], SEED, conditions).expect("clouds");
            let server = clouds.host("aws", "server", Reach::Public).expect("a host");
            let client = clouds.host("gcp", "client", Reach::Public).expect("a host");
            let sent = vec![7; BYTES];
            let started = Instant::now();
            transfer(&server, &client, (public(&server), 80).into(), &sent);
            let took = started.elapsed();
            let gigabits = BYTES as f64 * 8.0 / 1e9 / took.as_secs_f64();
            println!("{what}: {gigabits:.2} Gbit/s of TCP, one stream, {:?}", clouds.tally("gcp", "aws"));
            let trips = 200_u32;
            let started = Instant::now();
            for _ in 0..trips {
                assert!(pings(&client, public(&server)));
            }
            println!("{what}: {:?} a ping, the program's start included", started.elapsed() / trips);
        }
    });
}
