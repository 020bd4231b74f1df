//! A policy with the proof that it was agreed.

use serde::{Deserialize, Serialize};

use super::{BundleError, Claim, MAX_SUCCESSIONS, Signatures, SignedRecovery, Succession, VoterSet};
use crate::{
    Epoch, Revision,
    key::{FabricId, PublicKey},
    policy::PolicyState,
};

/// Largest encoded bundle, in bytes: what one answer of the transport holds, less its frame.
pub const MAX_BUNDLE_BYTES: usize = (8 << 20) - 1_024;

/// A policy, the signatures of a majority over it, and the way to that majority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bundle {
    /// What the voters signed.
    pub claim: Claim,
    /// Their signatures.
    pub signatures: Signatures,
    /// From the set after the one that the receiver trusts to the present one.
    pub chain: Vec<Succession>,
    /// [`Bundle::policy_bytes`] of the policy.
    pub policy: Vec<u8>,
    /// For a receiver of a lower fence epoch: what began the present one. Encoded behind the rest, and only
    /// when it is there, so that a fabric that was never recovered sends what it always did.
    #[serde(skip)]
    pub recovery: Option<Box<SignedRecovery>>,
}

/// From where a node follows: from the join reply at first, then from the newest bundle it took.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trusted {
    /// The fabric.
    pub fabric: FabricId,
    /// Fence epoch.
    pub epoch: Epoch,
    /// The voters.
    pub voters: VoterSet,
}

/// What a bundle proved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified {
    /// The policy.
    pub policy: PolicyState,
    /// The present voters, to be trusted from now on.
    pub voters: VoterSet,
}

impl Bundle {
    /// A policy in the form in which bundles carry it: what the signed hash covers, and nothing else.
    #[must_use]
    pub fn policy_bytes(policy: &PolicyState) -> Vec<u8> {
        bare(policy).encode()
    }

    /// The form in which a bundle is carried and stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Cannot fail: it is bytes, integers and lists only.
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        match &self.recovery {
            Some(recovery) => postcard::to_extend(recovery, bytes).unwrap_or_default(),
            None => bytes,
        }
    }

    /// Reads what [`Bundle::encode`] wrote. Nothing in it is verified yet.
    ///
    /// # Errors
    /// When the bytes are too many or no bundle.
    pub fn decode(bytes: &[u8]) -> Result<Self, BundleError> {
        bound("bytes of a policy bundle", bytes.len(), MAX_BUNDLE_BYTES)?;
        let malformed = |error: postcard::Error| BundleError::Malformed(error.to_string());
        let (mut bundle, rest) = postcard::take_from_bytes::<Self>(bytes).map_err(malformed)?;
        if rest.is_empty() {
            return Ok(bundle);
        }
        match postcard::take_from_bytes(rest).map_err(malformed)? {
            (recovery, []) => bundle.recovery = Some(recovery),
            (_, rest) => return Err(BundleError::Malformed(format!("{} bytes too many", rest.len()))),
        }
        Ok(bundle)
    }
}

/// The policy that `bundle` proves, for a node that trusts `trusted` and has `not_before` already. The
/// same revision may come again, for instance with newer voters. A higher fence epoch counts when
/// `recovery_key` began it; its revisions go on from the base of the recovery, so they may be lower.
///
/// # Errors
/// What is missing or wrong. Anything is: nothing of such a bundle may be used.
pub fn verify(
    bundle: &Bundle,
    trusted: &Trusted,
    recovery_key: Option<&PublicKey>,
    not_before: Revision,
) -> Result<Verified, BundleError> {
    let claim = &bundle.claim;
    if claim.fabric != trusted.fabric {
        return Err(BundleError::Fabric(claim.fabric));
    }
    let start = start(bundle, trusted, recovery_key)?;
    if claim.epoch != start.epoch {
        return Err(BundleError::Epoch { found: claim.epoch, trusted: trusted.epoch });
    }
    if claim.epoch == trusted.epoch && claim.revision < not_before {
        return Err(BundleError::Backwards { found: claim.revision, have: not_before });
    }
    bound("voter sets of a bundle", bundle.chain.len(), MAX_SUCCESSIONS)?;
    start.check_size()?;
    let voters = bundle.chain.iter().try_fold(start, |set, next| set.follow(next, &trusted.fabric))?;
    if claim.voters != voters.hash(&trusted.fabric) {
        let why = "the claim is of other voters".to_owned();
        return Err(BundleError::Chain { sequence: voters.sequence, why });
    }
    voters.check_majority(&bundle.signatures, &claim.signed_bytes())?;
    // Last, because it is the most work: only a majority of the voters makes us do it.
    let policy = read_policy(&bundle.policy, claim)?;
    Ok(Verified { policy, voters })
}

/// The voters with whom the chain begins: those that are trusted, or those of a recovery since.
fn start(
    bundle: &Bundle,
    trusted: &Trusted,
    recovery_key: Option<&PublicKey>,
) -> Result<VoterSet, BundleError> {
    let unknown = BundleError::Epoch { found: bundle.claim.epoch, trusted: trusted.epoch };
    if bundle.claim.epoch == trusted.epoch && trusted.voters.epoch == trusted.epoch {
        return Ok(trusted.voters.clone());
    }
    let (Some(signed), Some(key)) = (&bundle.recovery, recovery_key) else { return Err(unknown) };
    if signed.epoch() <= trusted.epoch {
        return Err(unknown);
    }
    signed.verify(&trusted.fabric, key).map_err(Box::new)?;
    Ok(signed.recovery.voters.clone())
}

fn read_policy(bytes: &[u8], claim: &Claim) -> Result<PolicyState, BundleError> {
    bound("bytes of a policy", bytes.len(), MAX_BUNDLE_BYTES)?;
    let wrong = |why: &str| Err(BundleError::Policy(why.to_owned()));
    let policy = PolicyState::decode(bytes).map_err(|e| BundleError::Policy(e.to_string()))?;
    if policy.revision != claim.revision {
        return wrong("another revision");
    }
    if policy.params.as_ref().map(|p| p.id) != Some(claim.fabric) {
        return wrong("another fabric");
    }
    // What the hash does not cover must not be there, or its carrier could write it.
    if policy != bare(&policy) {
        return wrong("it holds more than what is signed");
    }
    if policy.intent_hash() != claim.policy {
        return wrong("another hash");
    }
    Ok(policy)
}

/// The policy without what its hash leaves out: secrets, history, and the time of the newest command,
/// which moves on with refused commands too.
fn bare(policy: &PolicyState) -> PolicyState {
    let mut bare = PolicyState { clock_ms: 0, ..policy.without_secrets() };
    for (id, token) in &mut bare.join_tokens {
        token.id = *id;
    }
    for (id, token) in &mut bare.api_tokens {
        token.id = *id;
    }
    bare
}

const fn bound(what: &'static str, count: usize, limit: usize) -> Result<(), BundleError> {
    if count > limit { Err(BundleError::Bound { what, count, limit }) } else { Ok(()) }
}
