//! Real packets between two workloads in network namespaces: what may pass does, what may not does not,
//! whatever happens to the process that set it up.

use std::{
    fs::File,
    io::{BufRead, BufReader, ErrorKind, Read},
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use selvedge_dataplane::{
    Change, Dataplane, Options, Place, TableImage,
    abi::{Class, Note, Reason},
};
use selvedge_fabric::plan::Plan;

use crate::support::{GATEWAY4, allow, bare_plan, in_kernel, ipv4, workload};

/// The service in each of the two namespaces.
const A: u32 = 1;
const B: u32 = 2;
const ALLOWED: u16 = 7_000;
const FORBIDDEN: u16 = 7_001;
/// How long a packet may take before it counts as dropped.
const DROPPED: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);
const LOADER: &str = "SELVEDGE_TEST_LOADER";

fn run(program: &str, args: &[&str]) {
    let output = Command::new(program).args(args).output().unwrap();
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A namespace with one workload, which goes when the test does.
struct Home {
    name: String,
    interface: String,
    service: u32,
}

impl Home {
    /// Makes it, joined to this thread's network by a veth.
    fn new(service: u32) -> Self {
        let thread = rustix::thread::gettid().as_raw_nonzero();
        let home =
            Self { name: format!("sv-{thread}-{service}"), interface: format!("sv{service}"), service };
        let address = ipv4(service).to_string();
        run("ip", &["netns", "add", &home.name]);
        let veth =
            ["link", "add", &home.interface, "type", "veth", "peer", "name", "eth0", "netns", &home.name];
        run("ip", &veth);
        run("ip", &["address", "add", &format!("{GATEWAY4}/32"), "dev", &home.interface]);
        run("ip", &["link", "set", &home.interface, "up"]);
        run("ip", &["route", "add", &format!("{address}/32"), "dev", &home.interface]);
        home.ip(&["address", "add", &format!("{address}/32"), "dev", "eth0"]);
        home.ip(&["link", "set", "eth0", "up"]);
        home.ip(&["link", "set", "lo", "up"]);
        home.ip(&["route", "add", &GATEWAY4.to_string(), "dev", "eth0", "scope", "link"]);
        home.ip(&["route", "add", "default", "via", &GATEWAY4.to_string()]);
        home
    }

    fn ip(&self, args: &[&str]) {
        run("ip", &[&["-n", &self.name], args].concat());
    }

    /// `/sys` shows the network of whoever mounted it, so `ip` is asked.
    fn ifindex(&self) -> u32 {
        let output =
            Command::new("ip").args(["-o", "link", "show", "dev", &self.interface]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split(':').next().unwrap().trim().parse().unwrap()
    }

    /// A socket in the namespace.
    fn socket(&self, address: Ipv4Addr, port: u16) -> UdpSocket {
        let path = format!("/run/netns/{}", self.name);
        let open = move || {
            let namespace = File::open(path).unwrap();
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            UdpSocket::bind((address, port)).unwrap()
        };
        let socket = thread::spawn(open).join().unwrap();
        socket.set_read_timeout(Some(DROPPED)).unwrap();
        socket
    }

    fn own(&self, port: u16) -> UdpSocket {
        self.socket(ipv4(self.service), port)
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

/// Two workloads, and a host that forwards between them.
fn homes() -> (Home, Home) {
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
    (Home::new(A), Home::new(B))
}

/// Service A may open UDP flows to service B on one port.
fn plan(revision: u64) -> Plan {
    let mut plan = bare_plan(revision);
    allow(&mut plan, A, B, Class::Udp, ALLOWED, ALLOWED);
    plan
}

fn arrives(from: &UdpSocket, to: &UdpSocket, destination: (Ipv4Addr, u16)) -> bool {
    let mut buffer = [0; 16];
    from.send_to(b"x", destination).unwrap();
    match to.recv_from(&mut buffer) {
        Ok(_) => true,
        Err(error) => {
            assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
            false
        }
    }
}

#[test]
fn what_may_pass_does_and_the_rest_does_not() {
    in_kernel(|| {
        let (a, b) = homes();
        let mut plane = crate::support::unpinned();
        plane.sync(TableImage::new(&plan(7)).unwrap()).unwrap();
        for home in [&a, &b] {
            plane.attach_interface(home.ifindex(), workload(home.service)).unwrap();
        }
        let mut events = plane.events().unwrap();
        let (client, server, closed) = (a.own(6_000), b.own(ALLOWED), b.own(FORBIDDEN));
        assert!(arrives(&client, &server, (ipv4(B), ALLOWED)), "a contract allows it");
        assert!(arrives(&server, &client, (ipv4(A), 6_000)), "replies pass");
        assert!(!arrives(&client, &closed, (ipv4(B), FORBIDDEN)), "no contract names this port");
        assert!(!arrives(&server, &a.own(6_001), (ipv4(A), 6_001)), "the server may open nothing");

        a.ip(&["address", "add", &format!("{}/32", ipv4(9)), "dev", "eth0"]);
        assert!(!arrives(&a.socket(ipv4(9), 6_002), &server, (ipv4(B), ALLOWED)), "a spoofed source");

        let counters = plane.counters().unwrap();
        assert!(counters.refusals[&Reason::Spoofed] >= 1, "{counters:?}");
        assert!(counters.refusals[&Reason::NoContract] >= 2, "{counters:?}");
        let edge = counters.edges[&(workload(A).identity, workload(B).identity)];
        assert!(
            edge.packets >= 2 && edge.refused >= 1,
            "counted where it leaves and where it arrives: {edge:?}"
        );

        let told: Vec<_> = std::iter::from_fn(|| events.try_next()).collect();
        let opened = told.iter().find(|event| event.note == Note::Opened).unwrap();
        assert_eq!((opened.revision, opened.destination_port, opened.reason), (7, ALLOWED, Reason::Contract));
        assert!(
            told.iter().any(|event| event.reason == Reason::Spoofed && event.source == ipv4(9)),
            "{told:?}"
        );

        plane.sync(TableImage::new(&bare_plan(8)).unwrap()).unwrap();
        assert!(!arrives(&client, &server, (ipv4(B), ALLOWED)), "the withdrawn contract cuts the flow");
        assert!(!arrives(&server, &client, (ipv4(A), 6_000)));
    });
}

#[test]
fn events_wake_whoever_waits() {
    in_kernel(|| {
        let (a, _b) = homes();
        let mut plane = crate::support::unpinned();
        plane.attach_interface(a.ifindex(), workload(A)).unwrap();
        let mut events = plane.events().unwrap();
        assert!(plane.events().is_none(), "they are read by one");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = a.own(6_000);
        let waiting = async {
            client.send_to(b"x", (ipv4(B), ALLOWED)).unwrap();
            loop {
                let event = tokio::time::timeout(PATIENCE, events.next()).await.unwrap().unwrap();
                // An interface that comes up has things of its own to say.
                if event.reason != Reason::LinkControl {
                    return event;
                }
            }
        };
        let event = runtime.block_on(waiting);
        assert_eq!((event.note, event.reason), (Note::Refused, Reason::NoTables));
    });
}

/// Not a test of its own: the process that the next test kills.
#[test]
fn loader() {
    let Ok(interfaces) = std::env::var(LOADER) else { return };
    let (name, indexes) = interfaces.split_once(' ').unwrap();
    let mut plane = Dataplane::open(&Options::new(name)).unwrap();
    plane.sync(TableImage::new(&plan(1)).unwrap()).unwrap();
    for (service, index) in (A..).zip(indexes.split(' ')) {
        plane.attach_interface(index.parse().unwrap(), workload(service)).unwrap();
    }
    println!("\nready");
    let _ = std::io::stdin().read(&mut [0]);
}

/// The loader, in this thread's namespaces.
fn start_loader(name: &str, a: &Home, b: &Home) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["veth::loader", "--exact", "--nocapture"])
        .env(LOADER, format!("{name} {} {}", a.ifindex(), b.ifindex()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "the loader ended early");
    child
}

/// Sends to both ports until told to stop; returns how many to each.
fn stream(client: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for port in [ALLOWED, FORBIDDEN] {
            client.send_to(b"x", (ipv4(B), port)).unwrap();
        }
        sent += 1;
        thread::sleep(Duration::from_micros(200));
    }
    sent
}

/// Receives until the sender stopped and nothing more comes.
fn count(server: &UdpSocket, stop: &AtomicBool) -> u64 {
    let mut received = 0;
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        match server.recv_from(&mut [0; 16]) {
            Ok(_) => received += 1,
            Err(_) if stopped => return received,
            Err(_) => {}
        }
    }
}

#[test]
fn enforcement_outlives_its_process_and_is_adopted_without_loss() {
    in_kernel(|| {
        let (a, b) = homes();
        let options = options_of("adopt");
        let mut first = start_loader(&options.name, &a, &b);
        let (client, server, closed) = (a.own(6_000), b.own(ALLOWED), b.own(FORBIDDEN));
        let stop = AtomicBool::new(false);
        let (sent, received, plane) = thread::scope(|scope| {
            let sender = scope.spawn(|| stream(&client, &stop));
            let receiver = scope.spawn(|| count(&server, &stop));
            thread::sleep(Duration::from_millis(300));
            first.kill().unwrap();
            first.wait().unwrap();
            thread::sleep(Duration::from_millis(300));
            let mut plane = Dataplane::open(&options).unwrap();
            for revision in 2..6 {
                plane.sync(TableImage::new(&plan(revision)).unwrap()).unwrap();
            }
            thread::sleep(Duration::from_millis(300));
            stop.store(true, Ordering::Relaxed);
            (sender.join().unwrap(), receiver.join().unwrap(), plane)
        });
        eprintln!("{sent} packets through kill, adoption and four syncs");
        assert_eq!(received, sent, "every allowed packet arrived");
        assert!(closed.recv_from(&mut [0; 16]).is_err(), "a forbidden packet arrived");
        assert!(arrives(&server, &client, (ipv4(A), 6_000)), "the flow was adopted with its direction");

        let adopted: Vec<_> = plane.attachments().map(|attached| attached.workload).collect();
        assert_eq!(adopted, [workload(A), workload(B)]);
        assert_eq!(plane.revision(), Some(5));
        assert!(plane.counters().unwrap().refusals[&Reason::NoContract] >= sent, "counters were adopted");
        plane.remove().unwrap();
        assert!(arrives(&client, &closed, (ipv4(B), FORBIDDEN)), "nothing is enforced any more");
    });
}

#[test]
fn what_was_removed_is_noticed_and_put_back() {
    in_kernel(|| {
        let (a, b) = homes();
        let mut plane = Dataplane::open(&options_of("reassert")).unwrap();
        for home in [&a, &b] {
            plane.attach_interface(home.ifindex(), workload(home.service)).unwrap();
        }
        assert_eq!(plane.verify().unwrap(), []);
        let (place_a, place_b) = (Place::Interface(a.ifindex()), Place::Interface(b.ifindex()));

        let pin: PathBuf = ["/sys/fs/bpf/selvedge", &options_of("reassert").name, "links"].iter().collect();
        std::fs::remove_file(pin.join(format!("if-{}-leave", a.ifindex()))).unwrap();
        assert_eq!(plane.reassert().unwrap(), [Change::Unpinned(place_a)]);
        assert_eq!(plane.verify().unwrap(), []);

        // Another data plane puts its programs first.
        let mut other = crate::support::unpinned();
        other.attach_interface(a.ifindex(), workload(A)).unwrap();
        assert_eq!(plane.reassert().unwrap(), [Change::Overtaken(place_a)]);
        assert_eq!(plane.verify().unwrap(), []);

        run("ip", &["link", "delete", &b.interface]);
        assert_eq!(plane.reassert().unwrap(), [Change::Gone(place_b)]);
        assert_eq!(plane.attachments().count(), 1);
        assert!(plane.detach(place_b).is_err());
        plane.detach(place_a).unwrap();
        plane.remove().unwrap();
    });
}

/// The directory of what is pinned.
fn pins_of(options: &Options) -> PathBuf {
    ["/sys/fs/bpf/selvedge", &options.name].iter().collect()
}

#[test]
fn where_the_programs_are_gone_nothing_passes() {
    in_kernel(|| {
        let (a, b) = homes();
        let options = options_of("floor");
        let mut plane = Dataplane::open(&options).unwrap();
        plane.sync(TableImage::new(&plan(1)).unwrap()).unwrap();
        for home in [&a, &b] {
            plane.attach_interface(home.ifindex(), workload(home.service)).unwrap();
        }
        let (client, server, closed) = (a.own(6_000), b.own(ALLOWED), b.own(FORBIDDEN));
        assert!(arrives(&client, &server, (ipv4(B), ALLOWED)), "a contract allows it");

        // The process ends, and somebody removes every pin: so the programs are gone.
        drop(plane);
        for pin in std::fs::read_dir(pins_of(&options).join("links")).unwrap() {
            std::fs::remove_file(pin.unwrap().path()).unwrap();
        }
        // The kernel takes them away a moment later.
        let started = Instant::now();
        while arrives(&client, &server, (ipv4(B), ALLOWED)) {
            assert!(started.elapsed() < PATIENCE, "packets pass that nobody judges");
        }
        assert!(!arrives(&client, &closed, (ipv4(B), FORBIDDEN)));
        // Nor does what the host itself sends.
        let host = UdpSocket::bind((GATEWAY4, 0)).unwrap();
        assert!(!arrives(&host, &closed, (ipv4(B), FORBIDDEN)));

        let mut plane = Dataplane::open(&options).unwrap();
        let places = [&a, &b].map(|home| Place::Interface(home.ifindex()));
        assert_eq!(plane.reassert().unwrap(), places.map(Change::Removed));
        assert!(arrives(&client, &server, (ipv4(B), ALLOWED)));
        assert!(!arrives(&client, &closed, (ipv4(B), FORBIDDEN)));

        run("tc", &["qdisc", "delete", "dev", &a.interface, "clsact"]);
        assert_eq!(plane.reassert().unwrap(), [Change::Floorless(places[0])]);
        assert_eq!(plane.reassert().unwrap(), []);
        plane.remove().unwrap();
        assert!(arrives(&client, &closed, (ipv4(B), FORBIDDEN)), "nothing is enforced any more");
    });
}

#[test]
fn another_version_is_succeeded_between_two_packets() {
    in_kernel(|| {
        let (a, b) = homes();
        let options = options_of("succeed");
        let mut plane = Dataplane::open(&options).unwrap();
        plane.sync(TableImage::new(&plan(1)).unwrap()).unwrap();
        for home in [&a, &b] {
            plane.attach_interface(home.ifindex(), workload(home.service)).unwrap();
        }
        drop(plane);
        let pins = pins_of(&options);
        let mine = std::fs::read_dir(&pins).unwrap().flatten().map(|entry| entry.path());
        let mine = mine.into_iter().find(|path| path.join("CONTROL").exists()).unwrap();
        std::fs::rename(&mine, pins.join("v0")).unwrap();

        let (client, server, closed) = (a.own(6_000), b.own(ALLOWED), b.own(FORBIDDEN));
        let judged = |when: &str| {
            assert!(arrives(&client, &server, (ipv4(B), ALLOWED)), "{when}: a contract allows it");
            assert!(!arrives(&client, &closed, (ipv4(B), FORBIDDEN)), "{when}: no contract names this port");
        };
        judged("nobody is there");
        let mut plane = Dataplane::open(&options).unwrap();
        assert_eq!((plane.attachments().count(), plane.revision()), (0, None));
        judged("its tables are empty, and the old ones hold");
        plane.sync(TableImage::new(&plan(2)).unwrap()).unwrap();
        plane.attach_interface(a.ifindex(), workload(A)).unwrap();
        judged("one is attached again");
        plane.attach_interface(b.ifindex(), workload(B)).unwrap();
        judged("both are");
        plane.forget_predecessors().unwrap();
        assert!(!pins.join("v0").exists(), "its tables stay");
        judged("nothing of it is left");
        assert_eq!(plane.verify().unwrap(), []);
        drop(plane);

        // One that is not attached again any more is not set free by that.
        std::fs::rename(&mine, pins.join("v0")).unwrap();
        let mut plane = Dataplane::open(&options).unwrap();
        plane.forget_predecessors().unwrap();
        assert!(!arrives(&client, &closed, (ipv4(B), FORBIDDEN)));
        plane.remove().unwrap();
    });
}

fn options_of(test: &str) -> Options {
    Options::new(format!("test-{test}-{}", std::process::id()))
}
