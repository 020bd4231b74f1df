//! Emergency revocations on this node: kept on disk, enforced at once, dropped when the policy has them.
//!
//! Membership hands statements on, the API takes new ones; both come through [`EmergencyRevocations::take`],
//! which believes the recovery key alone. What is enforced is the agreed policy with the keys revoked
//! ([`EmergencyRevocations::enforced`]); what others are told, hashes above all, is what was agreed.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use selvedge_consensus::{Proposal, Replica};
use selvedge_fabric::{
    command::{AdmissionState, Command},
    event::{EventSink, Severity},
    id::NodeName,
    key::{CommandId, PublicKey},
    policy::PolicyState,
    statement::{MAX_REVOCATIONS, RevocationError, Revocations, SignedRevocation, Taken},
};
use tokio::sync::{mpsc, watch};

use crate::{
    events::Events,
    files::{self, FileError},
};

/// Statements from other nodes that wait to be verified; as many as one message holds.
const MAX_WAITING: usize = MAX_REVOCATIONS;
/// Bad statements are told of at most this often: who sends them may send many.
const TELL_INTERVAL: Duration = Duration::from_secs(60);
/// How often the leader looks whether it can make intent of a revocation. Nobody waits for it: the key is
/// refused already.
const AGREE_INTERVAL: Duration = Duration::from_secs(1);
/// Time for that command to be committed; if it is not, the next look tries again.
const AGREE_TIMEOUT: Duration = Duration::from_secs(5);

/// The revocations of this node, and the policy with them.
pub struct EmergencyRevocations {
    path: PathBuf,
    events: Events,
    agreed: watch::Receiver<Arc<PolicyState>>,
    known: watch::Sender<Arc<Revocations>>,
    enforced: watch::Sender<Arc<PolicyState>>,
    incoming: mpsc::Sender<SignedRevocation>,
    // One change at a time, so that disk and both snapshots never disagree on which came last. Holds what
    // was on disk and cannot be judged before there is a policy.
    unjudged: Mutex<Vec<SignedRevocation>>,
}

impl EmergencyRevocations {
    /// Reads what was kept in `path`, as far as the recovery key of the fabric signed it. Returns it with
    /// the queue that [`Self::run`] empties.
    ///
    /// # Errors
    /// When the file is there and cannot be read: to go on without it might admit who was revoked.
    pub fn open(
        path: PathBuf,
        agreed: watch::Receiver<Arc<PolicyState>>,
        events: Events,
    ) -> anyhow::Result<(Arc<Self>, mpsc::Receiver<SignedRevocation>)> {
        let (incoming, queue) = mpsc::channel(MAX_WAITING);
        let policy = agreed.borrow().clone();
        let opened = Self {
            known: watch::channel(Arc::default()).0,
            enforced: watch::channel(policy.clone()).0,
            unjudged: Mutex::default(),
            path,
            events,
            agreed,
            incoming,
        };
        let mut unjudged = opened.load()?;
        let mut known = Revocations::default();
        opened.judge(&mut unjudged, &mut known, &policy);
        opened.publish(known, &policy);
        *opened.lock() = unjudged;
        Ok((Arc::new(opened), queue))
    }

    /// Which revocations hold now.
    #[must_use]
    pub fn known(&self) -> watch::Receiver<Arc<Revocations>> {
        self.known.subscribe()
    }

    /// The policy as this node enforces it.
    #[must_use]
    pub fn enforced(&self) -> watch::Receiver<Arc<PolicyState>> {
        self.enforced.subscribe()
    }

    /// Where others' statements go.
    #[must_use]
    pub fn incoming(&self) -> mpsc::Sender<SignedRevocation> {
        self.incoming.clone()
    }

