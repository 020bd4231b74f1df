//! The records this node has.
//!
//! Each node owns its records, and for each (node, topic) only the newest counts. "Newest" is a total
//! order ([`Rank`]), so taking the greater of two is commutative, associative and idempotent: nodes that
//! have seen the same records hold the same ones, whatever the order, the repetitions and the ways.
//!
//! Records of nodes that are not admitted are not kept and so never handed on. A removed node's id is in
//! the policy for ever; that is the tombstone that keeps its old facts from coming back.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_fabric::{
    Epoch, UnixMs,
    command::{AdmissionState, Limits, Role},
    id::NodeName,
    key::{FabricId, Hash, NodeId, PublicKey},
    policy::PolicyState,
    record::{Body, MAX_RECORD_BYTES, Record, RecordError, Topic, Version},
};
use serde::{Deserialize, Serialize};

use super::MAX_INCARNATION;

/// How many topics there are; with [`MAX_RECORD_BYTES`] it bounds what one node may occupy.
pub const TOPICS: usize = 6;
/// Most records in all.
pub const MAX_RECORDS: usize = Limits::NODES * TOPICS;
/// Most bytes of record bodies in all: 5,000 nodes come to about 20 MiB when each has a handful of
/// endpoints; beyond this bound new records are refused and those that are there stay.
pub const MAX_STORE_BYTES: usize = 128 << 20;
/// Number of buckets over which the summary of the store is spread.
pub const BUCKETS: usize = 256;

/// Which record: there is one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Key {
    /// Whose.
    pub node: NodeId,
    /// Of what.
    pub topic: Topic,
}

impl Key {
    /// The key under which `record` is kept.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        Self { node: record.node.node_id(), topic: record.topic }
    }

    /// The bucket of the summary that this key falls in.
    #[must_use]
    pub const fn bucket(&self) -> usize {
        // Node ids are hashes, so their top byte is evenly spread.
        (self.node.0 >> 56) as usize % BUCKETS
    }
}

/// The order among records of one key. The version decides; nonce and digest only break the tie between
/// two holders of one key, the same way everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Rank {
    /// The version the node gave it.
    pub version: Version,
    /// The start of the node that made it.
    pub boot_nonce: u64,
    /// First bytes of the hash of its signature.
    pub digest: u64,
}

impl Rank {
    /// The rank of `record`.
    #[must_use]
    pub fn of(record: &Record) -> Self {
        let hash = Hash::of(&record.signature.0).0;
        let digest = u64::from_be_bytes(std::array::from_fn(|i| hash[i]));
        Self { version: record.version, boot_nonce: record.boot_nonce, digest }
    }
}

/// A record that is kept, with what it says.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As it came, to be handed on.
    pub record: Arc<Record>,
    /// What it says.
    pub body: Arc<Body>,
    /// Its place in the order.
    pub rank: Rank,
    /// When it was taken, by this node's clock.
    pub heard_ms: UnixMs,
    /// Whether it came since this node started, and not from its disk.
    pub fresh: bool,
}

/// A node whose records are taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: NodeName,
    /// Its key.
    pub key: PublicKey,
    /// What it does.
    pub role: Role,
}

/// Why a record was dropped. The names are the labels of the counters.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// Its node is not admitted, or was revoked.
    #[error("its node is not admitted")]
    NotAdmitted,
    /// Its node was removed.
    #[error("its node was removed for good")]
    Removed,
    /// It carries a fence epoch that no recovery statement supports.
    #[error("fence epoch {0} is not known here")]
    Epoch(Epoch),
    /// The incarnation is beyond [`MAX_INCARNATION`].
    #[error("incarnation {0} is beyond any that a node can have had")]
    Incarnation(u64),
    /// Its body or signature is bad.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The store is full.
    #[error("the record store is full")]
    Full,
    /// The node sends more than its share.
    #[error("its node sends records faster than it may")]
    Flood,
    /// It claims to be this node's own.
    #[error("it carries this node's own key, and this node did not make it")]
    Mine,
}

/// What became of a good record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Newer than what was there.
    New,
    /// The very one that is there.
    Known,
    /// Older than what is there.
    Stale,
}

/// The newest record of each node and topic.
#[derive(Debug)]
pub struct RecordStore {
    fabric: FabricId,
    epoch: Epoch,
    members: BTreeMap<NodeId, Member>,
    removed: BTreeMap<NodeId, ()>,
    entries: BTreeMap<Key, Entry>,
    sums: Vec<u64>,
    bytes: usize,
}

impl RecordStore {
    /// An empty store of a fabric at a fence epoch.
    #[must_use]
    pub fn new(fabric: FabricId, epoch: Epoch) -> Self {
        Self {
            fabric,
            epoch,
            members: BTreeMap::new(),
            removed: BTreeMap::new(),
            entries: BTreeMap::new(),
            sums: vec![0; BUCKETS],
            bytes: 0,
        }
    }

    /// Takes records of this fence epoch too from now on. It never falls.
    pub fn set_epoch(&mut self, epoch: Epoch) {
        self.epoch = self.epoch.max(epoch);
    }

