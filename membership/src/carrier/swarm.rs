//! The task that owns the swarm: translates between libp2p and the service, and decides nothing.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::StreamExt;
use libp2p::{
    PeerId, Swarm, TransportError, gossipsub, request_response,
    swarm::{
        DialError, ListenError, SwarmEvent,
        dial_opts::{DialOpts, PeerCondition},
    },
};
use selvedge_fabric::{
    event::{EventSink, vital},
    key::NodeId,
    record::Record,
};
use tokio::{
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Behaviour, BehaviourEvent, CarrierError, Command, Event, Peers, PushId, TOPIC, Ticket, build,
    dialer::Dialer, peer_id, to_multiaddr, to_socket_addr,
};
use crate::{clock::Clock, core::gossip::Verdict};

/// Events that wait for the service; when it is full, libp2p waits and QUIC holds the peers back.
const EVENT_QUEUE: usize = 1_024;
/// Commands that wait for the swarm; what exceeds it is dropped and left to anti-entropy.
const COMMAND_QUEUE: usize = 4_096;
const DIAL_INTERVAL: Duration = Duration::from_millis(100);
const LISTEN_TIMEOUT: Duration = Duration::from_secs(5);

/// The service's end of the carrier.
pub(crate) struct Carrier {
    pub(crate) local_addr: SocketAddr,
    pub(crate) commands: mpsc::Sender<Command>,
    pub(crate) events: mpsc::Receiver<Event>,
}

/// What the carrier needs.
pub(crate) struct Start<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) key_seed: &'a [u8; 32],
    pub(crate) peers: watch::Receiver<Peers>,
    pub(crate) rng_seed: u64,
}

/// Binds the gossip port and starts the task.
pub(crate) async fn start(
    start: Start<'_>,
    sink: &Arc<dyn EventSink>,
    tasks: &TaskTracker,
    stop: CancellationToken,
) -> Result<Carrier, CarrierError> {
    let mut swarm = build(start.key_seed)?;
    let local_addr = listen(&mut swarm, start.listen).await?;
    let (command_sender, commands) = mpsc::channel(COMMAND_QUEUE);
    let (events, event_receiver) = mpsc::channel(EVENT_QUEUE);
    let task = Task {
        swarm,
        nodes: BTreeMap::new(),
        peers: start.peers,
        dialer: Dialer::new(start.rng_seed),
        clock: Clock::new(),
        events,
    };
    tasks.spawn(vital(Arc::clone(sink), "gossip carrier", task.run(commands, stop)));
    Ok(Carrier { local_addr, commands: command_sender, events: event_receiver })
}

async fn listen(swarm: &mut Swarm<Behaviour>, address: SocketAddr) -> Result<SocketAddr, CarrierError> {
    let failed = |source| CarrierError::Listen { address, source };
    swarm.listen_on(to_multiaddr(address)).map_err(|error| match error {
        TransportError::Other(source) => failed(source),
        TransportError::MultiaddrNotSupported(_) => failed(std::io::ErrorKind::Unsupported.into()),
    })?;
    let bound = async {
        loop {
            match swarm.select_next_some().await {
                SwarmEvent::NewListenAddr { address, .. } => {
                    if let Some(address) = to_socket_addr(&address) {
                        return Ok(address);
                    }
                }
                SwarmEvent::ListenerError { error, .. } => return Err(error),
                SwarmEvent::ListenerClosed { reason, .. } => {
                    return Err(reason.err().unwrap_or_else(|| std::io::ErrorKind::NotConnected.into()));
                }
                _ => {}
            }
        }
    };
    let bound = tokio::time::timeout(LISTEN_TIMEOUT, bound).await;
    let bound = bound.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())).map_err(failed)?;
    // Of a wildcard, each interface is reported; the port is the same on all.
    Ok(SocketAddr::new(if address.ip().is_unspecified() { address.ip() } else { bound.ip() }, bound.port()))
}

