//! What to tell whom.
//!
//! Two ways, after Demers et al., "Epidemic algorithms for replicated database maintenance" (1987). A
//! *push* is fast and may get lost: each new record is handed to the carrier once, whose mesh spreads it.
//! *Anti-entropy* is slower and misses nothing: every interval, and at once on a new connection, this node
//! compares its store with that of one random peer and both take what is newer.
//!
//! Emergency revocations are nobody's records. They are few and there are none as a rule, so whoever has
//! some simply hands all of them to each peer: at once when there is a new one, on a new connection, and
//! with every round of anti-entropy.
//!
//! A machine without IO: the shell calls `handle_*` with what came in and drains `poll_*`.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use rand::{RngExt, SeedableRng, rngs::SmallRng, seq::IteratorRandom};
use selvedge_fabric::{
    key::NodeId,
    record::{Record, RecordError},
    statement::{Revocations, SignedRevocation},
};

use super::{
    Now,
    holders::Holders,
    own::{Identity, Own},
    rumors::Rumors,
    store::{BUCKETS, Dropped, Key, Merge, Rank, RecordStore},
    wire::{Bucket, MAX_HEADS, MAX_RECORDS_BYTES, MAX_WANTED, Request, Response},
};

/// News from one exchange that are pushed on. A few are news to others too; a bulk is a node catching up
/// or a partition healing, and pushing it from every node that takes part would be a storm.
pub const MAX_RELAYED: usize = 16;
/// An exchange that is not answered by then is forgotten.
pub const EXCHANGE_TIMEOUT_MS: u64 = 5_000;
/// New records of one node that are taken at once after a quiet time: several changes of every topic.
pub const NODE_BURST: u32 = 60;
/// New records of one node that are taken per second in the long run.
pub const NODE_RECORDS_PER_SECOND: u32 = 30;
/// Most events that wait for the shell; older ones are only counted.
pub const MAX_EVENTS: usize = 4_096;

/// Something for the carrier to do.
#[derive(Debug, Clone)]
pub enum Transmit {
    /// Hand the record to everybody, by the mesh.
    Publish(Arc<Record>),
    /// Ask one peer.
    Ask {
        /// The peer.
        to: NodeId,
        /// The request.
        request: Request,
    },
}

/// What the mesh does with a record that came by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it on.
    Accept,
    /// Keep it from others: it is old, or not ours to judge.
    Ignore,
    /// It is bad; who sent it should have seen that.
    Reject,
}

/// Something the shell should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A newer record was taken.
    Taken(Key),
    /// A record was dropped.
    Dropped {
        /// Who sent it, when it was not made here.
        from: Option<NodeId>,
        /// Whose it claims to be.
        node: NodeId,
        /// Why.
        why: Dropped,
    },
    /// Two live holders of the key of this node.
    Quarantined(NodeId),
    /// Peers held newer facts of this node than it knew of; it goes on under this incarnation.
    Raised(u64),
    /// This peer says that the recovery key revoked a key; nothing about it was verified.
    Revocation(NodeId, Box<SignedRevocation>),
}

#[derive(Debug, Clone, Copy)]
struct Bucketed {
    tokens_milli: u64,
    refilled_ms: u64,
}

/// The dissemination of records, and the store they end in.
#[derive(Debug)]
pub struct Gossip {
    store: RecordStore,
    own: Own,
    holders: Holders,
    rumors: Rumors,
    peers: BTreeMap<NodeId, Option<u64>>,
    shares: BTreeMap<NodeId, Bucketed>,
    asks: VecDeque<(NodeId, Request)>,
    events: VecDeque<Event>,
    revocations: Arc<Revocations>,
    rng: SmallRng,
    interval_ms: u64,
    next_exchange_ms: u64,
}

impl Gossip {
    /// A machine around what the store holds already.
    #[must_use]
    pub fn new(store: RecordStore, own: Own, interval_ms: u64, seed: u64) -> Self {
        Self {
            store,
            own,
            holders: Holders::default(),
            rumors: Rumors::default(),
            peers: BTreeMap::new(),
            shares: BTreeMap::new(),
            asks: VecDeque::new(),
            events: VecDeque::new(),
            revocations: Arc::default(),
            rng: SmallRng::seed_from_u64(seed),
            interval_ms,
            next_exchange_ms: 0,
        }
    }

    /// The records.
    #[must_use]
    pub const fn store(&self) -> &RecordStore {
        &self.store
    }

