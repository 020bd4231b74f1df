//! The one task of membership: feeds the core with what comes in and does what it says.
//!
//! It owns all state, so there are no locks to hold wrongly, and it never waits for another task: what it
//! sends goes by `try_send` or `watch`, and disk writes run beside it, one at a time.

mod news;
mod output;
mod sight;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use selvedge_fabric::{
    event::{Pulse, Severity},
    id::NodeName,
    key::{NodeId, PublicKey},
    policy::PolicyState,
    record::{Body, LinkFact, MAX_LINKS, Presence, Topic},
    statement::{RevocationError, SignedRevocation},
    view::View,
};
use selvedge_transport::Alpn;
use tokio::{
    sync::{mpsc, watch},
    task::JoinHandle,
    time::MissedTickBehavior,
};
use tokio_util::sync::CancellationToken;

use crate::{
    carrier::{Candidate, Carrier, Command, Event as CarrierEvent, Peers},
    clock::Clock,
    core::{
        Now,
        detector::Detector,
        gossip::{Event, Gossip, Transmit},
        judge::Judgement,
        outlook::Outlook,
        own::{Identity, Own},
        sights::Node,
        store::{Dropped, Key, RecordStore},
        view::{Inputs, ViewBuilder},
        watch::{Nudge, REFUSALS},
    },
    disk::{Batch, Disk, DiskError, Loaded},
    membership::{Inbox, Options, Shared},
    poker::Poker,
    probes::Probe,
    reports::Reports,
};

/// What it is called where tasks are watched over.
pub(crate) const TASK: &str = "membership";
/// Resolution of all time-outs.
const TICK: Duration = Duration::from_millis(50);
/// Changes are gathered for so long before a view is built: a burst becomes one view.
const VIEW_INTERVAL_MS: u64 = 20;
/// A view is built so often even when nothing seems to have changed: something may have expired.
const REVIEW_INTERVAL_MS: u64 = 1_000;
/// Facts are written to disk at most this often.
const WRITE_INTERVAL_MS: u64 = 1_000;
/// Round trips are read this often.
const RTT_INTERVAL_MS: u64 = 1_000;

/// What the service is made of.
pub(crate) struct Parts {
    pub(crate) options: Options,
    pub(crate) disk: Disk,
    pub(crate) shared: Arc<Shared>,
    pub(crate) carrier: Carrier,
    pub(crate) peers: watch::Sender<Peers>,
    pub(crate) view: watch::Sender<Arc<View>>,
    pub(crate) probes: mpsc::Receiver<(NodeId, Probe)>,
    pub(crate) clock: Clock,
    pub(crate) boot_nonce: u64,
    pub(crate) rng_seed: u64,
}

/// When which periodic work was done last.
#[derive(Debug, Default)]
struct Done {
    view_ms: u64,
    write_ms: u64,
    rtt_ms: u64,
    links_ms: u64,
    presence_ms: u64,
}

pub(crate) struct Service {
    parts: Parts,
    me: NodeId,
    policy: Arc<PolicyState>,
    gossip: Gossip,
    outlook: Outlook,
    poker: Poker,
    /// How often hosts said of an address that nobody listens there, as of the last look.
    unreachable: BTreeMap<SocketAddr, u64>,
    views: ViewBuilder,
    reports: Reports,
    seeds: BTreeMap<NodeName, Vec<SocketAddr>>,
    rtt_us: BTreeMap<NodeId, u32>,
    /// Until when this node vouches for whom.
    vouched: BTreeMap<NodeId, u64>,
    /// Whether somebody who probes the links themselves tells them: then connections are not told as links.
    links_are_told: bool,
    unwritten: Batch,
    writing: Option<JoinHandle<Result<(), DiskError>>>,
    done: Done,
    dirty: bool,
}

