//! SWIM with suspicion among processors (Das, Gupta, Motivala, "SWIM", 2002), by foca.
//!
//! What this adds to foca: its timers on the caller's clock; an identity of node id and incarnation, so
//! that a node that was declared down comes back under the next one; and a look at every packet before
//! foca sees it. The sender must be who the authenticated connection says, and members that are not
//! admitted processors are taken out, so nobody can grow the member list with inventions. Nothing is sent to
//! others either, whoever asks for it.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::{NonZeroU8, NonZeroUsize},
    time::Duration,
};

use bytes::{Buf, Bytes};
use foca::{
    AccumulatingRuntime, Codec, Config, Foca, Identity, NoCustomBroadcast, OwnedNotification, PeriodicParams,
    PostcardCodec, State, Timer,
};
use rand::{SeedableRng, rngs::SmallRng, seq::IteratorRandom};
use selvedge_fabric::key::NodeId;
use serde::{Deserialize, Serialize};

use super::MAX_INCARNATION;
use crate::Timers;

/// Largest packet, in bytes: fits a QUIC datagram before path MTU discovery has found anything.
pub const MAX_PACKET_BYTES: usize = 1_100;
/// Processors that are not members yet to which this node introduces itself at a time.
const ANNOUNCED_AT_ONCE: usize = 8;
/// Most packets that wait for the shell; SWIM expects loss.
const MAX_TRANSMITS: usize = 1_024;

/// A processor and which start of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ident {
    /// The processor.
    pub node: NodeId,
    /// The start; grows also when it was declared down wrongly.
    pub incarnation: u64,
}

impl Identity for Ident {
    type Addr = NodeId;

    fn renew(&self) -> Option<Self> {
        let incarnation = self.incarnation.checked_add(1).filter(|&next| next <= MAX_INCARNATION)?;
        Some(Self { incarnation, ..*self })
    }

    fn addr(&self) -> NodeId {
        self.node
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.incarnation > adversary.incarnation
    }
}

/// What SWIM says of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swim {
    /// Which start of it.
    pub incarnation: u64,
    /// Its state.
    pub state: SwimState,
}

/// The states of SWIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SwimState {
    /// It answers probes.
    Alive,
    /// It did not, and has not refuted that yet.
    Suspect,
    /// It did not refute that in time.
    Down,
}

/// Why a packet was dropped.
#[derive(Debug, thiserror::Error)]
pub enum PacketError {
    /// Not a packet of the detector.
    #[error("malformed: {0}")]
    Malformed(String),
    /// Its sender speaks in the name of another node.
    #[error("the sender claims to be {0}")]
    Impostor(NodeId),
    /// foca refused it.
    #[error(transparent)]
    Foca(#[from] foca::Error),
}

type Swimmer = Foca<Ident, PostcardCodec, SmallRng, NoCustomBroadcast>;

/// The failure detector of a processor.
pub struct Detector {
    foca: Swimmer,
    runtime: AccumulatingRuntime<Ident>,
    timers: BTreeMap<(u64, u64), Timer<Ident>>,
    next_timer: u64,
    transmits: VecDeque<(NodeId, Bytes)>,
    members: BTreeSet<NodeId>,
    /// Since when which member is suspected, and in which of its states.
    suspects: BTreeMap<NodeId, (foca::Member<Ident>, u64)>,
    suspicion_ms: u64,
    rejoined: Option<u64>,
    left: bool,
    announce_every_ms: u64,
    next_announce_ms: u64,
    rng: SmallRng,
}

impl std::fmt::Debug for Detector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Detector").field("me", self.foca.identity()).finish_non_exhaustive()
    }
}

impl Detector {
    /// A detector that knows nobody yet.
    #[must_use]
    pub fn new(me: NodeId, incarnation: u64, timers: &Timers, seed: u64) -> Self {
        let identity = Ident { node: me, incarnation };
        let rng = SmallRng::seed_from_u64(seed);
        let foca = Foca::new(identity, config(timers), rng.clone(), PostcardCodec);
        Self {
            foca,
            runtime: AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            next_timer: 0,
            transmits: VecDeque::new(),
            members: BTreeSet::new(),
            suspects: BTreeMap::new(),
            suspicion_ms: timers.suspicion_ms + timers.probe_period_ms,
            rejoined: None,
            left: false,
            announce_every_ms: timers.probe_period_ms,
            next_announce_ms: 0,
            rng,
        }
    }

