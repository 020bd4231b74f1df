//! Who may vote, and how one set of voters hands over to the next.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::BundleError;
use crate::{
    Epoch,
    key::{FabricId, Hash, PublicKey, Signature, Signer},
};

/// Most voters of a set; placement makes 3, 5 or 7.
pub const MAX_VOTERS: usize = 7;
/// Most successions that are kept and carried. Voters change when one is dead for minutes, so these are
/// years; a node that was off for longer joins again.
pub const MAX_SUCCESSIONS: usize = 2_048;

const SET_CONTEXT: &[u8] = b"selvedge-voters-v1";
const SUCCESSION_CONTEXT: &[u8] = b"selvedge-succession-v1";

/// Signatures by their makers.
pub type Signatures = BTreeMap<PublicKey, Signature>;

/// The voters of a fabric between two changes of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VoterSet {
    /// Fence epoch.
    pub epoch: Epoch,
    /// Grows by one with every change. The first processor of a fabric alone is set 1.
    pub sequence: u64,
    /// Their node keys.
    pub voters: BTreeSet<PublicKey>,
}

impl VoterSet {
    /// Stands for the set in claims and successions.
    #[must_use]
    pub fn hash(&self, fabric: &FabricId) -> Hash {
        Hash::of(&self.bytes(SET_CONTEXT, fabric))
    }

    /// The smallest number of voters that is more than half.
    #[must_use]
    pub fn majority(&self) -> usize {
        self.voters.len() / 2 + 1
    }

    /// Signs `next` as the set that follows this one.
    #[must_use]
    pub fn sign_successor(&self, next: &Self, fabric: &FabricId, signer: &dyn Signer) -> Signature {
        signer.sign(&self.succession_bytes(next, fabric))
    }

    /// Whether `signature` is `voter`'s over `next` as the set that follows this one.
    #[must_use]
    pub fn signed_successor(
        &self,
        next: &Self,
        fabric: &FabricId,
        voter: &PublicKey,
        signature: &Signature,
    ) -> bool {
        self.voters.contains(voter) && voter.verifies(&self.succession_bytes(next, fabric), signature)
    }

    /// Takes `next` for the set that follows this one when a majority of this one says so.
    pub(super) fn follow(&self, next: &Succession, fabric: &FabricId) -> Result<Self, BundleError> {
        let set = &next.set;
        let broken = |why: String| BundleError::Chain { sequence: set.sequence, why };
        if set.sequence.checked_sub(1) != Some(self.sequence) {
            return Err(broken(format!("it should follow {}", self.sequence)));
        }
        if set.epoch != self.epoch {
            return Err(broken(format!("epoch {} follows {}", set.epoch, self.epoch)));
        }
        set.check_size()?;
        self.check_majority(&next.signatures, &self.succession_bytes(set, fabric))
            .map_err(|error| broken(error.to_string()))?;
        Ok(set.clone())
    }

    /// Whether `signatures` over `message` are all of voters, all genuine, and of a majority.
    pub(super) fn check_majority(&self, signatures: &Signatures, message: &[u8]) -> Result<(), BundleError> {
        if let Some(stranger) = signatures.keys().find(|key| !self.voters.contains(key)) {
            return Err(BundleError::NotAVoter(*stranger));
        }
        if let Some((forged, _)) = signatures.iter().find(|(key, s)| !key.verifies(message, s)) {
            return Err(BundleError::Signature(*forged));
        }
        if signatures.len() < self.majority() {
            return Err(BundleError::NoMajority { have: signatures.len(), voters: self.voters.len() });
        }
        Ok(())
    }

    /// Whether there are voters, and no more than there may be.
    ///
    /// # Errors
    /// When there are none, or too many.
    pub fn check_size(&self) -> Result<(), BundleError> {
        match self.voters.len() {
            0 => Err(BundleError::Malformed("a set without voters".to_owned())),
            count if count > MAX_VOTERS => {
                Err(BundleError::Bound { what: "voters of a set", count, limit: MAX_VOTERS })
            }
            _ => Ok(()),
        }
    }

    fn succession_bytes(&self, next: &Self, fabric: &FabricId) -> Vec<u8> {
        let mut message = next.bytes(SUCCESSION_CONTEXT, fabric);
        // Bound to the very set that hands over: after a fork that recovery ended, the same numbers may
        // stand for other voters.
        message.extend_from_slice(&self.hash(fabric).0);
        message
    }

    /// Everything but the voters has a fixed size and their number comes first, so no two sets have the
    /// same bytes.
    fn bytes(&self, context: &[u8], fabric: &FabricId) -> Vec<u8> {
        let mut message = context.to_vec();
        message.extend_from_slice(&fabric.0);
        message.extend_from_slice(&self.epoch.to_be_bytes());
        message.extend_from_slice(&self.sequence.to_be_bytes());
        message.extend_from_slice(&(self.voters.len() as u64).to_be_bytes());
        for voter in &self.voters {
            message.extend_from_slice(&voter.0);
        }
        message
    }
}

/// A set of voters with the signatures of its predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// The set that takes over.
    pub set: VoterSet,
    /// Of members of the set before.
    pub signatures: Signatures,
}