    /// Takes a statement over; from then on its key is refused here.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn take(&self, signed: SignedRevocation) -> Result<Taken, RevocationError> {
        let _changing = self.lock();
        let policy = self.agreed.borrow().clone();
        let mut known = (**self.known.borrow()).clone();
        let node = signed.revocation.node.clone();
        let taken = known.take(signed, &policy)?;
        if taken == Taken::New {
            // First refused, then written: a full disk must not keep a bad key in.
            self.publish(known, &policy);
            self.save();
            let message = "revoked by the recovery key: its connections are cut and its endpoints are not \
                           named; it becomes policy when there is a quorum";
            self.tell(Severity::Security, "emergency-revocation", &node, message.to_owned());
        }
        Ok(taken)
    }

    /// Follows policy and others' statements until the policy ends.
    pub async fn run(self: Arc<Self>, mut queue: mpsc::Receiver<SignedRevocation>) {
        let mut agreed = self.agreed.clone();
        let mut told: Option<Instant> = None;
        loop {
            tokio::select! {
                changed = agreed.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    agreed.mark_unchanged();
                    self.follow();
                }
                Some(signed) = queue.recv() => {
                    let node = signed.revocation.node.clone();
                    if let Err(error) = self.take(signed)
                        && told.is_none_or(|at| at.elapsed() >= TELL_INTERVAL)
                    {
                        told = Some(Instant::now());
                        let message = format!("handed on by another node, and it does not count: {error}");
                        self.tell(Severity::Security, "revocation-refused", &node, message);
                    }
                }
            }
        }
    }

    /// Makes intent of the revocations whenever this node leads.
    pub async fn agree(self: Arc<Self>, replica: Replica, me: NodeName) {
        let mut tick = tokio::time::interval(AGREE_INTERVAL);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            if replica.status().borrow().leader.as_ref() != Some(&me) {
                continue;
            }
            let known = self.known.borrow().clone();
            for key in known.iter().map(|signed| signed.revocation.key) {
                self.propose(&replica, &me, &key).await;
            }
        }
    }

    async fn propose(&self, replica: &Replica, me: &NodeName, key: &PublicKey) {
        // By the key: under the name there may be another node by now.
        let policy = self.agreed.borrow().clone();
        let Some((node, _)) = policy.nodes.iter().find(|(_, a)| a.key == *key) else { return };
        let command = Command::SetNodeState { node: node.clone(), state: AdmissionState::Revoked };
        let actor = format!("recovery-key via {me}");
        let proposal = Proposal { id: CommandId(rand::random()), actor, command };
        if let Err(error) = replica.propose(proposal, AGREE_TIMEOUT).await {
            tracing::debug!(%node, %error, "its emergency revocation is not policy yet");
        }
    }

    /// Takes a new policy over, and drops what it says itself.
    fn follow(&self) {
        let mut unjudged = self.lock();
        let policy = self.agreed.borrow().clone();
        let mut known = (**self.known.borrow()).clone();
        self.judge(&mut unjudged, &mut known, &policy);
        let settled = known.settle(&policy);
        self.publish(known, &policy);
        if settled.is_empty() {
            return;
        }
        self.save();
        for signed in settled {
            let message = "its emergency revocation is policy now".to_owned();
            self.tell(Severity::Info, "emergency-revocation-agreed", &signed.revocation.node, message);
        }
    }

    /// Takes what was on disk, as far as the policy can judge it.
    fn judge(&self, unjudged: &mut Vec<SignedRevocation>, known: &mut Revocations, policy: &PolicyState) {
        if policy.params.is_none() {
            return;
        }
        for signed in unjudged.drain(..) {
            let node = signed.revocation.node.clone();
            if let Err(error) = known.take(signed, policy) {
                let message = format!("{}: {error}; it does not count", self.path.display());
                self.tell(Severity::Security, "revocation-refused", &node, message);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<SignedRevocation>> {
        // Nobody panics with the lock held, and what it guards is whole at any time.
        self.unjudged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The keys first: who is told of a new policy must find them.
    fn publish(&self, known: Revocations, policy: &Arc<PolicyState>) {
        let enforced = known.enforced(policy).map_or_else(|| policy.clone(), Arc::new);
        self.known.send_if_modified(|before| {
            let changed = **before != known;
            if changed {
                *before = Arc::new(known);
            }
            changed
        });
        self.enforced.send_replace(enforced);
    }

    fn load(&self) -> anyhow::Result<Vec<SignedRevocation>> {
        use anyhow::Context as _;
        let Some(bytes) = files::read_optional(&self.path)? else { return Ok(Vec::new()) };
        serde_json::from_slice(&bytes).with_context(|| {
            format!(
                "{} is damaged, and without it a revoked node might be let in. If other nodes run, move it \
                 away and start again: they hand it over",
                self.path.display()
            )
        })
    }

    fn save(&self) {
        let known = self.known.borrow().clone();
        if let Err(error) = write(&self.path, &known) {
            let message = format!("{error}; until it is written, a restart of this node alone forgets it");
            self.events.emit(Severity::Warning, "revocations-not-written", "", message);
        }
    }

    fn tell(&self, severity: Severity, code: &'static str, node: &NodeName, message: String) {
        self.events.emit(severity, code, node.as_str(), message);
    }
}

fn write(path: &std::path::Path, known: &Revocations) -> Result<(), FileError> {
    if known.is_empty() {
        return files::remove_if_there(path);
    }
    let list: Vec<_> = known.iter().collect();
    // Plain data: JSON has no way to fail.
    files::write_private(path, &serde_json::to_vec_pretty(&list).unwrap_or_default())
}

#[cfg(test)]
#[path = "revocations_tests.rs"]
mod tests;