    /// Takes over which processors are admitted.
    pub fn set_members(&mut self, processors: BTreeSet<NodeId>) {
        self.members = processors;
    }

    /// A packet from `sender`, as the connection authenticated it.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn handle_packet(&mut self, sender: NodeId, packet: &[u8], now_ms: u64) -> Result<(), PacketError> {
        let packet = self.screen(sender, packet)?;
        let result = self.foca.handle_data(&packet, &mut self.runtime);
        self.drain(now_ms);
        Ok(result?)
    }

    /// Runs the timers that are due and introduces this node to processors that are not members.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > now_ms {
                break;
            }
            let timer = entry.remove();
            // The only errors are a probe cycle cut short by a pause of this process, and
            // foca begins the next one by itself.
            if let Err(error) = self.foca.handle_timer(timer, &mut self.runtime) {
                tracing::debug!(%error, "failure detector timer");
            }
            self.drain(now_ms);
        }
        self.end_suspicions(now_ms);
        if now_ms >= self.next_announce_ms && !self.left {
            self.next_announce_ms = now_ms + self.announce_every_ms;
            self.announce(now_ms);
        }
    }

    /// Goes on under a higher incarnation.
    pub fn raise(&mut self, incarnation: u64, now_ms: u64) {
        let present = *self.foca.identity();
        if incarnation > present.incarnation {
            let raised = Ident { incarnation, ..present };
            if let Err(error) = self.foca.change_identity(raised, &mut self.runtime) {
                tracing::debug!(%error, "failure detector could not raise its incarnation");
            }
            self.drain(now_ms);
        }
    }

    /// A signed record shows a later start of a member that SWIM knows. SWIM takes it for alive and finds
    /// out by itself when it is not; or for suspected, when others miss that start already: who may be the last
    /// to hear of it need not wait for a probe of its own.
    pub fn handle_later_start(&mut self, node: NodeId, incarnation: u64, is_missed: bool, now_ms: u64) {
        let earlier = |(id, swim): (NodeId, Swim)| id == node && swim.incarnation < incarnation;
        if self.states().any(earlier) && incarnation <= MAX_INCARNATION {
            let state = if is_missed { State::Suspect } else { State::Alive };
            let update = std::iter::once(foca::Member::new(Ident { node, incarnation }, 0, state));
            if let Err(error) = self.foca.apply_many(update, true, &mut self.runtime) {
                tracing::debug!(%error, "failure detector could not take a later start");
            }
            self.drain(now_ms);
        }
    }

    /// Declares a member down on evidence from elsewhere, and tells the others so.
    pub fn declare_down(&mut self, node: NodeId, now_ms: u64) {
        let down = self.foca.iter_members().find(|m| m.id().node == node).map(|m| *m.id());
        if let Some(id) = down {
            let update = std::iter::once(foca::Member::down(id));
            if let Err(error) = self.foca.apply_many(update, true, &mut self.runtime) {
                tracing::debug!(%error, "failure detector could not declare a member down");
            }
            if let Err(error) = self.foca.gossip(&mut self.runtime) {
                tracing::debug!(%error, "failure detector could not gossip");
            }
            self.drain(now_ms);
        }
    }

    /// Tells the others that this node leaves.
    pub fn leave(&mut self, now_ms: u64) {
        self.left = true;
        if let Err(error) = self.foca.leave_cluster(&mut self.runtime) {
            tracing::debug!(%error, "failure detector could not leave");
        }
        self.drain(now_ms);
    }

    /// The next packet to send.
    pub fn poll_transmit(&mut self) -> Option<(NodeId, Bytes)> {
        self.transmits.pop_front()
    }

    /// The incarnation under which this node came back after it was declared down, once.
    pub fn poll_rejoined(&mut self) -> Option<u64> {
        self.rejoined.take()
    }

    /// What SWIM says of each member it knows.
    pub fn states(&self) -> impl Iterator<Item = (NodeId, Swim)> {
        self.foca.iter_membership_state().map(|member| {
            let state = match member.state() {
                State::Alive => SwimState::Alive,
                State::Suspect => SwimState::Suspect,
                State::Down => SwimState::Down,
            };
            (member.id().node, Swim { incarnation: member.id().incarnation, state })
        })
    }

    fn announce(&mut self, now_ms: u64) {
        let me = *self.foca.identity();
        let active: BTreeSet<NodeId> = self.foca.iter_members().map(|m| m.id().node).collect();
        let strangers = self.members.iter().filter(|&&id| id != me.node && !active.contains(&id));
        let chosen = strangers.copied().sample(&mut self.rng, ANNOUNCED_AT_ONCE);
        for node in chosen {
            // An announcement is accepted by any incarnation of the node.
            let to = Ident { node, incarnation: 0 };
            if let Err(error) = self.foca.announce(to, &mut self.runtime) {
                tracing::debug!(%error, "failure detector could not announce");
            }
        }
        self.drain(now_ms);
    }

    fn screen(&self, sender: NodeId, packet: &[u8]) -> Result<Vec<u8>, PacketError> {
        let malformed = |error: String| PacketError::Malformed(error);
        if packet.len() > MAX_PACKET_BYTES {
            return Err(malformed(format!("{} bytes", packet.len())));
        }
        let mut codec = PostcardCodec;
        let mut rest = packet;
        let header: foca::Header<Ident> =
            codec.decode_header(&mut rest).map_err(|error| malformed(error.to_string()))?;
        if header.src.node != sender {
            return Err(PacketError::Impostor(header.src.node));
        }
        let mut screened = packet[..packet.len() - rest.len()].to_vec();
        if rest.len() < 2 {
            return Ok(packet.to_vec());
        }
        let count = rest.get_u16();
        let mut kept = Vec::new();
        for _ in 0..count {
            let member: foca::Member<Ident> =
                codec.decode_member(&mut rest).map_err(|error| malformed(error.to_string()))?;
            let known = self.members.contains(&member.id().node);
            if known && member.id().incarnation <= MAX_INCARNATION {
                kept.push(member);
            }
        }
        // As many as came or fewer, so the count fits.
        screened.extend_from_slice(&u16::try_from(kept.len()).unwrap_or(u16::MAX).to_be_bytes());
        for member in &kept {
            codec.encode_member(member, &mut screened).map_err(|error| malformed(error.to_string()))?;
        }
        screened.extend_from_slice(rest);
        Ok(screened)
    }

    /// Declares down who was suspected for too long and did not refute it. foca has only those count the time
    /// whose own probe failed, and they forget it when they begin anew; as in the paper, everybody counts
    /// here, a probe's time longer.
    fn end_suspicions(&mut self, now_ms: u64) {
        let before = std::mem::take(&mut self.suspects);
        let suspected = self.foca.iter_membership_state().filter(|m| m.state() == State::Suspect);
        self.suspects = suspected
            .map(|member| {
                let known = before.get(&member.id().node).filter(|(known, _)| known == member);
                (member.id().node, (member.clone(), known.map_or(now_ms, |(_, since_ms)| *since_ms)))
            })
            .collect();
        let over = |since_ms: u64| now_ms.saturating_sub(since_ms) >= self.suspicion_ms;
        let overdue: Vec<NodeId> =
            self.suspects.iter().filter(|(_, (_, since))| over(*since)).map(|(id, _)| *id).collect();
        overdue.into_iter().for_each(|node| self.declare_down(node, now_ms));
    }

    /// Tells a member that it is suspected with every packet that has room for news (the "buddy system" of
    /// Dadgar, Phillips, Currey, "Lifeguard", 2018): only the member itself can refute it, and foca tells a few
    /// members a few times, which may all be lost.
    fn with_suspicion(&self, to: Ident, packet: Bytes) -> Bytes {
        let mut members = self.foca.iter_membership_state();
        let suspected = members.find(|member| *member.id() == to && member.state() == State::Suspect);
        suspected.and_then(|suspect| add_update(&packet, suspect)).unwrap_or(packet)
    }

    fn drain(&mut self, now_ms: u64) {
        while let Some((to, data)) = self.runtime.to_send() {
            // A member may ask to probe for it, or to relay, and name whom it likes.
            if self.members.contains(&to.node) && self.transmits.len() < MAX_TRANSMITS {
                let packet = self.with_suspicion(to, data);
                self.transmits.push_back((to.node, packet));
            }
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
            self.next_timer += 1;
            self.timers.insert((now_ms.saturating_add(after_ms), self.next_timer), timer);
        }
        while let Some(notification) = self.runtime.to_notify() {
            if let OwnedNotification::Rejoin(id) = notification {
                self.rejoined = Some(id.incarnation);
            }
        }
    }
}

