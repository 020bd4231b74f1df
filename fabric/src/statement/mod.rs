//! Policy is verified, whoever carries it.
//!
//! A workload node holds no replica, so it cannot see that a policy was agreed; it must be shown. Each
//! voter signs a [`Claim`] for the revisions it applies, and a [`Bundle`] carries one policy with the
//! signatures of a majority of the voters over the hash of that very policy. So the processor that
//! hands it out needs no trust: it can withhold a newer policy, but neither invent nor alter one.
//!
//! Voters change. A node that joins learns the fence epoch and the [`VoterSet`] of that moment with the
//! join reply, under the pin of the fabric's root; from there a chain of [`Succession`]s leads to the
//! present set, each signed by a majority of the set before. A majority of the old set thus answers for
//! the new one, which is what Raft asks of it anyway when it commits the change.
//!
//! What never happens: a bundle is believed with one signature too few, with one that does not verify,
//! with one of somebody who is no voter, or when its revision is older than what the node has.
//!
//! Two statements need no quorum, because the recovery key makes them: a [`Revocation`], and a [`Recovery`],
//! which starts the chain of voters anew under a higher fence epoch.

mod bundle;
mod recovery;
mod revocation;
mod voters;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::{
    Epoch, Revision,
    key::{FabricId, Hash, PublicKey, Signature, Signer},
    policy::PolicyState,
};

pub use bundle::{Bundle, MAX_BUNDLE_BYTES, Trusted, Verified, verify};
pub use recovery::{Base, Recovery, RecoveryError, SignedRecovery, next_epoch};
pub use revocation::{
    MAX_REVOCATIONS, Revocation, RevocationError, Revocations, SignedRevocation, Taken, is_settled,
};
pub use voters::{MAX_SUCCESSIONS, MAX_VOTERS, Signatures, Succession, VoterSet};

/// Sets apart what node keys sign here from everything else they sign.
const CLAIM_CONTEXT: &[u8] = b"selvedge-policy-v1";

/// What voters say of one revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Of which fabric.
    pub fabric: FabricId,
    /// Fence epoch.
    pub epoch: Epoch,
    /// The revision.
    pub revision: Revision,
    /// [`PolicyState::intent_hash`] at that revision.
    pub policy: Hash,
    /// [`VoterSet::hash`] of the set whose majority must say it.
    pub voters: Hash,
}

impl Claim {
    /// What there is to say of `policy` as agreed by `voters`; nothing before the first command.
    #[must_use]
    pub fn of(policy: &PolicyState, voters: &VoterSet) -> Option<Self> {
        let fabric = policy.params.as_ref()?.id;
        Some(Self {
            fabric,
            epoch: voters.epoch,
            revision: policy.revision,
            policy: policy.intent_hash(),
            voters: voters.hash(&fabric),
        })
    }

    /// The bytes that are signed. Every part has a fixed size, so no two claims have the same bytes.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut message = CLAIM_CONTEXT.to_vec();
        message.extend_from_slice(&self.fabric.0);
        message.extend_from_slice(&self.epoch.to_be_bytes());
        message.extend_from_slice(&self.revision.to_be_bytes());
        message.extend_from_slice(&self.policy.0);
        message.extend_from_slice(&self.voters.0);
        message
    }
}

/// A claim as one voter signed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What it says.
    pub claim: Claim,
    /// Who says it.
    pub voter: PublicKey,
    /// Its signature.
    pub signature: Signature,
}

impl Statement {
    /// Signs a claim.
    #[must_use]
    pub fn sign(claim: Claim, signer: &dyn Signer) -> Self {
        let signature = signer.sign(&claim.signed_bytes());
        Self { claim, voter: signer.public_key(), signature }
    }

    /// Whether the signature is the voter's. Whether it is a voter is for [`VoterSet`] to say.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        self.voter.verifies(&self.claim.signed_bytes(), &self.signature)
    }
}

/// Why a bundle is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// It cannot be decoded.
    #[error("malformed policy bundle: {0}")]
    Malformed(String),
    /// A bound is exceeded.
    #[error("{what}: {count} exceeds {limit}")]
    Bound {
        /// Of what there are too many.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
    /// It is of another fabric.
    #[error("the policy is of fabric {0}")]
    Fabric(FabricId),
    /// It is of another fence epoch.
    #[error("the policy is of fence epoch {found}, this node trusts {trusted}")]
    Epoch {
        /// The epoch it has.
        found: Epoch,
        /// The epoch this node trusts.
        trusted: Epoch,
    },
    /// It begins with a recovery that does not count.
    #[error(transparent)]
    Recovery(#[from] Box<RecoveryError>),
    /// It is older than what the node has.
    #[error("revision {found} is older than {have}, which this node has")]
    Backwards {
        /// The revision it has.
        found: Revision,
        /// The revision the node has.
        have: Revision,
    },
    /// The chain of voter sets does not lead from the trusted set to the present one.
    #[error("the chain of voter sets is broken at {sequence}: {why}")]
    Chain {
        /// Where.
        sequence: u64,
        /// How.
        why: String,
    },
    /// Somebody signed who is no voter.
    #[error("{0} signed and is no voter")]
    NotAVoter(PublicKey),
    /// A signature does not verify.
    #[error("the signature of {0} does not verify")]
    Signature(PublicKey),
    /// Too few voters signed.
    #[error("{have} of {voters} voters signed, which is no majority")]
    NoMajority {
        /// How many signed.
        have: usize,
        /// How many there are.
        voters: usize,
    },
    /// The policy is not what was signed.
    #[error("the policy is not the one that the voters signed: {0}")]
    Policy(String),
}
