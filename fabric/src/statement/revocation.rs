//! Emergency revocation: a key is refused at once, on the word of the recovery key alone.
//!
//! Revocation is intent, and intent needs a quorum. When there is none, a node that is not to be trusted
//! must be cut off all the same, so the holder of the recovery key signs a [`Revocation`], and the nodes
//! hand it to each other like a fact. It is no fact of anybody's: no node owns it, it has no incarnation,
//! and it holds until the policy itself says that the key is out ([`is_settled`]). It names the key, so a
//! node that joins again under the same name with a new key is another matter.
//!
//! The fence epoch says in which state of the fabric it was signed, for whoever reads it later. It is
//! signed and grants nothing: a revocation of a lower or higher epoch counts as well, because to refuse a
//! key that the recovery key calls bad is never less safe than to admit it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    Epoch, UnixMs,
    command::AdmissionState,
    id::NodeName,
    key::{FabricId, PublicKey, Signature, Signer},
    policy::PolicyState,
};

/// Most emergency revocations at a time: a whole cloud of processors and workload nodes. Further ones
/// are refused until a quorum has made intent of these. They are handed on in one message of about 50 KB.
pub const MAX_REVOCATIONS: usize = 256;

/// Sets apart what the recovery key signs here from everything else it signs.
const REVOCATION_CONTEXT: &[u8] = b"selvedge-revocation-v1";

/// What the recovery key says of one node key.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revocation {
    /// Of which fabric.
    pub fabric: FabricId,
    /// Fence epoch at which it was signed.
    pub epoch: Epoch,
    /// The name under which the key was admitted, for people: the key alone decides.
    pub node: NodeName,
    /// The key that is refused from now on.
    pub key: PublicKey,
    /// When it was signed, by the clock of who signed it; for people.
    pub at_ms: UnixMs,
}

impl Revocation {
    /// The bytes that are signed. The name comes last and everything else has a fixed size, so no two
    /// revocations have the same bytes.
    #[must_use]
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut message = REVOCATION_CONTEXT.to_vec();
        message.extend_from_slice(&self.fabric.0);
        message.extend_from_slice(&self.epoch.to_be_bytes());
        message.extend_from_slice(&self.at_ms.to_be_bytes());
        message.extend_from_slice(&self.key.0);
        message.extend_from_slice(self.node.as_str().as_bytes());
        message
    }

    /// Signs it with the recovery key.
    #[must_use]
    pub fn sign(self, recovery_key: &dyn Signer) -> SignedRevocation {
        let signature = recovery_key.sign(&self.signed_bytes());
        SignedRevocation { revocation: self, signature }
    }
}

/// A revocation as the recovery key signed it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SignedRevocation {
    /// What it says.
    pub revocation: Revocation,
    /// By the recovery key.
    pub signature: Signature,
}

impl SignedRevocation {
    /// Whether it is of the fabric `policy` is of, and signed by its recovery key.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn verify(&self, policy: &PolicyState) -> Result<(), RevocationError> {
        let params = policy.params.as_ref().ok_or(RevocationError::NoPolicy)?;
        if self.revocation.fabric != params.id {
            return Err(RevocationError::Fabric(self.revocation.fabric));
        }
        if params.recovery_key.verifies(&self.revocation.signed_bytes(), &self.signature) {
            Ok(())
        } else {
            Err(RevocationError::Signature(self.revocation.node.clone()))
        }
    }
}

/// Why an emergency revocation is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevocationError {
    /// There is no policy yet to say which key is the recovery key.
    #[error("this node has no policy yet, and cannot know the fabric's recovery key")]
    NoPolicy,
    /// It is of another fabric.
    #[error("the revocation is of another fabric, {0}")]
    Fabric(FabricId),
    /// The signature is not of this fabric's recovery key.
    #[error("the revocation of {0} is not signed by the recovery key of this fabric")]
    Signature(NodeName),
    /// There are too many.
    #[error("{MAX_REVOCATIONS} emergency revocations wait for a quorum already, the most there may be")]
    Full,
}