/// The packet with one more update before the others; none when it carries no updates or is full.
fn add_update(packet: &[u8], update: &foca::Member<Ident>) -> Option<Bytes> {
    let mut codec = PostcardCodec;
    let mut rest = packet;
    codec.decode_header(&mut rest).ok().map(|_: foca::Header<Ident>| ())?;
    let (count, others) = rest.split_first_chunk::<2>()?;
    let count = u16::from_be_bytes(*count).checked_add(1)?;
    let mut longer = packet[..packet.len() - rest.len()].to_vec();
    longer.extend_from_slice(&count.to_be_bytes());
    codec.encode_member(update, &mut longer).ok()?;
    longer.extend_from_slice(others);
    (longer.len() <= MAX_PACKET_BYTES).then(|| longer.into())
}

fn config(timers: &Timers) -> Config {
    const fn count(n: usize) -> NonZeroUsize {
        NonZeroUsize::new(n).expect("not zero")
    }
    let periodic = |every_ms: u64, members: usize| {
        Some(PeriodicParams { frequency: Duration::from_millis(every_ms), num_members: count(members) })
    };
    Config {
        probe_period: Duration::from_millis(timers.probe_period_ms),
        probe_rtt: Duration::from_millis(timers.probe_rtt_ms),
        num_indirect_probes: count(3),
        max_transmissions: const { NonZeroU8::new(10).expect("not zero") },
        suspect_to_down_after: Duration::from_millis(timers.suspicion_ms),
        // Removed nodes leave the member list of the policy, so a day is long enough.
        remove_down_after: Some(Duration::from_secs(24 * 3_600)),
        max_packet_size: const { count(MAX_PACKET_BYTES) },
        notify_down_members: true,
        periodic_announce: periodic(30_000, 1),
        periodic_announce_to_down_members: periodic(2_000, 2),
        periodic_gossip: periodic(200, 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn detector(node: u64) -> Detector {
        let mut detector = Detector::new(NodeId(node), 1, &Timers::default(), node);
        detector.set_members((1..=4).map(NodeId).collect());
        detector
    }

    /// Runs the detectors against each other for a while; `deaf` ones are cut off.
    fn run(detectors: &mut [Detector], deaf: &[u64], from_ms: u64, for_ms: u64) {
        for now_ms in (from_ms..from_ms + for_ms).step_by(10) {
            let mut packets = Vec::new();
            for detector in &mut *detectors {
                let me = detector.foca.identity().node;
                detector.handle_timeout(now_ms);
                packets.extend(std::iter::from_fn(|| detector.poll_transmit()).map(|(to, p)| (me, to, p)));
            }
            for (from, to, packet) in packets {
                let cut = deaf.contains(&from.0) || deaf.contains(&to.0);
                if let Some(to) = detectors.iter_mut().find(|d| !cut && d.foca.identity().node == to) {
                    to.handle_packet(from, &packet, now_ms).expect("a good packet");
                }
            }
        }
    }

    fn state(detector: &Detector, node: u64) -> Option<SwimState> {
        detector.states().find(|(id, _)| id.0 == node).map(|(_, swim)| swim.state)
    }

    #[test]
    fn members_find_each_other_lose_a_silent_one_and_take_it_back() {
        let mut all: Vec<_> = (1..=4).map(detector).collect();
        run(&mut all, &[], 0, 5_000);
        assert!(all.iter().all(|d| d.foca.num_members() == 3));
        run(&mut all, &[4], 5_000, 3_000);
        assert_ne!(state(&all[0], 4), Some(SwimState::Down), "a pause of three seconds is no death");
        run(&mut all, &[4], 8_000, 4_000);
        assert_eq!(state(&all[0], 4), Some(SwimState::Down));
        run(&mut all, &[], 12_000, 5_000);
        assert_eq!(state(&all[0], 4), Some(SwimState::Alive));
        assert!(all[3].foca.identity().incarnation > 1);
    }

    #[test]
    fn evidence_spreads_at_once() {
        let mut all: Vec<_> = (1..=4).map(detector).collect();
        run(&mut all, &[], 0, 5_000);
        all[0].declare_down(NodeId(4), 5_000);
        run(&mut all, &[4], 5_000, 700);
        assert_eq!(state(&all[1], 4), Some(SwimState::Down));
    }

    #[test]
    fn a_suspicion_that_nobody_tells_any_more_is_refuted() {
        let mut all: Vec<_> = (1..=4).map(detector).collect();
        run(&mut all, &[], 0, 5_000);
        let id = *all[3].foca.identity();
        // As it is when all tellings were lost and the one who counts the time is gone.
        let suspect = std::iter::once(foca::Member::new(id, 0, State::Suspect));
        let one = &mut all[0];
        one.foca.apply_many(suspect, false, &mut one.runtime).expect("taken");
        assert_eq!(state(&all[0], 4), Some(SwimState::Suspect));
        run(&mut all, &[], 5_000, 3_000);
        assert_eq!(state(&all[0], 4), Some(SwimState::Alive));
        assert_eq!(*all[3].foca.identity(), id, "it did not have to begin anew");
    }

    #[test]
    fn everybody_counts_the_time_of_a_suspicion() {
        let mut all: Vec<_> = (1..=4).map(detector).collect();
        run(&mut all, &[], 0, 5_000);
        let id = *all[3].foca.identity();
        let one = &mut all[0];
        let suspect = std::iter::once(foca::Member::new(id, 0, State::Suspect));
        one.foca.apply_many(suspect, false, &mut one.runtime).expect("taken");
        // Its probes are off: only what it heard is left.
        one.timers.clear();
        let over_ms = one.suspicion_ms;
        one.handle_timeout(5_000);
        one.timers.clear();
        one.handle_timeout(5_000 + over_ms - 1);
        assert_eq!(state(one, 4), Some(SwimState::Suspect));
        one.handle_timeout(5_000 + over_ms);
        assert_eq!(state(one, 4), Some(SwimState::Down));
    }

    #[test]
    fn strangers_are_taken_out_and_impostors_refused() {
        let mut one = detector(1);
        let mut two = detector(2);
        two.set_members((1..=1_000).map(NodeId).collect());
        let inventions = (5..=20).map(|n| foca::Member::alive(Ident { node: NodeId(n), incarnation: 1 }));
        two.foca.apply_many(inventions, true, &mut two.runtime).expect("taken");
        two.foca.announce(Ident { node: NodeId(1), incarnation: 1 }, &mut two.runtime).expect("sent");
        two.drain(0);
        for now in (0..3_000).step_by(10) {
            two.handle_timeout(now);
            one.handle_timeout(now);
            while let Some((to, packet)) = two.poll_transmit() {
                if to.0 == 1 {
                    assert!(one.handle_packet(NodeId(3), &packet, now).is_err(), "an impostor");
                    let _ = one.handle_packet(NodeId(2), &packet, now);
                }
            }
            while let Some((to, packet)) = one.poll_transmit() {
                if to.0 == 2 {
                    let _ = two.handle_packet(NodeId(1), &packet, now);
                }
            }
        }
        assert_eq!(one.states().map(|(id, _)| id.0).collect::<Vec<_>>(), [2]);
    }
}
