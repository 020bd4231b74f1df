//! Who may connect: a certificate alone grants nothing, the policy must admit name and key.

use std::sync::{Arc, OnceLock};

use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::NodeName,
    key::PublicKey,
    policy::PolicyState,
    statement::Revocations,
};
use selvedge_transport::{Alpn, Gate, PeerIdentity};
use tokio::sync::watch;

use crate::identity::Contact;

/// Asks the policy, or, before any policy has arrived, the contacts that the join reply named. A key
/// that the recovery key revoked is refused whatever they say.
pub struct PolicyGate {
    intent: OnceLock<Intent>,
    contacts: Vec<Contact>,
}

struct Intent {
    policy: watch::Receiver<Arc<PolicyState>>,
    revocations: watch::Receiver<Arc<Revocations>>,
}

impl PolicyGate {
    /// A gate that knows `contacts` until [`Self::follow`] gives it a policy.
    #[must_use]
    pub const fn new(contacts: Vec<Contact>) -> Self {
        Self { intent: OnceLock::new(), contacts }
    }

    /// Follows a policy and the emergency revocations from now on.
    pub fn follow(
        &self,
        policy: watch::Receiver<Arc<PolicyState>>,
        revocations: watch::Receiver<Arc<Revocations>>,
    ) {
        // Set once, by the composition root.
        let _ = self.intent.set(Intent { policy, revocations });
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
        let Some(intent) = self.intent.get() else { return self.contact(&peer.node, &peer.key) };
        if intent.revocations.borrow().revokes(&peer.key) {
            return Err(format!("{} is revoked by the recovery key", peer.node));
        }
        let policy = intent.policy.borrow().clone();
        match policy {
            policy if policy.params.is_some() => admitted(&policy, &peer.node, &peer.key),
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
