//! The issuing key on a processor: sealed to it in the policy, opened when it is needed.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use selvedge_fabric::{command::SealedSecret, id::NodeName, policy::PolicyState};
use tokio::sync::watch;

use crate::pki::{Issuer, SealingKey};

/// Why there is no issuer here.
#[derive(Debug, Clone, thiserror::Error)]
pub enum IssuerError {
    /// The policy has not arrived, or holds no issuing key for this node.
    #[error("this processor does not hold the issuing key yet")]
    Absent,
    /// The sealed key cannot be opened with this node's key.
    #[error("the issuing key that is sealed to this processor cannot be opened: {0}")]
    Unopened(String),
}

/// Opens the issuing key out of the policy and keeps it while it stays the same.
pub struct IssuerSource {
    me: NodeName,
    key: SealingKey,
    policy: OnceLock<watch::Receiver<Arc<PolicyState>>>,
    opened: Mutex<Option<(SealedSecret, Arc<Issuer>)>>,
}

impl IssuerSource {
    /// The source for the node `me` with its sealing key.
    #[must_use]
    pub const fn new(me: NodeName, key: SealingKey) -> Self {
        Self { me, key, policy: OnceLock::new(), opened: Mutex::new(None) }
    }

    /// Follows a policy from now on.
    pub fn follow(&self, policy: watch::Receiver<Arc<PolicyState>>) {
        // Set once, by the composition root.
        let _ = self.policy.set(policy);
    }

    /// The issuer.
    ///
    /// # Errors
    /// When the policy holds none for this node, or it cannot be opened.
    pub fn get(&self) -> Result<Arc<Issuer>, IssuerError> {
        let policy = self.policy.get().map(|rx| rx.borrow().clone()).ok_or(IssuerError::Absent)?;
        let sealed = policy.sealed_issuer.get(&self.me).ok_or(IssuerError::Absent)?;
        let params = policy.params.as_ref().ok_or(IssuerError::Absent)?;
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, issuer)) = opened.as_ref()
            && known == sealed
        {
            return Ok(issuer.clone());
        }
        let issuer = Issuer::open(&self.key, sealed, &params.name, &params.root_cert, &params.issuing_cert)
            .map_err(|e| IssuerError::Unopened(e.to_string()))?;
        let issuer = Arc::new(issuer);
        *opened = Some((sealed.clone(), issuer.clone()));
        Ok(issuer)
    }
}
