//! Recovery: a majority is gone for good, and the recovery key says with whom the fabric goes on.
//!
//! Consensus cannot replace a lost majority, for it cannot tell a lost one from one behind a cut. Only the
//! holder of the recovery key may decide that. What is signed names the state that is taken over and the new
//! voters, and it opens a new fence epoch: what carries a lower one is refused from then on, wherever this
//! statement is known, and it travels with every refusal.
//!
//! An epoch is a counter with a random tail ([`next_epoch`]). Two recoveries that knew nothing of each other,
//! one on either side of a cut, therefore have different epochs, and the lower one is fenced when they meet
//! instead of passing for the same.

use serde::{Deserialize, Serialize};

use super::{BundleError, VoterSet};
use crate::{
    Epoch, Revision, UnixMs,
    key::{FabricId, Hash, PublicKey, Signature, Signer},
};

/// Low bits of an epoch that are random.
const RANDOM_BITS: u32 = 20;
/// Sets apart what the recovery key signs here from everything else it signs.
const RECOVERY_CONTEXT: &[u8] = b"selvedge-recovery-v1";

/// The epoch of a recovery that ends `epoch`: higher than it, whatever `random` is.
#[must_use]
pub const fn next_epoch(epoch: Epoch, random: u32) -> Epoch {
    let counter = (epoch >> RANDOM_BITS).saturating_add(1);
    (counter << RANDOM_BITS) | (random as Epoch & ((1 << RANDOM_BITS) - 1))
}

/// The state with which a fabric goes on: a place in the log of the lost epoch, and what was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Term of the newest log entry that is taken over.
    pub term: u64,
    /// Its index.
    pub index: u64,
    /// The revision it made.
    pub revision: Revision,
    /// Hash of the whole replicated state after it.
    pub image: Hash,
}

/// What the recovery key says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Of which fabric.
    pub fabric: FabricId,
    /// What is taken over.
    pub base: Base,
    /// The new voters; their epoch is the one that begins, their sequence goes on from the base.
    pub voters: VoterSet,
    /// When it was signed, by the clock of who signed it; for people.
    pub at_ms: UnixMs,
}

impl Recovery {
    /// The epoch that begins.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.voters.epoch
    }

    /// The bytes that are signed. Every part has a fixed size, so no two recoveries have the same bytes.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut message = RECOVERY_CONTEXT.to_vec();
        message.extend_from_slice(&self.fabric.0);
        for number in [
            self.voters.epoch,
            self.voters.sequence,
            self.base.term,
            self.base.index,
            self.base.revision,
            self.at_ms,
        ] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&self.base.image.0);
        // The hash covers epoch, sequence and every key.
        message.extend_from_slice(&self.voters.hash(&self.fabric).0);
        message
    }

    /// Signs it with the recovery key.
    #[must_use]
    pub fn sign(self, recovery_key: &dyn Signer) -> SignedRecovery {
        let signature = recovery_key.sign(&self.signed_bytes());
        SignedRecovery { recovery: self, signature }
    }
}

/// A recovery as the recovery key signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecovery {
    /// What it says.
    pub recovery: Recovery,
    /// By the recovery key.
    pub signature: Signature,
}

impl SignedRecovery {
    /// The epoch that begins.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.recovery.epoch()
    }

    /// Whether it is of `fabric`, makes sense in itself, and is signed by `recovery_key`.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, fabric: &FabricId, recovery_key: &PublicKey) -> Result<(), RecoveryError> {
        let recovery = &self.recovery;
        if recovery.fabric != *fabric {
            return Err(RecoveryError::Fabric(recovery.fabric));
        }
        recovery.voters.check_size().map_err(RecoveryError::Voters)?;
        if recovery.epoch() == 0 || recovery.voters.sequence == 0 {
            return Err(RecoveryError::Nothing);
        }
        if recovery_key.verifies(&recovery.signed_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(RecoveryError::Signature)
        }
    }
}

/// Why a recovery is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecoveryError {
    /// It is of another fabric.
    #[error("the recovery is of another fabric, {0}")]
    Fabric(FabricId),
    /// Nobody could vote, or too many.
    #[error("the recovery has no usable voters: {0}")]
    Voters(BundleError),
    /// It begins no epoch.
    #[error("the recovery begins no new fence epoch")]
    Nothing,
    /// The signature is not of this fabric's recovery key.
    #[error("the recovery is not signed by the recovery key of this fabric")]
    Signature,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::key_of;

    const FABRIC: FabricId = FabricId([1; 16]);

    fn recovery() -> Recovery {
        let voters = ["a", "b"].map(|n| key_of(n).public_key()).into();
        Recovery {
            fabric: FABRIC,
            base: Base { term: 3, index: 40, revision: 12, image: Hash([7; 32]) },
            voters: VoterSet { epoch: next_epoch(0, 9), sequence: 5, voters },
            at_ms: 17,
        }
    }

    fn verify(signed: &SignedRecovery) -> Result<(), RecoveryError> {
        signed.verify(&FABRIC, &key_of("recovery").public_key())
    }

    #[test]
    fn the_recovery_key_alone_opens_an_epoch() {
        let genuine = recovery().sign(&key_of("recovery"));
        assert_eq!(verify(&genuine), Ok(()));
        assert_eq!(verify(&recovery().sign(&key_of("a"))), Err(RecoveryError::Signature));
        let other = Recovery { fabric: FabricId([2; 16]), ..recovery() }.sign(&key_of("recovery"));
        assert_eq!(verify(&other), Err(RecoveryError::Fabric(FabricId([2; 16]))));
        let mut empty = recovery();
        empty.voters.voters.clear();
        assert!(matches!(verify(&empty.sign(&key_of("recovery"))), Err(RecoveryError::Voters(_))));
        let mut nothing = recovery();
        nothing.voters.epoch = 0;
        assert_eq!(verify(&nothing.sign(&key_of("recovery"))), Err(RecoveryError::Nothing));
    }

    proptest! {
        #[test]
        fn epochs_grow_and_two_recoveries_of_one_differ(epoch in 0_u64..1 << 50, one: u32, two: u32) {
            let (one, two) = (next_epoch(epoch, one), next_epoch(epoch, two));
            prop_assert!(one > epoch && two > epoch);
            prop_assert!(next_epoch(one, 0) > two, "the next counts higher than both");
        }

        #[test]
        fn what_was_not_signed_is_not_believed(at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let genuine = recovery().sign(&key_of("recovery"));
            let mut bytes = postcard::to_allocvec(&genuine).expect("encodes");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(altered) = postcard::from_bytes::<SignedRecovery>(&bytes) {
                prop_assert!(altered == genuine || verify(&altered).is_err());
            }
        }

        #[test]
        fn hostile_bytes_never_panic(bytes: Vec<u8>) {
            if let Ok(signed) = postcard::from_bytes::<SignedRecovery>(&bytes) {
                prop_assert!(verify(&signed).is_err());
            }
        }
    }
}
