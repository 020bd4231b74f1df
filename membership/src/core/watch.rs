//! What this node sees of other processors with its own eyes.
//!
//! Everything authentic that comes from a peer is a sign of life. A peer that is quiet is pinged; one that
//! stays quiet is *poked*: a packet on a connected UDP socket, which tells at once when nothing listens there
//! any more (ECONNREFUSED); what is said to other packets for it counts the same. Repeated refusals with no
//! sign of life after the first of them are positive evidence, and so count long before silence does:
//! silence alone may be a pause of the other side.
//!
//! In a small fabric everybody watches everybody. In a large one each node watches its successors on the
//! ring of node ids, so that everybody is watched by as many, and whoever is accused by another.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{key::NodeId, record::Seen};

use crate::Timers;

/// Successors on the ring that are watched all the time.
pub const WATCHED: usize = 16;
/// Most peers watched at once, the accused included: bounds sockets and packets.
pub const MAX_WATCHED: usize = 64;
/// Refusals that are evidence.
pub const REFUSALS: u32 = 3;
/// How long the first of them must be past: longer than a restart takes to bind its port again. They need
/// not be spread over it, because a host says so a few times at once and then only once a second.
pub const REFUSED_FOR_MS: u64 = 300;
/// The same for a peer that was never heard, and that nobody else misses: one that was just admitted binds its
/// port when it has read its answer, and taken for dead before it ever lived it would not be given what it needs to
/// live.
pub const NEWCOMER_REFUSED_FOR_MS: u64 = 10_000;
/// A peer that is accused by others or by SWIM is watched for so long after the last accusation.
const ACCUSED_FOR_MS: u64 = 10_000;

/// What to send to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nudge {
    /// A ping over the authenticated connection.
    Ping(NodeId),
    /// A packet over the connected UDP socket.
    Poke(NodeId),
}

#[derive(Debug, Clone, Default)]
struct Peer {
    watched_since_ms: Option<u64>,
    accused_ms: Option<u64>,
    heard_ms: Option<u64>,
    pinged_ms: Option<u64>,
    /// A ping is under way that was not answered yet.
    awaiting: bool,
    /// Share of pings that were not answered, smoothed.
    loss_permille: u16,
    poked_ms: Option<u64>,
    refusals: u32,
    first_refusal_ms: u64,
}

impl Peer {
    fn quiet_ms(&self, now_ms: u64) -> u64 {
        let since = self.heard_ms.max(self.watched_since_ms).unwrap_or(now_ms);
        now_ms.saturating_sub(since)
    }

    /// Smooths over some sixteen pings.
    fn sample(&mut self, lost: bool) {
        let sum = u32::from(self.loss_permille) * 15 + if lost { 1_000 } else { 0 };
        self.loss_permille = u16::try_from(sum / 16).unwrap_or(1_000);
    }

    const fn refused(&self, now_ms: u64) -> bool {
        let lived = self.heard_ms.is_some() || self.accused_ms.is_some();
        let long = if lived { REFUSED_FOR_MS } else { NEWCOMER_REFUSED_FOR_MS };
        self.refusals >= REFUSALS && now_ms.saturating_sub(self.first_refusal_ms) >= long
    }
}

/// The eyes of this node.
#[derive(Debug)]
pub struct Watch {
    me: NodeId,
    timers: Timers,
    peers: BTreeMap<NodeId, Peer>,
}

impl Watch {
    /// Eyes that see nobody yet.
    #[must_use]
    pub const fn new(me: NodeId, timers: Timers) -> Self {
        Self { me, timers, peers: BTreeMap::new() }
    }

    /// Takes over which processors there are.
    pub fn set_members(&mut self, processors: &BTreeSet<NodeId>, now_ms: u64) {
        let me = self.me;
        self.peers.retain(|id, _| processors.contains(id));
        for &id in processors.iter().filter(|&&id| id != me) {
            self.peers.entry(id).or_default();
        }
        self.choose(now_ms);
    }