    /// What this node says of itself.
    pub const fn own(&mut self) -> &mut Own {
        &mut self.own
    }

    /// Who holds which key.
    #[must_use]
    pub const fn holders(&self) -> &Holders {
        &self.holders
    }

    /// The peers the carrier is connected with.
    pub fn peers(&self) -> impl Iterator<Item = NodeId> {
        self.peers.keys().copied()
    }

    /// Rumors that were dropped because too many waited.
    #[must_use]
    pub const fn dropped_rumors(&self) -> u64 {
        self.rumors.dropped()
    }

    /// Takes over who is admitted, and looks soon at what peers have of those that are new. Returns the
    /// keys of records that are gone.
    pub fn handle_policy(&mut self, policy: &selvedge_fabric::policy::PolicyState, now: Now) -> Vec<Key> {
        let gone = self.store.set_policy(policy);
        let members = self.store.members();
        self.holders.retain(|node| members.contains_key(&node));
        self.shares.retain(|node, _| members.contains_key(node));
        self.next_exchange_ms = self.next_exchange_ms.min(now.mono_ms);
        gone
    }

    /// Enters a higher fence epoch: everything is said again under it.
    pub fn handle_epoch(&mut self, epoch: selvedge_fabric::Epoch) {
        self.store.set_epoch(epoch);
        self.own.repeat_all();
    }

    /// Takes over which emergency revocations hold, and tells all peers when one came to be.
    pub fn handle_revocations(&mut self, revocations: Arc<Revocations>) {
        let news = revocations.iter().any(|one| !self.revocations.revokes(&one.revocation.key));
        self.revocations = revocations;
        if news {
            let peers: Vec<_> = self.peers().collect();
            peers.into_iter().for_each(|peer| self.tell_revocations(peer));
        }
    }

    /// The carrier has a connection with `peer`.
    pub fn handle_connected(&mut self, peer: NodeId, now: Now) {
        self.peers.insert(peer, None);
        self.tell_revocations(peer);
        self.ask_sums(peer, now);
    }

    /// The carrier has no connection with `peer` any more.
    pub fn handle_disconnected(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        self.asks.retain(|(to, _)| *to != peer);
    }

    /// A record came by the mesh.
    pub fn handle_push(&mut self, from: NodeId, record: Record, now: Now) -> Verdict {
        match self.take(Some(from), record, now) {
            Ok(Merge::New) => Verdict::Accept,
            Ok(Merge::Known | Merge::Stale) => Verdict::Ignore,
            Err(Dropped::Record(_) | Dropped::Incarnation(_)) => Verdict::Reject,
            // These depend on what this node knows: its policy may be older than the sender's.
            Err(_) => Verdict::Ignore,
        }
    }

    /// A peer asks.
    pub fn handle_request(&mut self, from: NodeId, request: Request, now: Now) -> Response {
        if request.check().is_err() {
            return Response::Refused;
        }
        match request {
            Request::Sums { from: first, sums } => Response::Heads(self.differing(first, &sums)),
            Request::Exchange { give, want } => {
                self.take_all(from, give, now);
                Response::Records(self.records(want.iter()))
            }
            Request::Revocations(list) => {
                let known = |one: &SignedRevocation| self.revocations.revokes(&one.revocation.key);
                let news: Vec<_> = list.into_iter().filter(|one| !known(one)).collect();
                // Within the sender's share: each costs a signature, and many that are none would fill the
                // queue in which good ones wait. What is left out comes again.
                for one in news {
                    if !self.spend(from, now.mono_ms) {
                        break;
                    }
                    self.event(Event::Revocation(from, Box::new(one)));
                }
                Response::Noted
            }
        }
    }

    /// A peer answers.
    pub fn handle_response(&mut self, from: NodeId, response: Response, now: Now) {
        if response == Response::Noted {
            // Not of the exchange that may be under way with this peer.
            return;
        }
        if let Some(pending) = self.peers.get_mut(&from) {
            *pending = None;
        }
        match response {
            Response::Heads(buckets) => self.ask_exchange(from, &buckets, now),
            Response::Records(records) => {
                // Progress means that there may be more; without any, a peer that only pretends to have
                // news would keep this node busy.
                if self.take_all(from, records, now) > 0 {
                    self.ask_sums(from, now);
                }
            }
            Response::Refused | Response::Noted => {}
        }
    }

