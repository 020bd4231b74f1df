//! The wide-area relay: edges, wide area and capture put together, and the thread that moves the frames.

use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tun_rs::SyncDevice;

use crate::LabError;

mod exchange;

pub use exchange::{Exchange, HAIRPIN_MAC, Refusals, gateway_mac};

/// How long the thread sleeps at most before it looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(50);
/// How many frames of a cloud are read before others get their turn.
const BATCH_FRAMES: usize = 64;
/// The longest frame: an Ethernet header and the longest packet of IPv4.
const MAX_FRAME_BYTES: usize = crate::frame::ETHERNET_BYTES + 65_535;

/// The relay at work. It ends when this value is dropped.
#[derive(Debug)]
pub struct Relay {
    exchange: Arc<Mutex<Exchange>>,
    started: Instant,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Starts moving frames between these ports, of which the first belongs to site 0.
    ///
    /// # Errors
    /// When there is no thread to be had, or a port cannot be read without waiting.
    pub fn start(exchange: Exchange, ports: Vec<SyncDevice>) -> Result<Self, LabError> {
        for port in &ports {
            port.set_nonblocking(true).map_err(LabError::kernel("use a TAP without waiting"))?;
        }
        let (exchange, stop) = (Arc::new(Mutex::new(exchange)), Arc::new(AtomicBool::new(false)));
        let (theirs, told, started) = (Arc::clone(&exchange), Arc::clone(&stop), Instant::now());
        let thread = std::thread::Builder::new().name("wide-area".to_owned());
        let thread = thread.spawn(move || relay(&theirs, &ports, started, &told));
        let thread = thread.map_err(LabError::kernel("start the relay"))?;
        Ok(Self { exchange, started, stop, thread: Some(thread) })
    }

    /// Since when it has been at work: the time by which frames are taken down.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// What the relay goes by, to look at and to change while it works. It waits meanwhile: be quick.
    pub fn exchange(&self) -> MutexGuard<'_, Exchange> {
        lock(&self.exchange)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn lock(exchange: &Mutex<Exchange>) -> MutexGuard<'_, Exchange> {
    // Whoever panicked did so between two frames: each is taken or given within one call.
    exchange.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Moves frames until it is told to stop. A port that fails is a cloud that is gone: the others go on.
fn relay(exchange: &Mutex<Exchange>, ports: &[SyncDevice], started: Instant, stop: &AtomicBool) {
    let mut buffer = vec![0; MAX_FRAME_BYTES];
    while !stop.load(Ordering::Relaxed) {
        let due = lock(exchange).next_due();
        wait(ports, due.map_or(LOOK, |due| due.saturating_sub(started.elapsed()).min(LOOK)));
        for (site, port) in (0_u8..).zip(ports) {
            for _ in 0..BATCH_FRAMES {
                let Ok(length) = port.recv(&mut buffer) else { break };
                lock(exchange).take(started.elapsed(), crate::Site(site), &buffer[..length]);
            }
        }
        loop {
            let arrived = lock(exchange).give(started.elapsed());
            let Some((site, frame)) = arrived else { break };
            if let Some(port) = ports.get(usize::from(site.0)) {
                // The kernel takes a frame or drops it, as a wire would.
                let _: io::Result<usize> = port.send(&frame);
            }
        }
    }
}

/// Waits until a port has something, or for so long.
fn wait(ports: &[SyncDevice], longest: Duration) {
    let mut waiting: Vec<_> =
        ports.iter().map(|port| PollFd::from_borrowed_fd(port.as_fd(), PollFlags::IN)).collect();
    let timeout = Timespec { tv_sec: longest.as_secs() as i64, tv_nsec: longest.subsec_nanos().into() };
    // When it is interrupted, nothing is read, and it waits again.
    let _ = poll(&mut waiting, Some(&timeout));
}
