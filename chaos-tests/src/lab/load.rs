//! What users do all the time: they ask for names, connect, and talk; and what came of it, by time.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsFd as _,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::{
    PATIENCE, dns, eventually,
    workload::{Probe, Workload, answers},
};

/// Most attempts that are kept, of which each takes tens of bytes.
const MAX_ATTEMPTS: usize = 2_000_000;
/// How long one name or one connection is waited for.
const ONE_ATTEMPT: Duration = Duration::from_secs(1);
/// Pause between two exchanges of a conversation.
const BEAT: Duration = Duration::from_millis(5);
/// Exchanges that say that it goes on.
const STEADY: u64 = 20;

/// When something was tried, and what went wrong.
type Attempt = (Instant, Option<String>);

/// Something that is tried again and again, until this value is dropped.
#[derive(Debug)]
pub struct Attempts {
    made: Arc<Mutex<Vec<Attempt>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// What came of attempts in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Share {
    /// How many there were.
    pub tries: usize,
    /// How many of them failed.
    pub failed: usize,
    /// How long after its beginning the first of these was, and why it failed.
    pub first: Option<(Duration, String)>,
}

impl Attempts {
    /// Tries, pauses, and tries again, in the network at `netns`.
    ///
    /// # Errors
    /// When that network cannot be opened.
    pub fn start(
        netns: &Path,
        pause: Duration,
        mut attempt: impl FnMut() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let network = File::open(netns).with_context(|| format!("cannot open {}", netns.display()))?;
        let (made, stop) = (Arc::<Mutex<Vec<Attempt>>>::default(), Arc::<AtomicBool>::default());
        let (notes, over) = (Arc::clone(&made), Arc::clone(&stop));
        let run = move || {
            let entered = move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network));
            while !over.load(Ordering::Relaxed) {
                let began = Instant::now();
                let failed = match &entered {
                    Ok(()) => attempt().err().map(|error| format!("{error:#}")),
                    Err(error) => Some(format!("cannot enter the network: {error}")),
                };
                let mut notes = locked(&notes);
                if notes.len() < MAX_ATTEMPTS {
                    notes.push((began, failed));
                }
                drop(notes);
                thread::sleep(pause);
            }
        };
        Ok(Self { made, stop, thread: Some(thread::spawn(run)) })
    }

    /// Clients of a contract: each looks for its address and connects to it, for an answer.
    ///
    /// # Errors
    /// When the workload is not there.
    pub fn of_clients(at: &Workload, name: &str, port: u16, pause: Duration) -> anyhow::Result<Self> {
        let (server, name) = (SocketAddr::new(at.name_server()?, 53), name.to_owned());
        let mut number = 0_usize;
        Self::start(&at.netns(), pause, move || {
            let addresses = dns::addresses_within(server, &name, ONE_ATTEMPT)?;
            // One after the other: a client that takes the first alone may never ask the others.
            number += 1;
            let chosen = addresses.get(number % addresses.len().max(1)).context("no address")?;
            let to: IpAddr = chosen.parse()?;
            answers(to, Probe::Tcp(port), ONE_ATTEMPT).with_context(|| format!("{to} does not answer"))
        })
    }

    /// Questions for the address of a name to the server of a node, on its own host.
    ///
    /// # Errors
    /// When the host is not there.
    pub fn of_questions(netns: &Path, name: &str, pause: Duration) -> anyhow::Result<Self> {
        let (server, name) = (SocketAddr::from((Ipv4Addr::LOCALHOST, 53)), name.to_owned());
        Self::start(netns, pause, move || {
            let addresses = dns::addresses_within(server, &name, ONE_ATTEMPT)?;
            ensure!(!addresses.is_empty(), "no address");
            Ok(())
        })
    }

    /// What came of those that began in this time.
    #[must_use]
    pub fn between(&self, from: Instant, to: Instant) -> Share {
        let mut share = Share::default();
        for (began, failed) in locked(&self.made).iter().filter(|(began, _)| *began >= from && *began < to) {
            share.tries += 1;
            if let Some(why) = failed {
                share.failed += 1;
                share.first.get_or_insert_with(|| (*began - from, why.clone()));
            }
        }
        share
    }

    /// The longest time without a success that began, after the first success.
    #[must_use]
    pub fn longest_gap(&self) -> Duration {
        let made = locked(&self.made);
        let good: Vec<_> =
            made.iter().filter(|(_, failed)| failed.is_none()).map(|(began, _)| *began).collect();
        good.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    }
}

