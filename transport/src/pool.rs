//! The connection cache: which connections there are to a node for a use, whether one is being
//! dialled, and when the next try is due. Synchronous; the tasks are elsewhere.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use selvedge_fabric::id::NodeName;
use tokio::sync::watch;

use crate::{
    Alpn, RequestError,
    limits::{MAX_BACKOFF, MAX_CONNECTIONS_PER_PEER, MIN_BACKOFF},
    link::{CloseCode, Link, close},
};

/// What became of a dial; `None` while it is under way.
pub(crate) type DialOutcome = Option<Result<Arc<Link>, RequestError>>;

/// The next step towards a connection.
pub(crate) enum Step {
    /// Use this one.
    Use(Arc<Link>),
    /// Use this one, and dial another: it was made under credentials that are replaced by now.
    Renew(Arc<Link>, watch::Sender<DialOutcome>),
    /// Somebody dials already.
    Wait(watch::Receiver<DialOutcome>),
    /// Dial, and tell the others.
    Dial(watch::Sender<DialOutcome>, watch::Receiver<DialOutcome>),
    /// It failed a moment ago, so.
    Fail(RequestError),
}

/// All connections to one node for one use.
#[derive(Default)]
struct Slot {
    /// Oldest first.
    links: Vec<Arc<Link>>,
    dialling: Option<watch::Receiver<DialOutcome>>,
    backoff: Option<Backoff>,
}

/// When to try again after failures.
#[derive(Debug, Clone)]
struct Backoff {
    failures: u32,
    until: Instant,
    last: RequestError,
}

/// The connections of a node.
pub(crate) struct Pool {
    me: NodeName,
    slots: BTreeMap<(NodeName, Alpn), Slot>,
}

impl Pool {
    pub(crate) const fn new(me: NodeName) -> Self {
        Self { me, slots: BTreeMap::new() }
    }

    /// Decides how to come by a connection. `generation` is that of our present credentials.
    pub(crate) fn next_step(&mut self, node: &NodeName, alpn: Alpn, generation: u64, now: Instant) -> Step {
        let slot = self.slots.entry((node.clone(), alpn)).or_default();
        let waiting = slot.backoff.as_ref().filter(|backoff| now < backoff.until);
        match (choose(&slot.links, &self.me, generation), &slot.dialling) {
            (Some(link), _) if link.generation == generation => Step::Use(link),
            (Some(link), None) if waiting.is_none() => Step::Renew(link, slot.start_dial().0),
            (Some(link), _) => Step::Use(link),
            (None, Some(outcome)) => Step::Wait(outcome.clone()),
            (None, None) => match waiting {
                Some(backoff) => Step::Fail(backoff.last.clone()),
                None => {
                    let (sender, receiver) = slot.start_dial();
                    Step::Dial(sender, receiver)
                }
            },
        }
    }

    /// A connection that lives, without any effort to make one.
    pub(crate) fn find(&self, node: &NodeName, alpn: Alpn, generation: u64) -> Option<Arc<Link>> {
        choose(&self.slots.get(&(node.clone(), alpn))?.links, &self.me, generation)
    }

    /// Takes the outcome of a dial that [`Self::next_step`] began.
    pub(crate) fn dialled(
        &mut self,
        node: &NodeName,
        alpn: Alpn,
        failure: Option<RequestError>,
        now: Instant,
    ) {
        let slot = self.slots.entry((node.clone(), alpn)).or_default();
        slot.dialling = None;
        if let Some(error) = failure {
            slot.fail(error, now);
        }
    }

    /// Takes a new connection of either direction. The oldest goes when there are too many.
    pub(crate) fn insert(&mut self, link: &Arc<Link>) {
        let slot = self.slots.entry((link.peer.node.clone(), link.alpn)).or_default();
        slot.links.retain(|link| link.is_alive());
        slot.links.push(Arc::clone(link));
        if slot.links.len() > MAX_CONNECTIONS_PER_PEER {
            let oldest = slot.links.remove(0);
            close(&oldest.connection, CloseCode::Surplus, "there are newer connections");
        }
    }

    /// Forgets a connection that has ended; `failure` if the peer ended it because it refuses us.
    pub(crate) fn remove(&mut self, link: &Arc<Link>, failure: Option<RequestError>, now: Instant) {
        let key = (link.peer.node.clone(), link.alpn);
        let Some(slot) = self.slots.get_mut(&key) else { return };
        slot.links.retain(|other| !Arc::ptr_eq(other, link));
        if let Some(error) = failure {
            slot.fail(error, now);
        }
        if slot.links.is_empty() && slot.dialling.is_none() && slot.backoff.is_none() {
            self.slots.remove(&key);
        }
    }