impl Service {
    pub(crate) fn new(mut parts: Parts, loaded: Loaded) -> Self {
        let now = parts.clock.now();
        let key = parts.options.signer.public_key();
        let timers = parts.options.timers;
        let policy = parts.options.policy.borrow_and_update().clone();
        let reports = Reports::new(parts.options.events.clone());
        if let Some(aside) = &loaded.set_aside {
            let message = format!(
                "the last known facts could not be read ({}); they are kept in {} and come back by gossip",
                aside.why,
                aside.path.display()
            );
            reports.tell(Severity::Warning, "facts-set-aside", parts.options.me.as_str(), message);
        }
        let (store, incarnation) = output::restore(&parts.options, &policy, loaded, &key);
        let own = Own::new(key, incarnation, parts.boot_nonce);
        let mut service = Self {
            me: key.node_id(),
            gossip: Gossip::new(store, own, timers.exchange_ms, parts.rng_seed),
            outlook: Outlook::new(key.node_id(), timers, now),
            poker: Poker::default(),
            unreachable: BTreeMap::new(),
            views: ViewBuilder::new(parts.options.me.clone()),
            reports,
            seeds: BTreeMap::new(),
            rtt_us: BTreeMap::new(),
            vouched: BTreeMap::new(),
            links_are_told: false,
            unwritten: Batch::new(),
            writing: None,
            done: Done::default(),
            dirty: true,
            policy,
            parts,
        };
        service.write_incarnation();
        service.take_policy(now);
        service.take_revocations();
        let known: Vec<NodeId> = service.outlook.roster.keys().copied().collect();
        known.into_iter().for_each(|id| service.feed_book(id));
        service.judge(now);
        service.publish_view(now);
        service
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut policy = self.parts.options.policy.clone();
        let mut revocations = self.parts.options.revocations.clone();
        let mut epoch = self.parts.options.epoch.clone();
        let shared = self.parts.shared.clone();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = self.parts.carrier.events.recv() => {
                    let now = self.parts.clock.now();
                    self.handle_carrier(event, now);
                    self.step(now);
                }
                Some((peer, probe)) = self.parts.probes.recv() => {
                    let now = self.parts.clock.now();
                    self.handle_probe(peer, probe, now);
                    self.step(now);
                }
                Ok(()) = policy.changed() => {
                    let now = self.parts.clock.now();
                    self.policy = policy.borrow_and_update().clone();
                    self.take_policy(now);
                    self.step(now);
                }
                Ok(()) = revocations.changed() => {
                    revocations.mark_unchanged();
                    let now = self.parts.clock.now();
                    self.take_revocations();
                    self.step(now);
                }
                Ok(()) = epoch.changed() => {
                    let now = self.parts.clock.now();
                    let present = *epoch.borrow_and_update();
                    self.gossip.handle_epoch(present);
                    self.step(now);
                }
                () = shared.wake.notified() => {
                    let now = self.parts.clock.now();
                    self.take_inbox(now);
                    self.step(now);
                }
                _ = tick.tick() => {
                    self.parts.options.events.pulse(TASK, Pulse::Turned);
                    let now = self.parts.clock.now();
                    self.handle_tick(now);
                    self.step(now);
                }
            }
        }
        self.finish().await;
    }

    /// Takes over who is admitted.
    fn take_policy(&mut self, now: Now) {
        for key in self.gossip.handle_policy(&self.policy, now) {
            self.unwritten.insert(key, None);
        }
        let incarnation = self.gossip.own().incarnation();
        let seed = self.parts.rng_seed.rotate_left(1);
        self.outlook.handle_policy(&self.policy, incarnation, seed, now);
        let roster = &self.outlook.roster;
        self.rtt_us.retain(|id, _| roster.contains_key(id));
        self.vouched.retain(|id, _| roster.contains_key(id));
        self.offer_peers();
        self.dirty = true;
    }

    fn take_revocations(&mut self) {
        let now = self.parts.options.revocations.borrow_and_update().clone();
        self.gossip.handle_revocations(now);
    }

    fn take_inbox(&mut self, now: Now) {
        let Inbox { said, vouched, seeds, leave } = std::mem::take(&mut *self.parts.shared.inbox());
        for body in said.into_values() {
            match body {
                // Made here, from what this node really saw.
                Body::Observations(_) => {}
                Body::Links(_) => {
                    self.links_are_told = true;
                    self.gossip.own().say(body, false);
                }
                body => self.gossip.own().say(body, false),
            }
        }
        for (name, incarnation) in vouched {
            let id = self.policy.nodes.get(&name).map(|admission| admission.key.node_id());
            // Who vouches for an earlier start has not noticed the restart yet.
            if let Some(id) = id.filter(|id| incarnation >= self.gossip.store().incarnation(*id)) {
                self.vouched.insert(id, now.mono_ms + self.parts.options.timers.vouch_ms);
                self.dirty = true;
            }
        }
        if let Some(seeds) = seeds {
            self.seeds = seeds;
            self.offer_peers();
        }
        if leave {
            let mut presence = self.own_presence();
            presence.leaving = true;
            self.gossip.own().say(Body::Presence(presence), true);
            if let Some(detector) = &mut self.outlook.detector {
                detector.leave(now.mono_ms);
            }
        }
        self.speak(now);
    }

    /// Signs what this node has to say, as far as it may speak now.
    fn speak(&mut self, now: Now) {
        let identity = Identity {
            fabric: self.parts.options.fabric,
            epoch: *self.parts.options.epoch.borrow(),
            signer: &*self.parts.options.signer,
        };
        self.gossip.handle_timeout(&identity, now);
    }

    fn own_presence(&self) -> Presence {
        match self.gossip.store().body(self.me, Topic::Presence) {
            Some(Body::Presence(presence)) => presence.clone(),
            _ => Presence::default(),
        }
    }

    fn handle_carrier(&mut self, event: CarrierEvent, now: Now) {
        match event {
            CarrierEvent::Connected(peer) => self.gossip.handle_connected(peer, now),
            CarrierEvent::Disconnected(peer) => self.gossip.handle_disconnected(peer),
            CarrierEvent::Push { from, record, message } => {
                let verdict = self.gossip.handle_push(from, *record, now);
                self.command(Command::Judge { message, verdict });
            }
            CarrierEvent::Asked { from, request, ticket } => {
                let response = self.gossip.handle_request(from, request, now);
                self.command(Command::Answer { ticket, response });
            }
            CarrierEvent::Answered { from, response } => self.gossip.handle_response(from, response, now),
            CarrierEvent::Failed(peer) => self.gossip.handle_failure(peer),
            CarrierEvent::Malformed(peer) => {
                self.parts.shared.counters.malformed_messages.add(1);
                let subject = self.name_of(peer);
                let message = "sent bytes on the gossip port that are no message; they were dropped".into();
                self.reports.tell_once(
                    now.mono_ms,
                    Severity::Security,
                    "gossip-malformed",
                    &subject,
                    message,
                );
            }
            CarrierEvent::Refused { peer, address } => {
                self.parts.shared.counters.refused_peers.add(1);
                let message = format!(
                    "a gossip connection with {address} was closed: its key (peer id {peer}) is not admitted"
                );
                self.reports.tell_once(now.mono_ms, Severity::Security, "peer-refused", &peer, message);
            }
        }
    }

    fn handle_probe(&mut self, peer: NodeId, probe: Probe, now: Now) {
        self.outlook.watch.handle_heard(peer, now.mono_ms);
        match probe {
            Probe::Ping => self.send_probe(peer, &Probe::Pong),
            Probe::Pong => self.outlook.watch.handle_pong(peer),
            Probe::Swim(packet) => {
                let Some(detector) = &mut self.outlook.detector else { return };
                if let Err(error) = detector.handle_packet(peer, &packet, now.mono_ms) {
                    self.parts.shared.counters.dropped_probes.add(1);
                    tracing::debug!(node = %peer, %error, "probe dropped");
                }
            }
        }
    }

    fn handle_tick(&mut self, now: Now) {
        let timers = self.parts.options.timers;
        if now.mono_ms >= self.done.presence_ms + timers.presence_ms {
            self.done.presence_ms = now.mono_ms;
            self.gossip.own().refresh(Topic::Presence);
        }
        self.speak(now);
        if let Some(detector) = &mut self.outlook.detector {
            detector.handle_timeout(now.mono_ms);
        }
        self.offer_cuts();
        self.look(now);
        self.vouched.retain(|_, until_ms| *until_ms > now.mono_ms);
        self.measure(now);
        self.judge(now);
        self.testify(now);
        self.write(now);
    }

    /// Reads round trips, and tells them when it is time.
    fn measure(&mut self, now: Now) {
        if now.mono_ms < self.done.rtt_ms + RTT_INTERVAL_MS {
            return;
        }
        self.done.rtt_ms = now.mono_ms;
        let transport = &self.parts.options.transport;
        let connected: BTreeMap<NodeId, NodeName> =
            transport.connections().into_iter().map(|(peer, _)| (peer.key.node_id(), peer.node)).collect();
        for (id, name) in connected.iter().filter(|(id, _)| self.outlook.roster.contains_key(id)) {
            if let Some(rtt) = transport.rtt(name) {
                self.rtt_us.insert(*id, u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
            }
        }
        if !self.links_are_told && now.mono_ms >= self.done.links_ms + self.parts.options.timers.links_ms {
            self.done.links_ms = now.mono_ms;
            let link = |(&peer, &rtt_us)| {
                let loss_permille = self.outlook.watch.loss_permille(peer);
                LinkFact { peer, rtt_us, loss_permille }
            };
            // The distance of a peer stays known when its connection ends; a link it is no more.
            let connected = self.rtt_us.iter().filter(|(id, _)| connected.contains_key(*id));
            let links = connected.map(link).take(MAX_LINKS).collect();
            self.gossip.own().say(Body::Links(links), false);
        }
    }

    fn judge(&mut self, now: Now) {
        let vouched = self.vouched.keys().copied().collect();
        if let Some(before) = self.outlook.judge(self.gossip.store(), &vouched, now) {
            self.tell_changes(&before);
            self.dirty = true;
        }
    }

    fn testify(&mut self, now: Now) {
        let vouched = self.vouched.keys().copied().collect();
        let (testimony, again) = self.outlook.testify(self.gossip.store(), &vouched, now);
        self.gossip.own().say(Body::Observations(testimony), again);
    }

    /// Does what the core says after something came in.
    fn step(&mut self, now: Now) {
        while let Some(event) = self.gossip.poll_event() {
            self.handle_event(event, now);
        }
        while let Some(transmit) = self.gossip.poll_transmit(now) {
            self.command(match transmit {
                Transmit::Publish(record) => Command::Publish(Box::new((*record).clone())),
                Transmit::Ask { to, request } => Command::Ask { to, request },
            });
        }
        if let Some(rejoined) = self.outlook.detector.as_mut().and_then(Detector::poll_rejoined)
            && self.gossip.own().raise_above(rejoined.saturating_sub(1), now.mono_ms)
        {
            self.raised("others took this node for dead", now);
        }
        while let Some((to, packet)) = self.outlook.detector.as_mut().and_then(Detector::poll_transmit) {
            self.send_probe(to, &Probe::Swim(packet));
        }
        let since_ms = now.mono_ms.saturating_sub(self.done.view_ms);
        if (self.dirty && since_ms >= VIEW_INTERVAL_MS) || since_ms >= REVIEW_INTERVAL_MS {
            self.publish_view(now);
        }
    }
}
