//! What the processes of these tests do, within a process tree or outside of all.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::net::{AddressFamily, SocketType, bind, connect, socket};
use selvedge_chaos_tests::lab::dns;

/// What the contract allows, TCP and UDP.
const ALLOWED: u16 = 80;
/// Served as well, and in no contract.
const FORBIDDEN: u16 = 81;
/// What the server ends with.
pub(super) const CODE: i32 = 7;
/// How long is waited for an answer that is expected, however busy the machine is.
const ANSWER: Duration = Duration::from_secs(10);
/// How long for one that must not come: short, because all of it is waited for.
const SILENCE: Duration = Duration::from_millis(500);
/// Nobody answered.
pub(super) const NOBODY: &str = "-";
/// What a process is told to do.
pub(super) const TASK: &str = "SELVEDGE_TEST_TASK";
/// The arguments by which this binary does it.
pub(super) const ARGUMENTS: &str = "process_tree::tasks::process --exact --nocapture";

/// Not a test of its own: the process that the others start.
#[test]
fn process() {
    let Ok(task) = std::env::var(TASK) else { return };
    println!();
    let words: Vec<_> = task.split(' ').collect();
    match words[..] {
        ["serve"] => serve(),
        ["ask", to, from, expected] => ask_web(to.parse().unwrap(), from.parse().ok(), expected == "yes"),
        ["resolve"] => resolve(),
        _ => panic!("{task}"),
    }
}

fn serve() -> ! {
    for any in [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)] {
        for port in [ALLOWED, FORBIDDEN] {
            let listener = TcpListener::bind((any, port)).unwrap();
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let peer = stream.peer_addr().unwrap().ip();
                    let _ = write!(stream, "{peer}");
                }
            });
        }
        let socket = UdpSocket::bind((any, ALLOWED)).unwrap();
        thread::spawn(move || {
            loop {
                let (_, peer) = socket.recv_from(&mut [0; 16]).unwrap();
                let _ = socket.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
    }
    println!("ready");
    let _ = std::io::stdin().read(&mut [0]);
    std::process::exit(CODE)
}

/// Prints whom the server saw: by one datagram, by TCP, and on the other port.
fn ask_web(to: IpAddr, from: Option<IpAddr>, expected: bool) {
    let patience = if expected { ANSWER } else { SILENCE };
    let (allowed, forbidden) = (SocketAddr::new(to, ALLOWED), SocketAddr::new(to, FORBIDDEN));
    let seen = [
        seen_by_datagram(allowed, from, patience),
        seen_by(allowed, from, patience),
        seen_by(forbidden, from, SILENCE),
    ];
    for (word, seen) in WORDS.iter().zip(seen) {
        println!("{word}{}", seen.unwrap_or_else(|_| NOBODY.to_owned()));
    }
}

/// Before what is printed of each.
const WORDS: [&str; 3] = ["datagram: ", "stream: ", "forbidden: "];

/// Sent once: when the first packet of a process is lost, nobody sends it again.
fn seen_by_datagram(to: SocketAddr, from: Option<IpAddr>, patience: Duration) -> anyhow::Result<String> {
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = UdpSocket::bind((from.unwrap_or(any), 0))?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(patience))?;
    socket.send(b"who?")?;
    let mut seen = [0; 64];
    let length = socket.recv(&mut seen)?;
    Ok(String::from_utf8(seen[..length].to_vec())?)
}

fn seen_by(to: SocketAddr, from: Option<IpAddr>, patience: Duration) -> anyhow::Result<String> {
    let mut stream = match from {
        None => TcpStream::connect_timeout(&to, patience)?,
        Some(from) => {
            let family = if to.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let fd = socket(family, SocketType::STREAM, None)?;
            bind(&fd, &SocketAddr::new(from, 0))?;
            let stream = TcpStream::from(fd);
            // This is how long the kernel tries to connect as well.
            stream.set_write_timeout(Some(patience))?;
            connect(&stream, &to)?;
            stream
        }
    };
    stream.set_read_timeout(Some(patience))?;
    let mut seen = String::new();
    stream.read_to_string(&mut seen)?;
    Ok(seen)
}

/// Prints what the name of the contract is, as programs find it.
fn resolve() {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap();
    let server = text.lines().find_map(|l| l.strip_prefix("nameserver ")).unwrap();
    let found =
        dns::addresses((server.parse::<IpAddr>().unwrap(), 53).into(), "front.shop.fabric.internal").unwrap();
    println!("found {found:?}");
}

pub(super) fn printed(mut command: Command) -> anyhow::Result<Vec<String>> {
    let output = command.stderr(Stdio::piped()).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {said}", output.status);
    Ok(String::from_utf8(output.stdout)?.lines().map(str::to_owned).collect())
}

pub(super) fn ask_task(to: IpAddr, from: Option<IpAddr>, expected: bool) -> String {
    let from = from.map_or(NOBODY.to_owned(), |from| from.to_string());
    format!("ask {to} {from} {}", if expected { "yes" } else { "no" })
}

pub(super) fn answers(lines: &[String]) -> anyhow::Result<[String; 3]> {
    let answer = |word| {
        let found = lines.iter().find_map(|line| line.strip_prefix(word));
        found.map(str::to_owned).with_context(|| format!("no answer in {lines:?}"))
    };
    let [datagram, stream, forbidden] = WORDS;
    Ok([answer(datagram)?, answer(stream)?, answer(forbidden)?])
}