struct Task {
    swarm: Swarm<Behaviour>,
    /// The admitted keys by the name that libp2p has for them.
    nodes: BTreeMap<PeerId, NodeId>,
    peers: watch::Receiver<Peers>,
    dialer: Dialer,
    clock: Clock,
    events: mpsc::Sender<Event>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::Receiver<Command>, stop: CancellationToken) {
        self.take_peers();
        let mut dial = tokio::time::interval(DIAL_INTERVAL);
        dial.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.peers.changed() => match changed {
                    Ok(()) => self.take_peers(),
                    Err(_) => return,
                },
                command = commands.recv() => match command {
                    Some(command) => self.handle_command(command),
                    None => return,
                },
                event = self.swarm.select_next_some() => {
                    if let Some(event) = self.handle_swarm(event) {
                        // The service never waits for this task, so waiting for it cannot lock up.
                        tokio::select! {
                            () = stop.cancelled() => return,
                            sent = self.events.send(event) => if sent.is_err() { return },
                        }
                    }
                }
                _ = dial.tick() => self.dial(),
            }
        }
    }

    /// Lets in whom policy admits, and shows the others out.
    fn take_peers(&mut self) {
        let peers = self.peers.borrow_and_update().clone();
        let nodes: BTreeMap<PeerId, NodeId> =
            peers.admitted.iter().filter_map(|(id, key)| Some((peer_id(key)?, *id))).collect();
        let admitted = &mut self.swarm.behaviour_mut().admitted;
        for peer in self.nodes.keys().filter(|peer| !nodes.contains_key(peer)) {
            admitted.disallow_peer(*peer);
        }
        for (peer, id) in &nodes {
            if peers.cut_off.contains(id) {
                admitted.disallow_peer(*peer);
            } else {
                admitted.allow_peer(*peer);
            }
        }
        // Those that go stay known until their connections are closed: `Disconnected` must name them.
        self.nodes.extend(nodes);
        let connected: Vec<PeerId> = self.swarm.connected_peers().copied().collect();
        self.nodes.retain(|peer, id| peers.admitted.contains_key(id) || connected.contains(peer));
    }

    fn dial(&mut self) {
        let now_ms = self.clock.now().mono_ms;
        let mut peers = self.peers.borrow().clone();
        peers.candidates.retain(|id, _| !peers.cut_off.contains(id));
        for id in self.dialer.poll_dials(&peers.candidates, now_ms) {
            let target = peers.admitted.get(&id).and_then(peer_id).zip(peers.candidates.get(&id));
            let dialled = target.is_some_and(|(peer, candidate)| {
                let addresses = candidate.gossip.iter().map(|&address| to_multiaddr(address)).collect();
                let options = DialOpts::peer_id(peer)
                    .condition(PeerCondition::DisconnectedAndNotDialing)
                    .addresses(addresses)
                    .build();
                self.swarm.dial(options).is_ok()
            });
            if !dialled {
                self.dialer.handle_failed(id, now_ms);
            }
        }
    }

    fn handle_command(&mut self, command: Command) {
        let behaviour = self.swarm.behaviour_mut();
        match command {
            Command::Publish(record) => {
                let topic = gossipsub::IdentTopic::new(TOPIC);
                // Nobody subscribed yet, or already published: anti-entropy is for that.
                if let Err(error) = behaviour.push.publish(topic, record.encode()) {
                    tracing::trace!(%error, "record not pushed");
                }
            }
            Command::Ask { to, request } => {
                let peer = self.nodes.iter().find(|(_, id)| **id == to).map(|(peer, _)| *peer);
                if let Some(peer) = peer {
                    behaviour.exchange.send_request(&peer, request);
                }
            }
            Command::Answer { ticket, response } => {
                // It fails only when the connection is gone, and then nobody waits.
                let _gone = behaviour.exchange.send_response(ticket.0, response);
            }
            Command::Judge { message: PushId { id, from }, verdict } => {
                let acceptance = match verdict {
                    Verdict::Accept => gossipsub::MessageAcceptance::Accept,
                    Verdict::Ignore => gossipsub::MessageAcceptance::Ignore,
                    Verdict::Reject => gossipsub::MessageAcceptance::Reject,
                };
                behaviour.push.report_message_validation_result(&id, &from, acceptance);
            }
        }
    }

    fn handle_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) -> Option<Event> {
        match event {
            SwarmEvent::Behaviour(BehaviourEvent::Push(event)) => self.handle_push(event),
            SwarmEvent::Behaviour(BehaviourEvent::Exchange(event)) => self.handle_exchange(event),
            SwarmEvent::ConnectionEstablished { peer_id, num_established, .. } => {
                let id = *self.nodes.get(&peer_id)?;
                self.dialer.handle_connected(id, self.clock.now().mono_ms);
                (num_established.get() == 1).then_some(Event::Connected(id))
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                let id = *self.nodes.get(&peer_id)?;
                if !self.peers.borrow().admitted.contains_key(&id) {
                    self.nodes.remove(&peer_id);
                }
                self.dialer.handle_disconnected(id, self.clock.now().mono_ms);
                Some(Event::Disconnected(id))
            }
            SwarmEvent::OutgoingConnectionError { peer_id, error, .. } => {
                self.handle_failed(peer_id?, &error)
            }
            SwarmEvent::IncomingConnectionError {
                error: ListenError::Denied { .. },
                peer_id: Some(peer),
                send_back_addr,
                ..
            } => {
                // One that is admitted ran into a limit, which is no question of trust.
                let stranger = !self.nodes.contains_key(&peer);
                stranger.then(|| Event::Refused {
                    peer: peer.to_string(),
                    address: to_socket_addr(&send_back_addr).map_or_else(String::new, |a| a.to_string()),
                })
            }
            _ => None,
        }
    }

    fn handle_failed(&mut self, peer: PeerId, error: &DialError) -> Option<Event> {
        let id = *self.nodes.get(&peer)?;
        self.dialer.handle_failed(id, self.clock.now().mono_ms);
        tracing::debug!(node = %id, %error, "gossip dial failed");
        let DialError::WrongPeerId { obtained, address } = error else { return None };
        let address = to_socket_addr(address).map_or_else(String::new, |a| a.to_string());
        let stranger = !self.nodes.contains_key(obtained);
        stranger.then(|| Event::Refused { peer: obtained.to_string(), address })
    }

    fn handle_push(&mut self, event: gossipsub::Event) -> Option<Event> {
        match event {
            gossipsub::Event::Message { propagation_source, message_id, message } => {
                let from = *self.nodes.get(&propagation_source)?;
                let push = PushId { id: message_id, from: propagation_source };
                if let Ok(record) = Record::decode(&message.data) {
                    return Some(Event::Push { from, record: Box::new(record), message: push });
                }
                self.handle_command(Command::Judge { message: push, verdict: Verdict::Reject });
                Some(Event::Malformed(from))
            }
            // Only now can it be pushed to: what was published between connection and subscription
            // it has missed, so compare once more.
            gossipsub::Event::Subscribed { peer_id, .. } => {
                self.nodes.get(&peer_id).copied().map(Event::Connected)
            }
            _ => None,
        }
    }

    fn handle_exchange(
        &mut self,
        event: request_response::Event<crate::core::wire::Request, crate::core::wire::Response>,
    ) -> Option<Event> {
        use request_response::{Event as Exchange, InboundFailure, Message};
        match event {
            Exchange::Message { peer, message: Message::Request { request, channel, .. }, .. } => {
                let from = *self.nodes.get(&peer)?;
                Some(Event::Asked { from, request, ticket: Ticket(channel) })
            }
            Exchange::Message { peer, message: Message::Response { response, .. }, .. } => {
                Some(Event::Answered { from: *self.nodes.get(&peer)?, response })
            }
            Exchange::OutboundFailure { peer, .. } => self.nodes.get(&peer).copied().map(Event::Failed),
            Exchange::InboundFailure { peer, error: InboundFailure::Io(error), .. }
                if error.kind() == std::io::ErrorKind::InvalidData =>
            {
                self.nodes.get(&peer).copied().map(Event::Malformed)
            }
            Exchange::InboundFailure { .. } | Exchange::ResponseSent { .. } => None,
        }
    }
}