    /// A request to `peer` failed.
    pub fn handle_failure(&mut self, peer: NodeId) {
        if let Some(pending) = self.peers.get_mut(&peer) {
            *pending = None;
        }
    }

    /// Signs what this node has to say and begins an exchange when it is time.
    pub fn handle_timeout(&mut self, identity: &Identity<'_>, now: Now) {
        while let Some(record) = self.next_own(identity, now) {
            let taken = record.map_err(Dropped::from).and_then(|record| {
                let (key, rank) = (Key::of(&record), Rank::of(&record));
                let merged = self.store.merge(record, now.unix_ms, true)?;
                Ok((key, rank, merged))
            });
            match taken {
                Ok((key, rank, Merge::New)) => {
                    self.rumors.push(key);
                    self.note_new(key, &rank, now);
                }
                Ok((_, _, Merge::Known | Merge::Stale)) => {}
                Err(why) => self.event(Event::Dropped { from: None, node: self.own.key().node_id(), why }),
            }
        }
        if now.mono_ms >= self.next_exchange_ms {
            // Jitter keeps nodes that started together from asking together.
            let jitter_ms = self.rng.random_range(0..=self.interval_ms / 4);
            self.next_exchange_ms = now.mono_ms + self.interval_ms + jitter_ms;
            if let Some(peer) = self.peers.keys().copied().choose(&mut self.rng) {
                self.tell_revocations(peer);
                self.ask_sums(peer, now);
            }
        }
    }

    /// The next record of this node. None while the policy here does not admit it: a node that has just
    /// joined speaks before its policy arrives, and what it says then must wait, not be lost.
    fn next_own(&mut self, identity: &Identity<'_>, now: Now) -> Option<Result<Record, RecordError>> {
        let admitted = self.store.members().contains_key(&self.own.key().node_id());
        if admitted { self.own.poll(identity, now.mono_ms) } else { None }
    }

    /// The next thing for the carrier to do.
    pub fn poll_transmit(&mut self, now: Now) -> Option<Transmit> {
        if let Some((to, request)) = self.asks.pop_front() {
            return Some(Transmit::Ask { to, request });
        }
        if self.peers.is_empty() {
            // Nobody to push to; whoever connects first gets everything by anti-entropy.
            return None;
        }
        let store = &self.store;
        let size = |key: &Key| store.get(key).map(|entry| entry.record.body.len() as u64 + 200);
        let key = self.rumors.poll(now.mono_ms, size)?;
        self.store.get(&key).map(|entry| Transmit::Publish(entry.record.clone()))
    }

    /// The next thing the shell should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Takes the records that came in one exchange; returns how many were new.
    fn take_all(&mut self, from: NodeId, records: Vec<Record>, now: Now) -> usize {
        let mut news = Vec::new();
        for record in records {
            let key = Key::of(&record);
            if matches!(self.take(Some(from), record, now), Ok(Merge::New)) {
                news.push(key);
            }
        }
        if news.len() <= MAX_RELAYED {
            news.iter().for_each(|key| self.rumors.push(*key));
        }
        news.len()
    }

    fn take(&mut self, from: Option<NodeId>, record: Record, now: Now) -> Result<Merge, Dropped> {
        let (key, rank) = (Key::of(&record), Rank::of(&record));
        let mine = record.node == self.own.key();
        let taken = self.admit(&record, mine, now).and_then(|worth| match worth {
            Merge::New => self.store.merge(record, now.unix_ms, true),
            known_or_stale => Ok(known_or_stale),
        });
        match &taken {
            Ok(Merge::New) => {
                self.note_new(key, &rank, now);
                if mine && self.own.raise_above(rank.version.incarnation, now.mono_ms) {
                    self.event(Event::Raised(self.own.incarnation()));
                }
            }
            Ok(Merge::Known | Merge::Stale) => {}
            Err(why) => self.event(Event::Dropped { from, node: key.node, why: why.clone() }),
        }
        taken
    }

    /// The cheap questions, before a signature is verified.
    fn admit(&mut self, record: &Record, mine: bool, now: Now) -> Result<Merge, Dropped> {
        let worth = self.store.compare(record);
        if worth != Merge::New {
            return Ok(worth);
        }
        if mine && record.boot_nonce == self.own.boot_nonce() {
            return Err(Dropped::Mine);
        }
        let id = record.node.node_id();
        if self.store.members().contains_key(&id) && !self.spend(id, now.mono_ms) {
            return Err(Dropped::Flood);
        }
        Ok(Merge::New)
    }