    /// A request was answered: whatever went wrong before is over.
    pub(crate) fn succeeded(&mut self, node: &NodeName, alpn: Alpn) {
        if let Some(slot) = self.slots.get_mut(&(node.clone(), alpn)) {
            slot.backoff = None;
        }
    }

    /// All connections.
    pub(crate) fn links(&self) -> Vec<Arc<Link>> {
        self.slots.values().flat_map(|slot| slot.links.iter().cloned()).collect()
    }

    /// Forgets what has had no meaning for a while: names come and go for years.
    pub(crate) fn prune(&mut self, now: Instant) {
        self.slots.retain(|_, slot| {
            let over = slot.backoff.as_ref().is_none_or(|b| now > b.until + 2 * MAX_BACKOFF);
            !(slot.links.is_empty() && slot.dialling.is_none() && over)
        });
    }
}

impl Slot {
    fn start_dial(&mut self) -> (watch::Sender<DialOutcome>, watch::Receiver<DialOutcome>) {
        let (sender, receiver) = watch::channel(None);
        self.dialling = Some(receiver.clone());
        (sender, receiver)
    }

    fn fail(&mut self, last: RequestError, now: Instant) {
        let failures = self.backoff.as_ref().map_or(0, |backoff| backoff.failures).saturating_add(1);
        self.backoff = Some(Backoff { failures, until: now + pause_after(failures), last });
    }
}

/// The pause after so many failures in a row.
fn pause_after(failures: u32) -> Duration {
    MIN_BACKOFF.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(MAX_BACKOFF)
}

/// The connection to use: one under the present credentials if there is one; of several the one that
/// the node with the smaller name dialled, so that after a simultaneous dial both sides use the same
/// and the other falls out of use; then the newest.
fn choose(links: &[Arc<Link>], me: &NodeName, generation: u64) -> Option<Arc<Link>> {
    let rank = |link: &Link| (link.generation == generation, link.dialled == (*me < link.peer.node));
    links.iter().filter(|link| link.is_alive()).max_by_key(|link| rank(link)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> NodeName {
        NodeName::new(text).unwrap()
    }

    #[test]
    fn one_dial_at_a_time_then_a_growing_pause() {
        let (mut pool, peer, now) = (Pool::new(name("a")), name("b"), Instant::now());
        assert!(matches!(pool.next_step(&peer, Alpn::Raft, 0, now), Step::Dial(..)));
        assert!(matches!(pool.next_step(&peer, Alpn::Raft, 0, now), Step::Wait(_)));
        assert!(matches!(pool.next_step(&peer, Alpn::Link, 0, now), Step::Dial(..)));

        pool.dialled(&peer, Alpn::Raft, Some(RequestError::Closed), now);
        assert!(matches!(pool.next_step(&peer, Alpn::Raft, 0, now), Step::Fail(RequestError::Closed)));
        let later = now + MIN_BACKOFF;
        assert!(matches!(pool.next_step(&peer, Alpn::Raft, 0, later), Step::Dial(..)));
        pool.dialled(&peer, Alpn::Raft, Some(RequestError::Closed), later);
        assert!(matches!(pool.next_step(&peer, Alpn::Raft, 0, later + MIN_BACKOFF), Step::Fail(_)));
        pool.succeeded(&peer, Alpn::Raft);
        assert!(matches!(pool.next_step(&peer, Alpn::Raft, 0, later), Step::Dial(..)));
    }

    #[test]
    fn the_pause_is_bounded() {
        assert_eq!((pause_after(1), pause_after(2)), (MIN_BACKOFF, 2 * MIN_BACKOFF));
        assert_eq!(pause_after(u32::MAX), MAX_BACKOFF);
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let (mut pool, now) = (Pool::new(name("a")), Instant::now());
        pool.dialled(&name("b"), Alpn::Raft, Some(RequestError::Closed), now);
        pool.prune(now + MAX_BACKOFF);
        assert_eq!(pool.slots.len(), 1);
        pool.prune(now + 4 * MAX_BACKOFF);
        assert_eq!(pool.slots.len(), 0);
    }
}
