//! Doors into the networks of nodes.
//!
//! With real packets every node has a network of its own, in which its DNS and its API listen on loopback
//! addresses that mean nothing outside. A door listens on a loopback port of the host and hands each
//! question, and each connection, to the address inside. It adds nothing and understands nothing, so what
//! is measured through it is the node.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, mpsc},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Most questions under way through one door; further ones are dropped, as a full socket would.
const MAX_QUESTIONS: usize = 256;
/// Most connections through one door; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long an answer is waited for: no resolver waits longer.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How long to wait before accepting again when the process is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Largest datagram.
const MAX_DATAGRAM: usize = 65_535;

/// What is let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Connections.
    Tcp,
    /// Questions, each with one answer.
    Udp,
}

/// One door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Door {
    pub(crate) kind: Kind,
    /// Where it listens, on the host.
    pub(crate) outside: SocketAddr,
    /// Where it leads, inside.
    pub(crate) inside: SocketAddr,
}

/// Doors that are open; they close with this value.
#[derive(Debug)]
pub(crate) struct Doors {
    open: CancellationToken,
}

impl Drop for Doors {
    fn drop(&mut self) {
        self.open.cancel();
    }
}

/// What keeps doors open, to be run inside.
pub(crate) type Keep = Box<dyn FnOnce() -> anyhow::Result<()> + Send>;

/// A socket that listens outside, with the address inside.
enum Listening {
    Tcp(std::net::TcpListener, SocketAddr),
    Udp(std::net::UdpSocket, SocketAddr),
}

impl Doors {
    /// Opens `doors` from the network of the calling thread into that in which `within` runs what it is
    /// given, on a thread of their own: a socket belongs to the namespace that it was made in.
    ///
    /// # Errors
    /// When a door cannot listen, or the network cannot be entered.
    pub(crate) async fn open(
        doors: &[Door],
        within: impl FnOnce(Keep) -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let listening = doors.iter().map(listen).collect::<anyhow::Result<Vec<_>>>()?;
        let (open, (entered, mut inside)) = (CancellationToken::new(), mpsc::channel(1));
        let (until, ready) = (open.clone(), entered.clone());
        let keep: Keep = Box::new(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            // The one that is told waits for exactly one word.
            let _ = ready.try_send(Ok(()));
            runtime.block_on(keep_open(listening, until));
            Ok(())
        });
        let run = move || {
            if let Err(error) = within(keep) {
                let _ = entered.try_send(Err(error));
            }
        };
        thread::Builder::new().name("doors".into()).spawn(run).context("cannot start a thread")?;
        inside.recv().await.context("the thread of a door ended")??;
        Ok(Self { open })
    }
}

fn listen(door: &Door) -> anyhow::Result<Listening> {
    let bound = || {
        Ok::<_, std::io::Error>(match door.kind {
            Kind::Tcp => {
                let socket = std::net::TcpListener::bind(door.outside)?;
                socket.set_nonblocking(true)?;
                Listening::Tcp(socket, door.inside)
            }
            Kind::Udp => {
                let socket = std::net::UdpSocket::bind(door.outside)?;
                socket.set_nonblocking(true)?;
                Listening::Udp(socket, door.inside)
            }
        })
    };
    bound().with_context(|| format!("cannot listen on {}", door.outside))
}

async fn keep_open(listening: Vec<Listening>, open: CancellationToken) {
    let tasks = TaskTracker::new();
    for socket in listening {
        let (until, within) = (open.clone(), tasks.clone());
        // Both conversions only register what is there; without a reactor nothing would run at all.
        match socket {
            Listening::Tcp(socket, inside) => {
                let Ok(socket) = TcpListener::from_std(socket) else { continue };
                tasks.spawn(until.clone().run_until_cancelled_owned(tcp_door(socket, inside, until, within)));
            }
            Listening::Udp(socket, inside) => {
                let Ok(socket) = UdpSocket::from_std(socket) else { continue };
                tasks.spawn(until.run_until_cancelled_owned(udp_door(socket, inside, within)));
            }
        }
    }
    open.cancelled().await;
}

async fn tcp_door(door: TcpListener, inside: SocketAddr, open: CancellationToken, tasks: TaskTracker) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // The semaphore is never closed.
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let Ok((mut outer, _)) = door.accept().await else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let pass = async move {
            // Whoever cannot be reached inside is not reached outside: the connection just closes.
            if let Ok(mut inner) = TcpStream::connect(inside).await {
                let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
            }
            drop(slot);
        };
        tasks.spawn(open.clone().run_until_cancelled_owned(pass));
    }
}

async fn udp_door(door: UdpSocket, inside: SocketAddr, tasks: TaskTracker) {
    let (door, slots) = (Arc::new(door), Arc::new(Semaphore::new(MAX_QUESTIONS)));
    let mut datagram = vec![0; MAX_DATAGRAM];
    loop {
        let Ok((length, asker)) = door.recv_from(&mut datagram).await else {
            // An answer that somebody did not wait for comes back as an error of the next call.
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let (question, door) = (datagram[..length].to_vec(), Arc::clone(&door));
        tasks.spawn(async move {
            if let Ok(Ok(answer)) = timeout(ANSWER_LIMIT, ask(inside, &question)).await {
                let _ = door.send_to(&answer, asker).await;
            }
            drop(slot);
        });
    }
}

/// Asks from a socket of its own, so that an answer belongs to one question.
async fn ask(inside: SocketAddr, question: &[u8]) -> std::io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    socket.connect(inside).await?;
    socket.send(question).await?;
    let mut answer = vec![0; MAX_DATAGRAM];
    let length = socket.recv(&mut answer).await?;
    answer.truncate(length);
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A free port for both kinds, as far as anybody can tell.
    fn free() -> SocketAddr {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
        socket.local_addr().expect("an address")
    }

    #[tokio::test]
    async fn questions_and_connections_go_through() {
        let udp = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        let tcp = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let inside = (udp.local_addr().expect("an address"), tcp.local_addr().expect("an address"));
        let outside = free();
        let doors = [
            Door { kind: Kind::Udp, outside, inside: inside.0 },
            Door { kind: Kind::Tcp, outside, inside: inside.1 },
        ];
        let doors = Doors::open(&doors, |keep| keep()).await.expect("open");

        let asker = UdpSocket::bind("127.0.0.1:0").await.expect("bound");
        asker.send_to(b"ping", outside).await.expect("sent");
        let mut heard = [0; 16];
        let (length, from) = udp.recv_from(&mut heard).await.expect("a question");
        assert_eq!(&heard[..length], b"ping");
        udp.send_to(b"pong", from).await.expect("answered");
        let (length, from) = asker.recv_from(&mut heard).await.expect("an answer");
        assert_eq!((&heard[..length], from), (&b"pong"[..], outside));

        let mut outer = TcpStream::connect(outside).await.expect("connected");
        let (mut inner, _) = tcp.accept().await.expect("accepted");
        outer.write_all(b"hello").await.expect("sent");
        let mut heard = [0; 5];
        inner.read_exact(&mut heard).await.expect("received");
        assert_eq!(&heard, b"hello");

        drop(doors);
        assert_eq!(
            outer.read(&mut heard).await.unwrap_or_default(),
            0,
            "a door closes with what went through"
        );
    }

    #[tokio::test]
    async fn a_network_that_cannot_be_entered_is_an_error() {
        let doors = [Door { kind: Kind::Tcp, outside: free(), inside: free() }];
        let error = Doors::open(&doors, |_| anyhow::bail!("no such network")).await.expect_err("closed");
        assert!(error.to_string().contains("no such network"), "{error:#}");
    }
}