/// What came of taking a revocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is new, and counts from now on.
    New,
    /// The key is revoked in this way already.
    Known,
    /// The policy says so already: there is nothing to add.
    Settled,
}

/// The emergency revocations that the policy does not know of yet, at most [`MAX_REVOCATIONS`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revocations(BTreeMap<PublicKey, SignedRevocation>);

impl Revocations {
    /// Takes one over after it was verified against `policy`.
    ///
    /// # Errors
    /// Why it is not taken; nothing changes then.
    pub fn take(&mut self, signed: SignedRevocation, policy: &PolicyState) -> Result<Taken, RevocationError> {
        let key = signed.revocation.key;
        if self.revokes(&key) {
            return Ok(Taken::Known);
        }
        // Verified before anything is said of it: who asks for a good answer must hold a good signature.
        signed.verify(policy)?;
        if is_settled(policy, &key) {
            return Ok(Taken::Settled);
        }
        if self.0.len() >= MAX_REVOCATIONS {
            return Err(RevocationError::Full);
        }
        self.0.insert(key, signed);
        Ok(Taken::New)
    }

    /// Forgets those of which `policy` says the same; returns them.
    pub fn settle(&mut self, policy: &PolicyState) -> Vec<SignedRevocation> {
        let mut settled = Vec::new();
        self.0.retain(|key, signed| {
            let over = is_settled(policy, key);
            if over {
                settled.push(signed.clone());
            }
            !over
        });
        settled
    }