    fn note_new(&mut self, key: Key, rank: &Rank, now: Now) {
        let incarnation = rank.version.incarnation;
        if self.holders.handle_new_record(key.node, incarnation, rank.boot_nonce, now.mono_ms) {
            self.event(Event::Quarantined(key.node));
        }
        self.event(Event::Taken(key));
    }

    /// Takes one record off the share of `node`; false when it is used up.
    fn spend(&mut self, node: NodeId, now_ms: u64) -> bool {
        let full = u64::from(NODE_BURST) * 1_000;
        let share = self.shares.entry(node).or_insert(Bucketed { tokens_milli: full, refilled_ms: now_ms });
        let elapsed_ms = now_ms.saturating_sub(share.refilled_ms);
        let earned = elapsed_ms.saturating_mul(u64::from(NODE_RECORDS_PER_SECOND));
        share.tokens_milli = share.tokens_milli.saturating_add(earned).min(full);
        share.refilled_ms = now_ms;
        let enough = share.tokens_milli >= 1_000;
        if enough {
            share.tokens_milli -= 1_000;
        }
        enough
    }

    fn tell_revocations(&mut self, peer: NodeId) {
        if !self.revocations.is_empty() {
            let all = self.revocations.iter().cloned().collect();
            self.asks.push_back((peer, Request::Revocations(all)));
        }
    }

    fn ask_sums(&mut self, peer: NodeId, now: Now) {
        let Some(pending) = self.peers.get_mut(&peer) else { return };
        if pending.is_some_and(|at| now.mono_ms.saturating_sub(at) < EXCHANGE_TIMEOUT_MS) {
            return;
        }
        *pending = Some(now.mono_ms);
        let from = self.rng.random();
        self.asks.push_back((peer, Request::Sums { from, sums: self.store.sums().to_vec() }));
    }

    fn differing(&self, first: u8, theirs: &[u64]) -> Vec<Bucket> {
        let mut buckets = Vec::new();
        let mut count = 0;
        for offset in 0..BUCKETS {
            let bucket = (usize::from(first) + offset) % BUCKETS;
            if self.store.sums()[bucket] == theirs[bucket] {
                continue;
            }
            let heads: Vec<_> = self.store.heads(bucket).take(MAX_HEADS).collect();
            count += heads.len();
            if count > MAX_HEADS && !buckets.is_empty() {
                break;
            }
            buckets.push(Bucket { index: u8::try_from(bucket).unwrap_or(u8::MAX), heads });
        }
        buckets
    }

    fn ask_exchange(&mut self, peer: NodeId, buckets: &[Bucket], now: Now) {
        let mut want = Vec::new();
        let mut surplus = Vec::new();
        for bucket in buckets.iter().take(BUCKETS) {
            let theirs: BTreeMap<_, _> = bucket.heads.iter().take(MAX_HEADS).copied().collect();
            let ours: BTreeMap<_, _> = self.store.heads(usize::from(bucket.index)).collect();
            let newer = |(key, rank): &(&Key, &Rank)| {
                let admitted = self.store.members().contains_key(&key.node);
                admitted && ours.get(key).is_none_or(|have| have < *rank)
            };
            want.extend(theirs.iter().filter(newer).map(|(key, _)| *key));
            let lacks = |(key, rank): &(&Key, &Rank)| theirs.get(key).is_none_or(|have| have < *rank);
            surplus.extend(ours.iter().filter(lacks).map(|(key, _)| *key));
        }
        want.truncate(MAX_WANTED);
        if want.is_empty() && surplus.is_empty() {
            return;
        }
        if let Some(pending) = self.peers.get_mut(&peer) {
            *pending = Some(now.mono_ms);
            let give = self.records(surplus.iter());
            self.asks.push_back((peer, Request::Exchange { give, want }));
        }
    }

    /// The records of `keys`, as many as fit into a message.
    fn records<'a>(&self, keys: impl Iterator<Item = &'a Key>) -> Vec<Record> {
        let mut bytes = 0;
        let mut records = Vec::new();
        for entry in keys.filter_map(|key| self.store.get(key)) {
            bytes += entry.record.body.len() + 200;
            if bytes > MAX_RECORDS_BYTES {
                break;
            }
            records.push((*entry.record).clone());
        }
        records
    }

    fn event(&mut self, event: Event) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }
}

#[cfg(test)]
#[path = "gossip_tests.rs"]
mod tests;
