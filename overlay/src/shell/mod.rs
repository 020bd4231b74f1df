//! The router at work: tied to the transport's links, a TUN and the clock.
//!
//! One task moves everything: packets of the TUN, datagrams of links, plans, time. Each wake takes what
//! there is, in batches, so that the cost of waking is shared and what belongs together is joined.

mod connections;
mod inbox;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use selvedge_fabric::{
    event::{EventSink, Pulse, vital},
    id::{ContractRef, NodeName},
    key::NodeId,
    plan::Routing,
    record::LinkFact,
};
use selvedge_transport::{Alpn, Transport};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use zeroize::Zeroizing;

use self::{connections::Connections, inbox::Inbox};
use crate::{
    Counters, Difference, LinkStatus, Micros, Output, QUALITY_INTERVAL_US, Refusal, RouteStatus, Router,
    Settings, Tun, facts_differ,
};

/// What it is called where tasks are watched over.
const TASK: &str = "overlay";
/// How often time is looked at: links are noticed dead, and connections made, this much later.
const TICK: Duration = Duration::from_millis(25);
/// Datagrams that are taken at once.
const BATCH: usize = 128;
/// Pause after the TUN gave an error, so that a broken one does not use up the CPU.
const TUN_PAUSE_US: Micros = 100_000;

/// What an overlay needs.
pub struct Options {
    /// Whose links carry it.
    pub transport: Transport,
    /// This node.
    pub me: NodeId,
    /// The secret half of the sealing key with which it was admitted (X25519).
    pub sealing_secret: Zeroizing<[u8; 32]>,
    /// The routing half of the plan. The overlay follows it soon; [`Overlay::take_over`] makes it follow now.
    pub routing: watch::Receiver<Arc<Routing>>,
    /// Where packets of this host come from and go to.
    pub tun: Arc<dyn Tun>,
    /// Whether direct links to nodes with which there is traffic are tried.
    pub direct: bool,
    /// Who watches over its task.
    pub events: Arc<dyn EventSink>,
}

/// The overlay of a node. Clones share it.
#[derive(Clone)]
pub struct Overlay {
    shared: Arc<Shared>,
    facts: watch::Receiver<Arc<Vec<LinkFact>>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What the task and those who ask it share.
struct Shared {
    router: Mutex<Router>,
    routing: watch::Receiver<Arc<Routing>>,
    /// What the router was given last.
    taken: Mutex<Option<Arc<Routing>>>,
    started: Instant,
}

impl Shared {
    /// Gives the router the newest routing, unless it has it. Locked from end to end: an older one never
    /// follows a newer one.
    fn take_over(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = Arc::clone(&self.routing.borrow());
        if taken.as_ref().is_none_or(|taken| !Arc::ptr_eq(taken, &newest)) {
            self.router().handle_plan(Arc::clone(&newest), self.now());
            *taken = Some(newest);
        }
    }

