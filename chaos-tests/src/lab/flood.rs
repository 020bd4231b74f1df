//! Datagrams that must not arrive, in great number, and datagrams of which none may be lost.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::workload::Workload;

/// Datagrams that are sent at once: fewer than the kernel queues for one CPU (`net.core.netdev_max_backlog`,
/// 1000), so that the flood alone does not push others out.
const BURST: usize = 64;
/// Pause between bursts.
const PAUSE: Duration = Duration::from_millis(1);
/// How long a receiver waits before it looks whether it is to stop.
const RECEIVER_TICK: Duration = Duration::from_millis(50);
/// An answer that has not come by then does not come.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Pause between two questions of a flow.
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(2);

/// Threads that end with this value.
#[derive(Debug, Default)]
struct Threads {
    stop: Arc<AtomicBool>,
    running: Vec<JoinHandle<()>>,
}

impl Threads {
    fn repeat(&mut self, mut turn: impl FnMut() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        let run = move || {
            while !stop.load(Ordering::Relaxed) {
                turn();
            }
        };
        self.running.push(thread::spawn(run));
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.running.drain(..) {
            let _ = thread.join();
        }
    }
}

/// A flood of datagrams, until it is dropped.
#[derive(Debug, Default)]
pub struct Flood {
    sent: Arc<AtomicU64>,
    threads: Threads,
}

impl Flood {
    /// Sends as `from` to an address, beside what is sent already.
    ///
    /// # Errors
    /// When no socket can be made there.
    pub fn add(&mut self, from: &Workload, to: SocketAddr) -> anyhow::Result<()> {
        let socket = from.run(|| connected(to))??;
        let sent = Arc::clone(&self.sent);
        self.threads.repeat(move || {
            // What the sender's own kernel refuses was not sent.
            let taken = (0..BURST).filter(|_| socket.send(b"forbidden").is_ok()).count();
            sent.fetch_add(taken as u64, Ordering::Relaxed);
            thread::sleep(PAUSE);
        });
        Ok(())
    }

    /// How many datagrams left so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// Counts what arrives at a port, and answers those who may ask, until it is dropped.
#[derive(Debug)]
pub struct Guest {
    arrived: Arc<AtomicU64>,
    _threads: Threads,
}

impl Guest {
    /// Listens at a port. What comes from `welcome` is answered with the same; all else is counted.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub fn listen(at: &Workload, port: u16, welcome: &[IpAddr]) -> anyhow::Result<Self> {
        let socket = at.run(|| UdpSocket::bind(SocketAddr::from(([0; 16], port))))??;
        socket.set_read_timeout(Some(RECEIVER_TICK))?;
        let (arrived, welcome) = (Arc::new(AtomicU64::new(0)), welcome.to_vec());
        let (count, mut threads, mut buffer) = (Arc::clone(&arrived), Threads::default(), [0; 64]);
        threads.repeat(move || {
            let Ok((length, from)) = socket.recv_from(&mut buffer) else { return };
            if welcome.contains(&from.ip().to_canonical()) {
                let _ = socket.send_to(&buffer[..length], from);
            } else {
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        Ok(Self { arrived, _threads: threads })
    }

    /// How many datagrams came from others.
    #[must_use]
    pub fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }
}

/// One question after the other, each with a number of its own, until it is dropped.
#[derive(Debug)]
pub struct Flow {
    answered: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
    _threads: Threads,
}

impl Flow {
    /// Asks `to` as `from`; a [`Guest`] answers.
    ///
    /// # Errors
    /// When no socket can be made there.
    pub fn start(from: &Workload, to: SocketAddr) -> anyhow::Result<Self> {
        let socket = from.run(|| connected(to))??;
        socket.set_read_timeout(Some(LOST_AFTER))?;
        let (answered, lost, mut number) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), 0_u64);
        let (good, bad, mut threads) = (Arc::clone(&answered), Arc::clone(&lost), Threads::default());
        threads.repeat(move || {
            number += 1;
            let counter = if answers(&socket, number).is_ok() { &good } else { &bad };
            counter.fetch_add(1, Ordering::Relaxed);
            thread::sleep(BETWEEN_QUESTIONS);
        });
        Ok(Self { answered, lost, _threads: threads })
    }

    /// How many questions were answered.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// How many were not.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

fn answers(socket: &UdpSocket, number: u64) -> io::Result<()> {
    socket.send(&number.to_be_bytes())?;
    let mut answer = [0; 8];
    loop {
        socket.recv(&mut answer)?;
        // A late answer to one that was given up is none to this.
        if u64::from_be_bytes(answer) == number {
            return Ok(());
        }
    }
}

fn connected(to: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0; 16], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(to)?;
    Ok(socket)
}