    /// Whether `key` is refused.
    #[must_use]
    pub fn revokes(&self, key: &PublicKey) -> bool {
        self.0.contains_key(key)
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &SignedRevocation> {
        self.0.values()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `policy` as it is to be enforced: with these keys revoked. `None` when that is `policy` itself.
    /// It is not what was agreed, so its hash must be told to nobody.
    #[must_use]
    pub fn enforced(&self, policy: &PolicyState) -> Option<PolicyState> {
        let hit = |a: &crate::policy::Admission| a.state != AdmissionState::Revoked && self.revokes(&a.key);
        if !policy.nodes.values().any(hit) {
            return None;
        }
        let mut enforced = policy.clone();
        for admission in enforced.nodes.values_mut().filter(|a| hit(a)) {
            admission.state = AdmissionState::Revoked;
        }
        Some(enforced)
    }
}

/// Whether `policy` itself refuses `key`: its node is revoked, or was removed.
#[must_use]
pub fn is_settled(policy: &PolicyState, key: &PublicKey) -> bool {
    let revoked = |a: &crate::policy::Admission| a.key == *key && a.state == AdmissionState::Revoked;
    policy.removed.contains_key(&key.node_id()) || policy.nodes.values().any(revoked)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        command::Role,
        policy::{Admission, Removed},
        testing::{self, key_of, name},
    };

    const FABRIC: FabricId = FabricId([1; 16]);

    fn policy() -> PolicyState {
        let mut policy = testing::fabric();
        if let Some(params) = &mut policy.params {
            params.recovery_key = key_of("recovery").public_key();
        }
        for node in ["p1", "p2"] {
            let admission = Admission {
                key: key_of(node).public_key(),
                sealing_key: key_of("sealing").public_key(),
                role: Role::Processor,
                zone: "aws".parse().expect("a zone"),
                state: AdmissionState::Active,
                block: 1,
                token: None,
                admitted_ms: 0,
            };
            policy.nodes.insert(name(node), admission);
        }
        policy
    }

    fn of(node: &str) -> Revocation {
        let key = key_of(node).public_key();
        Revocation { fabric: FABRIC, epoch: 0, node: name(node), key, at_ms: 7 }
    }

    fn signed(node: &str) -> SignedRevocation {
        of(node).sign(&key_of("recovery"))
    }

    #[test]
    fn a_key_is_refused_until_the_policy_says_so_itself() {
        let (mut policy, mut known) = (policy(), Revocations::default());
        assert_eq!(known.enforced(&policy), None);
        assert_eq!(known.take(signed("p2"), &policy), Ok(Taken::New));
        assert_eq!(known.take(signed("p2"), &policy), Ok(Taken::Known));
        let enforced = known.enforced(&policy).expect("another policy");
        assert_eq!(enforced.nodes[&name("p2")].state, AdmissionState::Revoked);
        assert_eq!(enforced.nodes[&name("p1")].state, AdmissionState::Active);
        assert!(known.settle(&policy).is_empty());

        policy.nodes.get_mut(&name("p2")).expect("there").state = AdmissionState::Revoked;
        assert_eq!(known.settle(&policy), vec![signed("p2")]);
        assert!(known.is_empty());
        assert_eq!(known.take(signed("p2"), &policy), Ok(Taken::Settled), "it does not come back");
    }

    #[test]
    fn a_new_key_under_the_old_name_is_another_matter() {
        let (mut policy, mut known) = (policy(), Revocations::default());
        known.take(signed("p2"), &policy).expect("taken");
        let gone = policy.nodes.get(&name("p2")).expect("there").clone();
        let removed = Removed { name: name("p2"), revision: 2, block: None };
        policy.removed.insert(gone.key.node_id(), removed);
        policy.nodes.insert(name("p2"), Admission { key: key_of("new").public_key(), ..gone });
        assert_eq!(known.enforced(&policy), None);
        assert_eq!(known.settle(&policy).len(), 1);
    }

    #[test]
    fn other_keys_fabrics_and_too_many_are_refused() {
        let (policy, mut known) = (policy(), Revocations::default());
        let forged = of("p2").sign(&key_of("p1"));
        assert_eq!(known.take(forged, &policy), Err(RevocationError::Signature(name("p2"))));
        let other = Revocation { fabric: FabricId([2; 16]), ..of("p2") }.sign(&key_of("recovery"));
        assert_eq!(known.take(other, &policy), Err(RevocationError::Fabric(FabricId([2; 16]))));
        let before = PolicyState::default();
        assert_eq!(known.take(signed("p2"), &before), Err(RevocationError::NoPolicy));
        for n in 0..MAX_REVOCATIONS {
            // A node that this one's policy does not know yet may be revoked all the same.
            assert_eq!(known.take(signed(&format!("n{n}")), &policy), Ok(Taken::New));
        }
        assert_eq!(known.take(signed("p2"), &policy), Err(RevocationError::Full));
        let all: Vec<_> = known.iter().cloned().collect();
        let bytes = postcard::to_allocvec(&all).expect("postcard");
        assert!(bytes.len() < 64 * 1024, "{} bytes", bytes.len());
    }

    proptest! {
        #[test]
        fn what_was_not_signed_is_not_believed(
            epoch in 0_u64..3, at_ms in 0_u64..9, key in "p[1-3]", node in "p[1-3]", bit in 0_usize..512,
        ) {
            let policy = policy();
            let genuine = signed("p2");
            let revocation = Revocation {
                epoch, at_ms, key: key_of(&key).public_key(), node: name(&node), ..of("p2")
            };
            let altered = SignedRevocation { revocation, signature: genuine.signature };
            prop_assert_eq!(altered.verify(&policy).is_ok(), altered == genuine);
            let mut flipped = genuine;
            flipped.signature.0[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(flipped.verify(&policy).is_err());
        }

        #[test]
        fn no_two_revocations_have_the_same_bytes(
            a in ("[a-z]{1,8}", 0_u64..4, 0_u64..4), b in ("[a-z]{1,8}", 0_u64..4, 0_u64..4),
        ) {
            let make = |(node, epoch, at_ms): &(String, u64, u64)| {
                Revocation { node: name(node), epoch: *epoch, at_ms: *at_ms, ..of("p2") }
            };
            prop_assert_eq!(make(&a).signed_bytes() == make(&b).signed_bytes(), a == b);
        }
    }
}
