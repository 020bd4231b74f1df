//! A workload in a network namespace of its own, and what it can reach from there.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use super::{ask_at, kernel::run};

/// How long a server waits before it looks whether it is to stop.
const SERVER_TICK: Duration = Duration::from_millis(20);
/// What servers answer.
const ANSWER: &[u8] = b"selvedge";

/// A network namespace with servers in it.
#[derive(Debug)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Its overlay addresses, once it is attached.
    pub addresses: Vec<IpAddr>,
    /// Its endpoint, once it is attached.
    pub endpoint: String,
    stop: Arc<AtomicBool>,
    servers: Vec<JoinHandle<()>>,
}

/// What is sent to find out whether it arrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Probe {
    /// A connection to this port, and an answer over it.
    Tcp(u16),
    /// A connection to this port, whatever its server says.
    Connect(u16),
    /// A datagram to this port, and one back.
    Udp(u16),
    /// An echo request, and the reply.
    Icmp,
}

impl Workload {
    /// A new namespace of this name.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        run("ip", &["netns", "add", name])?;
        let (name, stop) = (name.to_owned(), Arc::default());
        Ok(Self { name, addresses: Vec::new(), endpoint: String::new(), stop, servers: Vec::new() })
    }

    /// The file of its namespace.
    #[must_use]
    pub fn netns(&self) -> PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// Attaches it to the node behind `socket`, as a service.
    ///
    /// # Errors
    /// When that is refused.
    pub fn attach(
        &mut self,
        socket: &Path,
        service: &str,
        token: &Path,
        ports: &[&str],
    ) -> anyhow::Result<()> {
        let (token, netns) = (token.to_string_lossy(), self.netns());
        let netns = netns.to_string_lossy();
        let mut args = vec!["attach", "--service", service, "--token-file", &token, "--netns", &netns];
        args.extend(ports.iter().flat_map(|port| ["--port", port]));
        let attached = ask_at(socket, &args)?;
        self.endpoint = attached["endpoint"].as_str().context("an endpoint")?.to_owned();
        let addresses = attached["addresses"].as_array().into_iter().flatten().filter_map(Value::as_str);
        self.addresses = addresses.map(str::parse).collect::<Result<_, _>>()?;
        Ok(())
    }

    /// Runs `f` inside, on a thread of its own.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn run<T: Send>(&self, f: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        let file = File::open(self.netns())?;
        let inside = || {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(f())
        };
        match thread::scope(|scope| scope.spawn(inside).join()) {
            Ok(result) => result,
            Err(_) => bail!("a thread in {} panicked", self.name),
        }
    }

    /// Serves a port on every address of it, over TCP and UDP, until this value is dropped.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn serve(&mut self, port: u16) -> anyhow::Result<()> {
        let tcp = self.run(|| TcpListener::bind(any(port)))??;
        tcp.set_nonblocking(true)?;
        let stop = self.stop.clone();
        self.servers.push(thread::spawn(move || serve_tcp(&tcp, &stop)));
        self.serve_udp(port)
    }

    /// The same over UDP alone, where a program holds the TCP port.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn serve_udp(&mut self, port: u16) -> anyhow::Result<()> {
        let udp = self.run(|| UdpSocket::bind(any(port)))??;
        udp.set_read_timeout(Some(SERVER_TICK))?;
        let stop = self.stop.clone();
        self.servers.push(thread::spawn(move || serve_udp(&udp, &stop)));
        Ok(())
    }

    /// Whether a probe is answered within `patience`.
    ///
    /// # Errors
    /// When the namespace cannot be entered.
    pub fn reaches(&self, to: IpAddr, probe: Probe, patience: Duration) -> anyhow::Result<bool> {
        self.run(|| answers(to, probe, patience).is_ok())
    }

    /// The name server that was set up for it.
    ///
    /// # Errors
    /// When there is none.
    pub fn name_server(&self) -> anyhow::Result<IpAddr> {
        let conf = std::fs::read_to_string(format!("/etc/netns/{}/resolv.conf", self.name))?;
        let server = conf.lines().find_map(|line| line.strip_prefix("nameserver "));
        Ok(server.context("no name server")?.parse()?)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for server in self.servers.drain(..) {
            let _ = server.join();
        }
        let _ = run("ip", &["netns", "delete", &self.name]);
    }
}

/// One probe, by whoever is in the network of this thread.
pub(super) fn answers(to: IpAddr, probe: Probe, patience: Duration) -> std::io::Result<()> {
    match probe {
        Probe::Tcp(port) => answers_tcp(SocketAddr::new(to, port), patience),
        Probe::Connect(port) => TcpStream::connect_timeout(&SocketAddr::new(to, port), patience).map(drop),
        Probe::Udp(port) => answers_udp(SocketAddr::new(to, port), patience),
        Probe::Icmp if answers_echo(to, patience) => Ok(()),
        Probe::Icmp => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// Every address of either family.
fn any(port: u16) -> SocketAddr {
    SocketAddr::from(([0; 16], port))
}

fn serve_tcp(listener: &TcpListener, stop: &AtomicBool) {
    while !stop.load(Ordering::Relaxed) {
        match listener.accept() {
            Ok((mut stream, _)) => drop(stream.write_all(ANSWER)),
            Err(_) => thread::sleep(SERVER_TICK),
        }
    }
}

fn serve_udp(socket: &UdpSocket, stop: &AtomicBool) {
    let mut buffer = [0; 64];
    while !stop.load(Ordering::Relaxed) {
        if let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(ANSWER, from);
        }
    }
}

fn answers_tcp(to: SocketAddr, patience: Duration) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.read_exact(&mut [0; ANSWER.len()])
}

fn answers_udp(to: SocketAddr, patience: Duration) -> std::io::Result<()> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"?")?;
    socket.recv(&mut [0; 64]).map(drop)
}

/// One echo request (RFC 792, RFC 4443) by the ping program.
fn answers_echo(to: IpAddr, patience: Duration) -> bool {
    let seconds = patience.as_secs().max(1).to_string();
    run("ping", &["-n", "-c", "1", "-W", &seconds, &to.to_string()]).is_ok()
}
