//! Hashes of intent, by which nodes compare what they enforce.
//!
//! What is hashed is the postcard encoding (compact, and the same for the same value: fields in order of
//! declaration, maps in order of their keys) after a tag that says what it is.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::PolicyState;
use crate::{
    command::{ApiToken, JoinToken},
    key::Hash,
};

const OBJECTS_TAG: &[u8] = b"selvedge/objects/2\0";
const INTENT_TAG: &[u8] = b"selvedge/intent/2\0";

impl PolicyState {
    /// Hash of the objects alone: equal for equal objects, whatever the revision.
    #[must_use]
    pub fn objects_hash(&self) -> Hash {
        digest(OBJECTS_TAG, &self.objects)
    }

    /// Hash of all intent that is no secret: what the fabric is, objects, identities, nodes, removals,
    /// rollouts, and tokens without the hashes of their secrets. So a node that is given no secrets, see
    /// [`PolicyState::without_secrets`], can compute it too.
    #[must_use]
    pub fn intent_hash(&self) -> Hash {
        let join: BTreeMap<_, _> = self
            .join_tokens
            .iter()
            .map(|(id, t)| (id, (t.role, &t.zone, t.not_after_ms, t.uses_left)))
            .collect();
        let api: BTreeMap<_, _> =
            self.api_tokens.iter().map(|(id, t)| (id, (&t.name, t.rights, t.not_after_ms))).collect();
        digest(
            INTENT_TAG,
            &(
                &self.params,
                &self.objects,
                (&self.identities, self.last_identity),
                &self.nodes,
                &self.removed,
                (join, &self.service_tokens, api),
                &self.rollouts,
            ),
        )
    }

    /// This state as a workload node may hold it: no issuing key, no hashes of token secrets, no
    /// history and no outcomes of others' commands. Its [`PolicyState::intent_hash`] is the same.
    #[must_use]
    pub fn without_secrets(&self) -> Self {
        let blank = Hash([0; 32]);
        let join = |(id, t): (&_, &JoinToken)| (*id, JoinToken { secret_hash: blank, ..t.clone() });
        let api = |(id, t): (&_, &ApiToken)| (*id, ApiToken { secret_hash: blank, ..t.clone() });
        Self {
            params: self.params.clone(),
            revision: self.revision,
            clock_ms: self.clock_ms,
            objects: self.objects.clone(),
            nodes: self.nodes.clone(),
            removed: self.removed.clone(),
            join_tokens: self.join_tokens.iter().map(join).collect(),
            service_tokens: self.service_tokens.clone(),
            api_tokens: self.api_tokens.iter().map(api).collect(),
            identities: self.identities.clone(),
            last_identity: self.last_identity,
            rollouts: self.rollouts.clone(),
            ..Self::default()
        }
    }
}

fn digest<T: Serialize>(tag: &[u8], value: &T) -> Hash {
    let mut hasher = Sha256::new();
    hasher.update(tag);
    // Writing plain data to a hasher has no way to fail; an encoding that did would yield a hash that
    // is the same everywhere and equal to no other.
    match postcard::to_allocvec(value) {
        Ok(bytes) => hasher.update(&bytes),
        Err(error) => hasher.update(error.to_string()),
    }
    Hash(hasher.finalize().into())
}
