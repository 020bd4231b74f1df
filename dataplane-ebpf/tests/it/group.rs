//! Process trees with identities of their own, which speak to each other over one loopback device.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use selvedge_dataplane::{
    Change, Dataplane, Options, TableImage, Workload,
    abi::{Class, Reason},
};
use selvedge_fabric::plan::Plan;

use crate::support::{allow, bare_plan, in_kernel, workload};

const A: u32 = 1;
const B: u32 = 2;
const ALLOWED: u16 = 7_000;
const FORBIDDEN: u16 = 7_001;
const DROPPED: Duration = Duration::from_millis(500);
/// What a child process is told to do.
const TASK: &str = "SELVEDGE_TEST_TASK";

/// Not those of other tests: before Linux 6.16 the guard at the root of all groups does not tell network
/// namespaces apart.
fn address4(service: u32) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 0, service as u8)
}

fn address6(service: u32) -> Ipv6Addr {
    Ipv6Addr::new(0xfd00, 0xb0, 0, 0, 0, 0, 0, service as u16)
}

fn member(service: u32) -> Workload {
    Workload {
        ipv4: Some(address4(service)),
        ipv6: Some(address6(service)),
        gateway_ipv4: Some(Ipv4Addr::LOCALHOST),
        gateway_ipv6: None,
        ..workload(service)
    }
}

/// A may open flows to B on one port, over TCP and UDP.
fn plan() -> Plan {
    let mut plan = bare_plan(1);
    for service in [A, B] {
        let bound = plan.identities[&IpAddr::V4(crate::support::ipv4(service))].clone();
        plan.identities.insert(address4(service).into(), bound.clone());
        plan.identities.insert(remote4(service).into(), bound.clone());
        plan.identities.insert(address6(service).into(), bound);
    }
    for class in [Class::Tcp, Class::Udp] {
        allow(&mut plan, A, B, class, ALLOWED, ALLOWED);
    }
    plan
}

/// A control group of the test's own.
struct Group(PathBuf);

impl Group {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let root = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).expect("cgroup2");
        let directory = PathBuf::from(root.split(' ').nth(1).unwrap());
        let group = Self(directory.join(format!("selvedge-test-{}-{name}", std::process::id())));
        std::fs::create_dir(&group.0).unwrap();
        group
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let removed = |_| {
            thread::sleep(Duration::from_millis(20));
            std::fs::remove_dir(&self.0).is_ok()
        };
        let _ = (0..100).any(removed);
    }
}

/// Starts a child process with a task, in a group or outside of all.
fn start(task: &str, group: Option<&Group>) -> Child {
    let executable = std::env::current_exe().unwrap();
    let enter = group.map_or(String::new(), |group| format!("echo $$ > {}/cgroup.procs;", group.0.display()));
    Command::new("sh")
        .args(["-c", &format!("{enter} exec \"$0\" group::process --exact --nocapture")])
        .arg(executable)
        .env(TASK, task)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Ends a child process with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn serve(group: &Group) -> Server {
    let mut child = start("serve", Some(group));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "ready"), "the server ended early");
    Server(child)
}

/// Whom the server saw, over TCP, connected UDP and other UDP; `-` for nobody.
fn ask(group: Option<&Group>, from: &str, to: impl Into<IpAddr>, port: u16) -> [String; 3] {
    let to = SocketAddr::new(to.into(), port);
    let output = start(&format!("ask {from} {to}"), group).wait_with_output().unwrap();
    answers(&String::from_utf8(output.stdout).unwrap())
}

fn answers(text: &str) -> [String; 3] {
    let answer = |word: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(word));
        found.unwrap_or_else(|| panic!("no answer in {text:?}")).to_owned()
    };
    ["tcp ", "connected ", "sent "].map(answer)
}

/// Not a test of its own: the process that the others start.
#[test]
fn process() {
    let Ok(task) = std::env::var(TASK) else { return };
    println!();
    let words: Vec<_> = task.split(' ').collect();
    match words[..] {
        ["serve"] => serve_forever(),
        ["echo", from] => {
            let socket = UdpSocket::bind((from.parse::<IpAddr>().unwrap(), 0)).unwrap();
            socket.set_read_timeout(Some(DROPPED)).unwrap();
            let _ = socket.send_to(b"x", socket.local_addr().unwrap());
            println!("echo {}", socket.recv(&mut [0; 16]).is_ok());
        }
        ["ask", from, to] => ask_all(from.parse().unwrap(), to.parse().unwrap()),
        _ => panic!("{task}"),
    }
}