    /// Takes over who is admitted; returns the keys of records that are gone with their nodes.
    pub fn set_policy(&mut self, policy: &PolicyState) -> Vec<Key> {
        let member = |(name, admission): (&NodeName, &selvedge_fabric::policy::Admission)| {
            let member = Member { name: name.clone(), key: admission.key, role: admission.role };
            (admission.key.node_id(), member)
        };
        let admitted = policy.nodes.iter().filter(|(_, a)| a.state != AdmissionState::Revoked);
        self.members = admitted.map(member).collect();
        self.removed = policy.removed.keys().map(|&id| (id, ())).collect();
        let members = &self.members;
        let belongs = |(key, entry): (&Key, &Entry)| {
            members.get(&key.node).is_some_and(|member| member.key == entry.record.node)
        };
        let orphans: Vec<Key> =
            self.entries.iter().filter(|entry| !belongs(*entry)).map(|(key, _)| *key).collect();
        for key in &orphans {
            self.remove(key);
        }
        orphans
    }

    /// The admitted nodes.
    #[must_use]
    pub const fn members(&self) -> &BTreeMap<NodeId, Member> {
        &self.members
    }

    /// Whether a record is worth verifying: cheap, and enough to tell what is known already.
    #[must_use]
    pub fn compare(&self, record: &Record) -> Merge {
        let rank = Rank::of(record);
        match self.entries.get(&Key::of(record)).map(|have| have.rank.cmp(&rank)) {
            None | Some(std::cmp::Ordering::Less) => Merge::New,
            Some(std::cmp::Ordering::Equal) => Merge::Known,
            Some(std::cmp::Ordering::Greater) => Merge::Stale,
        }
    }

    /// Takes a record when it is genuine, of an admitted node, and newer than what is there.
    ///
    /// # Errors
    /// Why it was dropped.
    pub fn merge(&mut self, record: Record, heard_ms: UnixMs, fresh: bool) -> Result<Merge, Dropped> {
        self.check_origin(&record)?;
        match self.compare(&record) {
            Merge::New => {}
            known_or_stale => return Ok(known_or_stale),
        }
        let body = record.open(&self.fabric)?;
        self.check_room(&record)?;
        let rank = Rank::of(&record);
        let entry = Entry { record: Arc::new(record), body: Arc::new(body), rank, heard_ms, fresh };
        self.insert(entry);
        Ok(Merge::New)
    }

    /// The record of `key`.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// What `node` says on `topic`.
    #[must_use]
    pub fn body(&self, node: NodeId, topic: Topic) -> Option<&Body> {
        self.get(&Key { node, topic }).map(|entry| &*entry.body)
    }

    /// The records of a node.
    pub fn of_node(&self, node: NodeId) -> impl Iterator<Item = (&Key, &Entry)> {
        let first = Key { node, topic: Topic::Presence };
        let last = Key { node, topic: Topic::Load };
        self.entries.range(first..=last)
    }

    /// The newest incarnation of a node that any of its records shows; 0 when there is none.
    #[must_use]
    pub fn incarnation(&self, node: NodeId) -> u64 {
        self.of_node(node).map(|(_, entry)| entry.rank.version.incarnation).max().unwrap_or(0)
    }

    /// All records, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Entry)> {
        self.entries.iter()
    }

    /// How many records there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// One number per bucket, equal on two nodes when (nearly certainly) their buckets are.
    #[must_use]
    pub fn sums(&self) -> &[u64] {
        &self.sums
    }

    /// The ranks of all records in a bucket.
    pub fn heads(&self, bucket: usize) -> impl Iterator<Item = (Key, Rank)> {
        let first = NodeId((bucket as u64) << 56);
        let last = NodeId(first.0 | (u64::MAX >> 8));
        let range = Key { node: first, topic: Topic::Presence }..=Key { node: last, topic: Topic::Load };
        self.entries.range(range).map(|(key, entry)| (*key, entry.rank))
    }

    fn check_origin(&self, record: &Record) -> Result<(), Dropped> {
        let id = record.node.node_id();
        if self.removed.contains_key(&id) {
            return Err(Dropped::Removed);
        }
        // The whole key is compared, not its 64-bit id: a collision must not pass for a member.
        if self.members.get(&id).is_none_or(|member| member.key != record.node) {
            return Err(Dropped::NotAdmitted);
        }
        if record.version.epoch > self.epoch {
            return Err(Dropped::Epoch(record.version.epoch));
        }
        if record.version.incarnation > MAX_INCARNATION {
            return Err(Dropped::Incarnation(record.version.incarnation));
        }
        Ok(())
    }

    fn check_room(&self, record: &Record) -> Result<(), Dropped> {
        let (limit, count) = (MAX_RECORD_BYTES, record.body.len());
        if count > limit {
            return Err(RecordError::Bound { what: "record bytes", count, limit }.into());
        }
        let have = self.entries.get(&Key::of(record));
        let records = self.entries.len() + usize::from(have.is_none());
        let bytes = self.bytes - have.map_or(0, |entry| entry.record.body.len()) + count;
        if records > MAX_RECORDS || bytes > MAX_STORE_BYTES { Err(Dropped::Full) } else { Ok(()) }
    }

    fn insert(&mut self, entry: Entry) {
        let key = Key::of(&entry.record);
        self.remove(&key);
        self.bytes += entry.record.body.len();
        self.fold(&key, &entry.rank);
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.record.body.len();
            self.fold(key, &entry.rank);
        }
    }

    /// Adds a record to its bucket's sum, or takes it out: XOR does both.
    fn fold(&mut self, key: &Key, rank: &Rank) {
        // The digest already covers node, topic and version: they are under the signature.
        self.sums[key.bucket()] ^= rank.digest;
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
