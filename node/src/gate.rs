//! Who may connect: a certificate alone grants nothing, the policy must admit name and key.

use std::sync::{Arc, OnceLock};

use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::NodeName,
    key::PublicKey,
    policy::PolicyState,
};
use selvedge_transport::{Alpn, Gate, PeerIdentity};
use tokio::sync::watch;

use crate::identity::Contact;

/// Asks the policy, or, before any policy has arrived, the contacts that the join reply named.
pub struct PolicyGate {
    policy: OnceLock<watch::Receiver<Arc<PolicyState>>>,
    contacts: Vec<Contact>,
}

impl PolicyGate {
    /// A gate that knows `contacts` until [`Self::follow`] gives it a policy.
    #[must_use]
    pub const fn new(contacts: Vec<Contact>) -> Self {
        Self { policy: OnceLock::new(), contacts }
    }

    /// Follows a policy from now on.
    pub fn follow(&self, policy: watch::Receiver<Arc<PolicyState>>) {
        // Set once, by the composition root.
        let _ = self.policy.set(policy);
    }
}

impl Gate for PolicyGate {
    fn admit(&self, peer: &PeerIdentity, alpn: Alpn) -> Result<(), String> {
        match (alpn, self.role(peer)?) {
            (Alpn::Raft | Alpn::Probe, Role::Workload) => {
                Err(format!("{} is a workload node and has no part in {alpn:?}", peer.node))
            }
            _ => Ok(()),
        }
    }
}

impl PolicyGate {
    /// The role under which a peer is admitted.
    ///
    /// # Errors
    /// Why it is not.
    pub fn role(&self, peer: &PeerIdentity) -> Result<Role, String> {
        let policy = self.policy.get().map(|rx| rx.borrow().clone());
        match policy {
            Some(policy) if policy.params.is_some() => admitted(&policy, &peer.node, &peer.key),
            _ => self.contact(&peer.node, &peer.key),
        }
    }

    fn contact(&self, node: &NodeName, key: &PublicKey) -> Result<Role, String> {
        let known = self.contacts.iter().find(|c| c.name == *node && c.key == *key);
        known.map(|c| c.role).ok_or_else(|| format!("{node} is not among the nodes known from joining"))
    }
}

/// The role under which the policy admits `node` with `key`.
///
/// # Errors
/// Why it does not.
pub fn admitted(policy: &PolicyState, node: &NodeName, key: &PublicKey) -> Result<Role, String> {
    if let Some(removed) = policy.removed.get(&key.node_id()) {
        return Err(format!("{node} was removed in revision {}", removed.revision));
    }
    let Some(admission) = policy.nodes.get(node) else {
        return Err(format!("{node} is not admitted at revision {}", policy.revision));
    };
    if admission.key != *key {
        return Err(format!("{node} is admitted under another key"));
    }
    match admission.state {
        AdmissionState::Active | AdmissionState::Draining => Ok(admission.role),
        AdmissionState::Revoked => Err(format!("{node} is revoked")),
    }
}