fn serve_forever() {
    for port in [ALLOWED, FORBIDDEN] {
        for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
            let listener = TcpListener::bind((any, port)).unwrap();
            thread::spawn(move || {
                for stream in listener.incoming() {
                    let mut stream = stream.unwrap();
                    let peer = stream.peer_addr().unwrap().ip();
                    let _ = write!(stream, "{peer}");
                }
            });
            let socket = UdpSocket::bind((any, port)).unwrap();
            thread::spawn(move || {
                loop {
                    let (_, peer) = socket.recv_from(&mut [0; 16]).unwrap();
                    let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
                }
            });
        }
    }
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
}

fn ask_all(from: IpAddr, to: SocketAddr) {
    let tcp = || {
        // A chosen source is for UDP alone: that is what decides who may use an address.
        let mut stream = TcpStream::connect_timeout(&to, DROPPED).ok()?;
        stream.set_read_timeout(Some(DROPPED)).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        Some(answer)
    };
    let udp = |connected: bool| {
        let socket = UdpSocket::bind((from, 0)).ok()?;
        socket.set_read_timeout(Some(DROPPED)).ok()?;
        if connected {
            socket.connect(to).ok()?;
            socket.send(b"x").ok()?;
        } else {
            socket.send_to(b"x", to).ok()?;
        }
        let mut answer = [0; 64];
        let (length, _) = socket.recv_from(&mut answer).ok()?;
        String::from_utf8(answer[..length].to_vec()).ok()
    };
    for (word, answer) in [("tcp", tcp()), ("connected", udp(true)), ("sent", udp(false))] {
        println!("{word} {}", answer.unwrap_or_else(|| "-".to_owned()));
    }
}

/// A service's address on another node: no interface of this host has it.
fn remote4(service: u32) -> Ipv4Addr {
    Ipv4Addr::new(198, 18, 1, service as u8)
}

/// A host beside this one, joined by a cable, which uses an address that the plan says is elsewhere. Ask it by
/// its input; the number of this host's end of the cable.
fn neighbour(address: Ipv4Addr, task: &str) -> (Child, u32) {
    let run = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
    let script = format!(
        "echo apart && read _ && ip address add {address}/32 dev far && ip link set far up && \
         ip route add 198.18.0.0/24 dev far && exec \"$0\" group::process --exact --nocapture"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).arg(std::env::current_exe().unwrap()).env(TASK, task);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut apart = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut apart).unwrap();
    run(&["link", "add", "near", "type", "veth", "peer", "name", "far"]);
    run(&["link", "set", "far", "netns", &child.id().to_string()]);
    run(&["link", "set", "near", "up"]);
    run(&["route", "add", &format!("{address}/32"), "dev", "near"]);
    let shown = Command::new("ip").args(["-o", "link", "show", "near"]).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    (child, shown.split(':').next().unwrap().parse().unwrap())
}

/// Whom the server saw when a neighbour asked, by a cable that carries the overlay or does not.
fn asked_by_neighbour(plane: &Dataplane, carries: bool) -> [String; 3] {
    let (mut child, index) = neighbour(remote4(A), &format!("ask 0.0.0.0 {}:{ALLOWED}", address4(B)));
    plane.set_carrier(if carries { index } else { 0 });
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    let output = child.wait_with_output().unwrap();
    plane.set_carrier(0);
    assert!(Command::new("ip").args(["link", "del", "near"]).status().unwrap().success());
    answers(&String::from_utf8(output.stdout).unwrap())
}

/// Whether another host, that is another network namespace, may use an address.
fn is_free_elsewhere(address: IpAddr) -> bool {
    let length = if address.is_ipv4() { 32 } else { 128 };
    let script = format!(
        "ip link set lo up && ip address add {address}/{length} dev lo && exec \"$0\" group::process --exact --nocapture"
    );
    let mut command = Command::new("unshare");
    command.args(["--net", "sh", "-c", &script]).arg(std::env::current_exe().unwrap());
    let output = command.env(TASK, format!("echo {address}")).output().unwrap();
    String::from_utf8(output.stdout).unwrap().contains("echo true")
}

