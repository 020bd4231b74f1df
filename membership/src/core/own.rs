//! The records this node makes of itself.

use std::collections::BTreeMap;

use selvedge_fabric::{
    Epoch,
    key::{FabricId, PublicKey, Signer},
    record::{Body, Record, RecordError, Topic, Version},
};

use super::MAX_INCARNATION;

/// At most one record per topic in this time, so that a flapping health check cannot flood the fabric.
/// The first after a quiet time goes out at once.
pub const MIN_INTERVAL_MS: u64 = 100;
/// A second holder of the key makes both ends raise their incarnation in turn; this is how often at most.
pub const MIN_RAISE_INTERVAL_MS: u64 = 1_000;

/// Under what a node signs.
pub struct Identity<'a> {
    /// The fabric.
    pub fabric: FabricId,
    /// Its fence epoch.
    pub epoch: Epoch,
    /// Who signs.
    pub signer: &'a dyn Signer,
}

#[derive(Debug)]
struct Said {
    body: Body,
    sequence: u64,
    signed_ms: Option<u64>,
    due: bool,
}

/// This node's own bodies, newest per topic, with the incarnation under which they are signed.
#[derive(Debug)]
pub struct Own {
    key: PublicKey,
    incarnation: u64,
    boot_nonce: u64,
    raised_ms: Option<u64>,
    said: BTreeMap<Topic, Said>,
}

impl Own {
    /// Nothing said yet. `before` is the highest incarnation this node knows it has had.
    #[must_use]
    pub fn new(key: PublicKey, before: u64, boot_nonce: u64) -> Self {
        let incarnation = before.saturating_add(1).min(MAX_INCARNATION);
        Self { key, incarnation, boot_nonce, raised_ms: None, said: BTreeMap::new() }
    }

    /// The key under which this node signs.
    #[must_use]
    pub const fn key(&self) -> PublicKey {
        self.key
    }

    /// The present incarnation.
    #[must_use]
    pub const fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// The nonce of this start.
    #[must_use]
    pub const fn boot_nonce(&self) -> u64 {
        self.boot_nonce
    }

    /// Says something; it is signed when its topic may speak again. Saying the same again does nothing,
    /// unless `refresh` is set.
    pub fn say(&mut self, body: Body, refresh: bool) {
        let topic = body.topic();
        match self.said.get_mut(&topic) {
            Some(said) if said.body == body => said.due |= refresh,
            Some(said) => {
                said.body = body;
                said.due = true;
            }
            None => {
                let said = Said { body, sequence: 0, signed_ms: None, due: true };
                self.said.insert(topic, said);
            }
        }
    }

    /// Repeats what was said on a topic, as a new record.
    pub fn refresh(&mut self, topic: Topic) {
        if let Some(said) = self.said.get_mut(&topic) {
            said.due = true;
        }
    }

    /// Says everything again.
    pub fn repeat_all(&mut self) {
        for said in self.said.values_mut() {
            said.due = true;
            said.signed_ms = None;
        }
    }

    /// Continues above `seen`, an incarnation that peers hold of this node and that this start did not
    /// make, and says everything again. False when that was done just now.
    pub fn raise_above(&mut self, seen: u64, now_ms: u64) -> bool {
        let too_soon = |at: u64| now_ms.saturating_sub(at) < MIN_RAISE_INTERVAL_MS;
        if seen < self.incarnation || self.raised_ms.is_some_and(too_soon) {
            return false;
        }
        self.incarnation = seen.saturating_add(1).min(MAX_INCARNATION);
        self.raised_ms = Some(now_ms);
        self.repeat_all();
        true
    }

    /// The next record that is due, signed.
    ///
    /// # Errors
    /// When a body exceeds its bounds; it is not tried again.
    pub fn poll(&mut self, identity: &Identity<'_>, now_ms: u64) -> Option<Result<Record, RecordError>> {
        let may_speak = |said: &Said| {
            said.due && said.signed_ms.is_none_or(|at| now_ms.saturating_sub(at) >= MIN_INTERVAL_MS)
        };
        let said = self.said.values_mut().find(|said| may_speak(said))?;
        said.due = false;
        said.signed_ms = Some(now_ms);
        said.sequence += 1;
        let version =
            Version { epoch: identity.epoch, incarnation: self.incarnation, sequence: said.sequence };
        Some(Record::sign(&identity.fabric, identity.signer, version, self.boot_nonce, &said.body))
    }
}