    /// An authentic sign of life.
    pub fn handle_heard(&mut self, peer: NodeId, now_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.heard_ms = Some(now_ms);
            peer.refusals = 0;
        }
    }

    /// It answered a ping.
    pub fn handle_pong(&mut self, peer: NodeId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.awaiting = false;
        }
    }

    /// The share of pings to `peer`, in thousandths, that were not answered before the next was due.
    #[must_use]
    pub fn loss_permille(&self, peer: NodeId) -> u16 {
        self.peers.get(&peer).map_or(0, |peer| peer.loss_permille)
    }

    /// Its host said "nothing listens here".
    pub fn handle_refused(&mut self, peer: NodeId, now_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            if peer.refusals == 0 {
                peer.first_refusal_ms = now_ms;
            }
            peer.refusals = peer.refusals.saturating_add(1);
        }
    }

    /// It listens elsewhere now, or began anew: what its old place refused says nothing.
    pub fn handle_moved(&mut self, peer: NodeId, now_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.refusals = 0;
            peer.accused_ms = None;
            peer.watched_since_ms = peer.watched_since_ms.map(|_| now_ms);
        }
    }

    /// Somebody says that it may be gone: look for yourself.
    pub fn handle_accused(&mut self, peer: NodeId, now_ms: u64) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.accused_ms = Some(now_ms);
        }
    }

    /// What to send now.
    pub fn poll_nudges(&mut self, now_ms: u64) -> Vec<Nudge> {
        self.choose(now_ms);
        let Timers { ping_ms, quiet_ms, poke_ms, .. } = self.timers;
        let due = |at: Option<u64>, every_ms: u64| at.is_none_or(|at| now_ms.saturating_sub(at) >= every_ms);
        let mut nudges = Vec::new();
        for (&id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.watched_since_ms.is_some()) {
            let quiet = peer.quiet_ms(now_ms);
            if (peer.heard_ms.is_none() || quiet >= ping_ms) && due(peer.pinged_ms, ping_ms) {
                if peer.pinged_ms.is_some() {
                    peer.sample(peer.awaiting);
                }
                (peer.pinged_ms, peer.awaiting) = (Some(now_ms), true);
                nudges.push(Nudge::Ping(id));
            }
            // Once it is established that nothing listens, now and then is enough.
            let every_ms = if peer.refused(now_ms) { poke_ms * 8 } else { poke_ms };
            if quiet >= quiet_ms && due(peer.poked_ms, every_ms) {
                peer.poked_ms = Some(now_ms);
                nudges.push(Nudge::Poke(id));
            }
        }
        nudges
    }

    /// What this node can testify of `peer`.
    #[must_use]
    pub fn seen(&self, peer: NodeId, now_ms: u64) -> Option<Seen> {
        let peer = self.peers.get(&peer)?;
        if peer.refused(now_ms) {
            return Some(Seen::Refused);
        }
        // Of a peer that was never heard this node does not know that it ever lived.
        let watched = peer.watched_since_ms.is_some() && peer.heard_ms.is_some();
        (watched && peer.quiet_ms(now_ms) >= self.timers.silent_ms).then_some(Seen::Silent)
    }

    /// When something authentic of `peer` was heard last, since this node's start.
    #[must_use]
    pub fn heard_ms(&self, peer: NodeId) -> Option<u64> {
        self.peers.get(&peer)?.heard_ms
    }

    fn choose(&mut self, now_ms: u64) {
        let after = self.peers.range(self.me..).map(|(&id, _)| id);
        let before = self.peers.range(..self.me).map(|(&id, _)| id);
        let mut chosen: BTreeSet<NodeId> = after.chain(before).take(WATCHED).collect();
        let accused =
            |peer: &Peer| peer.accused_ms.is_some_and(|at| now_ms.saturating_sub(at) < ACCUSED_FOR_MS);
        let room = MAX_WATCHED - chosen.len();
        let suspects: Vec<NodeId> = self
            .peers
            .iter()
            .filter(|(id, peer)| accused(peer) && !chosen.contains(id))
            .map(|(&id, _)| id)
            .take(room)
            .collect();
        chosen.extend(suspects);
        for (id, peer) in &mut self.peers {
            match (chosen.contains(id), peer.watched_since_ms) {
                (true, None) => peer.watched_since_ms = Some(now_ms),
                (false, Some(_)) => peer.watched_since_ms = None,
                (true, Some(_)) | (false, None) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: NodeId = NodeId(5);
    const PEER: NodeId = NodeId(7);

    fn watch(peers: impl Iterator<Item = u64>) -> Watch {
        let mut watch = Watch::new(ME, Timers::default());
        watch.set_members(&peers.map(NodeId).collect(), 0);
        watch
    }

    fn refuse(watch: &mut Watch, times: &[u64]) {
        times.iter().for_each(|&at| watch.handle_refused(PEER, at));
    }

    #[test]
    fn repeated_refusals_are_evidence() {
        let mut watch = watch([7].into_iter());
        watch.handle_heard(PEER, 900);
        refuse(&mut watch, &[1_000, 1_100, 1_200]);
        assert_eq!(watch.seen(PEER, 1_200), None, "not over long enough a time");
        assert_eq!(watch.seen(PEER, 1_300), Some(Seen::Refused));
        watch.handle_heard(PEER, 1_400);
        assert_eq!(watch.seen(PEER, 1_400), None, "a sign of life outweighs them");
    }

    #[test]
    fn a_newcomer_is_given_time_to_bind_its_port() {
        let mut watch = watch([7].into_iter());
        refuse(&mut watch, &[1_000, 1_100, 1_200]);
        assert_eq!(watch.seen(PEER, 1_000 + NEWCOMER_REFUSED_FOR_MS - 1), None);
        assert_eq!(watch.seen(PEER, 1_000 + NEWCOMER_REFUSED_FOR_MS), Some(Seen::Refused));
    }

    #[test]
    fn a_peer_that_others_miss_is_no_newcomer_until_it_begins_anew() {
        let mut watch = watch([7].into_iter());
        watch.handle_accused(PEER, 900);
        refuse(&mut watch, &[1_000, 1_100, 1_200]);
        assert_eq!(watch.seen(PEER, 1_000 + REFUSED_FOR_MS), Some(Seen::Refused));
        watch.handle_moved(PEER, 2_000);
        refuse(&mut watch, &[2_000, 2_100, 2_200]);
        assert_eq!(watch.seen(PEER, 2_000 + REFUSED_FOR_MS), None);
    }

    #[test]
    fn silence_of_a_peer_that_was_never_heard_says_nothing() {
        let mut watch = watch([7].into_iter());
        assert_eq!(watch.seen(PEER, 60_000), None);
        watch.handle_heard(PEER, 60_000);
        let silent_ms = Timers::default().silent_ms;
        assert_eq!(watch.seen(PEER, 60_000 + silent_ms - 1), None);
        assert_eq!(watch.seen(PEER, 60_000 + silent_ms), Some(Seen::Silent));
    }

    #[test]
    fn a_peer_that_talks_is_left_alone() {
        let mut watch = watch([7].into_iter());
        watch.handle_heard(PEER, 1_000);
        assert!(watch.poll_nudges(1_100).is_empty());
        assert_eq!(watch.poll_nudges(1_300), [Nudge::Ping(PEER)]);
        assert_eq!(watch.poll_nudges(1_500), [Nudge::Poke(PEER)]);
    }

    #[test]
    fn lost_pings_are_counted() {
        let mut watch = watch([7].into_iter());
        let mut ping = |answered: bool, at| {
            watch.poll_nudges(at);
            if answered {
                watch.handle_pong(PEER);
            }
            watch.loss_permille(PEER)
        };
        let good = (0..50).map(|n| ping(true, n * 1_000)).max();
        let bad = (50..200).map(|n| ping(false, n * 1_000)).max();
        assert_eq!(good, Some(0));
        assert!(bad > Some(900) && bad <= Some(1_000), "{bad:?}");
    }

    #[test]
    fn what_is_watched_is_bounded_and_wraps_around_the_ring() {
        let mut watch = watch(0..500);
        let nudged = |watch: &mut Watch, at| {
            let ping = |n: &Nudge| matches!(n, Nudge::Ping(_));
            watch.poll_nudges(at).into_iter().filter(ping).count()
        };
        assert_eq!(nudged(&mut watch, 10_000), WATCHED);
        (0..500).for_each(|id| watch.handle_accused(NodeId(id), 10_000));
        assert_eq!(nudged(&mut watch, 10_300), MAX_WATCHED);
        let mut last = Watch::new(NodeId(499), Timers::default());
        last.set_members(&(0..500).map(NodeId).collect(), 0);
        assert!(last.poll_nudges(1).contains(&Nudge::Ping(NodeId(3))));
    }
}