/// Whether this kernel tells programs of control groups which network namespace a packet is of: since 6.16.
fn tells_namespaces_apart() -> bool {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(['.', '-']).map(|number| number.parse::<u32>().unwrap_or(0));
    (numbers.next(), numbers.next()) >= (Some(6), Some(16))
}

/// A loopback device with the addresses of both.
fn loopback() {
    let run = |args: &[&str]| assert!(Command::new("ip").args(args).status().unwrap().success(), "{args:?}");
    run(&["link", "set", "lo", "up"]);
    for service in [A, B] {
        run(&["address", "add", &format!("{}/32", address4(service)), "dev", "lo"]);
        run(&["address", "add", &format!("{}/128", address6(service)), "dev", "lo", "nodad"]);
    }
}

#[test]
fn process_trees_meet_by_identity_over_loopback() {
    in_kernel(|| {
        loopback();
        let (a, b) = (Group::new("a"), Group::new("b"));
        let options = Options::new(format!("test-group-{}", std::process::id()));
        let mut plane = Dataplane::open(&options).unwrap();
        plane.sync(TableImage::new(&plan()).unwrap()).unwrap();
        for (group, service) in [(&a, A), (&b, B)] {
            plane.attach_cgroup(&group.0, member(service)).unwrap();
        }
        assert_eq!(plane.verify().unwrap(), []);
        let server = serve(&b);
        let nobody = ["-"; 3].map(str::to_owned);
        let seen = |who: &str| [who; 3].map(str::to_owned);

        assert_eq!(ask(Some(&a), "0.0.0.0", address4(B), ALLOWED), seen("198.18.0.1"));
        assert_eq!(ask(Some(&a), "::", address6(B), ALLOWED), seen("fd00:b0::1"));
        assert_eq!(ask(Some(&a), "0.0.0.0", address4(B), FORBIDDEN), nobody);
        assert_eq!(ask(Some(&a), "::", address6(B), FORBIDDEN), nobody);
        assert_eq!(ask(None, "0.0.0.0", address4(B), ALLOWED), nobody, "a process outside is nobody");
        assert_eq!(ask(None, "198.18.0.1", address4(B), ALLOWED), nobody, "and may not claim to be A");
        assert_eq!(
            ask(Some(&b), "0.0.0.0", address4(B), FORBIDDEN),
            seen("198.18.0.2"),
            "B may speak to itself"
        );
        let [tcp, connected, _] = ask(Some(&b), "0.0.0.0", Ipv4Addr::LOCALHOST, FORBIDDEN);
        assert_eq!([tcp, connected], ["198.18.0.2", "198.18.0.2"], "over loopback as well");
        assert_eq!(is_free_elsewhere(address4(A).into()), tells_namespaces_apart());
        assert!(!is_free_elsewhere(address6(A).into()), "an IPv6 address is of one fabric alone");
        assert_eq!(asked_by_neighbour(&plane, false), nobody, "A is on another node, not on this cable");
        assert_eq!(asked_by_neighbour(&plane, true), seen("198.18.1.1"), "unless the overlay is there");
        let refusals = plane.counters().unwrap().refusals;
        assert!(refusals[&Reason::NoContract] >= 1, "{refusals:?}");

        // Another process adopts the groups.
        drop(plane);
        let mut plane = Dataplane::open(&options).unwrap();
        assert_eq!(plane.verify().unwrap(), []);
        assert_eq!(plane.attachments().map(|x| x.workload).collect::<Vec<_>>().len(), 2);
        assert_eq!(ask(Some(&a), "0.0.0.0", address4(B), ALLOWED), seen("198.18.0.1"));
        assert_eq!(ask(None, "198.18.0.1", address4(B), ALLOWED), nobody);

        let pins: PathBuf = ["/sys/fs/bpf/selvedge", &options.name, "links", "guard"].iter().collect();
        std::fs::remove_file(pins).unwrap();
        assert_eq!(plane.reassert().unwrap(), [Change::Unguarded]);
        assert_eq!(plane.verify().unwrap(), []);
        assert_eq!(ask(None, "198.18.0.1", address4(B), ALLOWED), nobody);

        drop(server);
        let place = plane.attachments().find(|x| x.workload.identity.0 == A).unwrap().place;
        drop(a);
        assert_eq!(plane.reassert().unwrap(), [Change::Gone(place)]);
        plane.remove().unwrap();
    });
}