    fn now(&self) -> Micros {
        u64::try_from(self.started.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn router(&self) -> MutexGuard<'_, Router> {
        self.router.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Overlay {
    /// Starts it. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let Options { transport, me, sealing_secret, routing, tun, direct, events } = options;
        let settings = Settings { me, sealing_secret, first_session: random(), direct };
        let shared = Arc::new(Shared {
            router: Mutex::new(Router::new(settings)),
            routing: routing.clone(),
            taken: Mutex::default(),
            started: Instant::now(),
        });
        let (inbox, datagrams) = Inbox::new();
        transport.handle(Alpn::Link, inbox.clone());
        let (facts_out, facts) = watch::channel(Arc::new(Vec::new()));
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mover = Mover {
            shared: Arc::clone(&shared),
            connections: Connections::new(transport),
            routing,
            tun,
            inbox,
            datagrams,
            packets: Vec::new(),
            facts: facts_out,
            told_at: 0,
            events: Arc::clone(&events),
        };
        let moving = stop.clone().run_until_cancelled_owned(mover.run());
        tasks.spawn(vital(events, TASK, moving));
        tasks.close();
        Self { shared, facts, tasks, stop }
    }

    /// Follows the newest routing. When it returns, no packet is judged by an earlier one.
    pub fn take_over(&self) {
        self.shared.take_over();
    }

    /// The links that work, as facts for other nodes; changes when a link comes or goes, and now and then
    /// when one is measured anew.
    #[must_use]
    pub fn facts(&self) -> watch::Receiver<Arc<Vec<LinkFact>>> {
        self.facts.clone()
    }

    /// The links of this node.
    #[must_use]
    pub fn links(&self) -> Vec<LinkStatus> {
        self.shared.router().links()
    }

    /// The ways to all other nodes, where no contract constrains them.
    #[must_use]
    pub fn routes(&self) -> Vec<RouteStatus> {
        self.shared.router().routes()
    }

    /// What was sent, delivered, carried and refused.
    #[must_use]
    pub fn counters(&self) -> Counters {
        *self.shared.router().counters()
    }

    /// The nodes over which a packet of a contract would go from here.
    ///
    /// # Errors
    /// Why there is no way.
    pub fn trace(&self, contract: Option<&ContractRef>, to: &NodeName) -> Result<Vec<NodeName>, Refusal> {
        self.shared.router().trace(contract, to)
    }

    /// Ends it. Links are left to the transport.
    pub async fn shutdown(&self) {
        self.stop.cancel();
        self.tasks.wait().await;
    }
}

/// The task that moves everything.
struct Mover {
    shared: Arc<Shared>,
    connections: Connections,
    routing: watch::Receiver<Arc<Routing>>,
    tun: Arc<dyn Tun>,
    inbox: Arc<Inbox>,
    datagrams: mpsc::Receiver<(NodeId, Bytes)>,
    /// On the way to the TUN.
    packets: Vec<Bytes>,
    facts: watch::Sender<Arc<Vec<LinkFact>>>,
    told_at: Micros,
    events: Arc<dyn EventSink>,
}

impl Mover {
    async fn run(mut self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut received, mut outgoing, mut tun_resumes) = (Vec::with_capacity(BATCH), Vec::new(), 0);
        self.routing.mark_unchanged();
        self.shared.take_over();
        loop {
            tokio::select! {
                _ = tick.tick() => self.tick(),
                Ok(()) = self.routing.changed() => self.shared.take_over(),
                _ = self.datagrams.recv_many(&mut received, BATCH) => self.take_datagrams(&mut received),
                result = self.tun.receive(&mut outgoing), if self.now() >= tun_resumes => match result {
                    Ok(()) => self.take_packets(&mut outgoing),
                    Err(error) => {
                        tracing::debug!(%error, "the TUN gives nothing");
                        tun_resumes = self.now() + TUN_PAUSE_US;
                    }
                },
            }
            self.put_out().await;
        }
    }

    fn now(&self) -> Micros {
        self.shared.now()
    }

    fn tick(&mut self) {
        self.events.pulse(TASK, Pulse::Turned);
        let now = self.now();
        let mut router = self.shared.router();
        for _ in 0..self.inbox.take_refused() {
            router.refuse(Refusal::QueueFull);
        }
        self.connections.maintain(&mut router, &self.routing.borrow(), now);
        router.handle_tick(now);
        let facts = router.facts();
        drop(router);
        self.tell(facts, now);
    }

    /// Publishes facts that changed: at once when a link came or went, else at times.
    fn tell(&mut self, facts: Vec<LinkFact>, now: Micros) {
        let due = match facts_differ(&self.facts.borrow(), &facts) {
            None => false,
            Some(Difference::Links) => true,
            Some(Difference::Quality) => now >= self.told_at + QUALITY_INTERVAL_US,
        };
        if due {
            self.told_at = now;
            self.facts.send_replace(Arc::new(facts));
        }
    }

    fn take_datagrams(&self, received: &mut Vec<(NodeId, Bytes)>) {
        let now = self.now();
        let mut router = self.shared.router();
        for (from, bytes) in received.drain(..) {
            router.handle_datagram(from, &bytes, now);
        }
    }

    fn take_packets(&self, outgoing: &mut Vec<Bytes>) {
        let now = self.now();
        let mut router = self.shared.router();
        for packet in outgoing.drain(..) {
            router.handle_packet(packet, now);
        }
    }

    /// Does what the router wants done.
    async fn put_out(&mut self) {
        {
            let now = self.now();
            let mut router = self.shared.router();
            while let Some(output) = router.poll() {
                match output {
                    Output::Datagram { to, bytes } => {
                        if let Some(why) = self.connections.send(&mut router, to, bytes, now) {
                            router.refuse(why);
                        }
                    }
                    Output::Packet(packet) => self.packets.push(packet),
                }
            }
        }
        if self.packets.is_empty() {
            return;
        }
        let refused = self.tun.send(&mut self.packets).await;
        for _ in 0..refused {
            self.shared.router().refuse(Refusal::TunFull);
        }
    }
}

fn random() -> u32 {
    let mut bytes = [0; 4];
    // Without randomness no handshake comes about either; session numbers need only differ.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_be_bytes(bytes)
}