impl Drop for Attempts {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A TCP connection on which numbers go back and forth.
#[derive(Debug)]
pub struct Conversation {
    exchanges: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    ends: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Conversation {
    /// Connects to an address of another workload, where nobody listens yet.
    ///
    /// # Errors
    /// When there is no connection within [`PATIENCE`].
    pub fn start(client: &Workload, server: &Workload, to: SocketAddr) -> anyhow::Result<Self> {
        let listener = server.run(|| TcpListener::bind(to))??;
        let mut stream = None;
        eventually("no connection", PATIENCE, || {
            stream = Some(client.run(|| TcpStream::connect_timeout(&to, PATIENCE / 30))??);
            Ok(())
        })?;
        let stream = stream.context("no connection")?;
        let (exchanges, over) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
        let (count, ended) = (Arc::clone(&exchanges), Arc::clone(&over));
        let ends = vec![
            thread::spawn(move || converse(stream, &count, &ended)),
            thread::spawn(move || echo(&listener)),
        ];
        Ok(Self { exchanges, over, ends })
    }

    /// Waits until it goes on; returns how long that took.
    ///
    /// # Errors
    /// When it does not.
    pub fn goes_on(&self, after: &str) -> anyhow::Result<Duration> {
        let before = self.exchanges.load(Ordering::Relaxed);
        let took = eventually(&format!("{after}, and the connection stands still"), PATIENCE, || {
            let now = self.exchanges.load(Ordering::Relaxed);
            ensure!(now > before + STEADY, "{} exchanges since", now - before);
            Ok(())
        })?;
        println!("{after}: the connection went on within {took:?}");
        Ok(took)
    }

    /// Ends it.
    ///
    /// # Errors
    /// When it broke before.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.over.store(true, Ordering::Relaxed);
        for end in self.ends.drain(..) {
            end.join().map_err(|_| anyhow::anyhow!("it panicked"))?.context("the connection broke")?;
        }
        Ok(())
    }
}

impl Drop for Conversation {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn converse(mut stream: TcpStream, exchanges: &AtomicU64, over: &AtomicBool) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    while !over.load(Ordering::Relaxed) {
        let number = exchanges.fetch_add(1, Ordering::Relaxed);
        stream.write_all(&number.to_be_bytes())?;
        let mut back = [0; 8];
        stream.read_exact(&mut back)?;
        ensure!(u64::from_be_bytes(back) == number, "what came back is not what was sent");
        thread::sleep(BEAT);
    }
    Ok(())
}

/// Sends back what comes, on one connection, until its other end closes it.
fn echo(listener: &TcpListener) -> anyhow::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_judged_by_when_they_began() {
        let mut number = 0;
        let own = Path::new("/proc/self/ns/net");
        let attempt = move || {
            number += 1;
            ensure!(number != 2, "the second");
            Ok(())
        };
        let began = Instant::now();
        let attempts =
            Attempts::start(own, Duration::ZERO, attempt).expect("a namespace that this process is in");
        while attempts.between(began, Instant::now()).tries < 10 {
            thread::sleep(Duration::from_millis(1));
        }
        let share = attempts.between(began, Instant::now());
        // Without the right to enter even its own network, all of them fail.
        let first = share.first.expect("a failure").1;
        if !first.contains("cannot enter") {
            assert_eq!((share.failed, first.as_str()), (1, "the second"));
            assert!(attempts.longest_gap() > Duration::ZERO);
        }
        assert_eq!(attempts.between(began, began), Share::default());
    }
}
