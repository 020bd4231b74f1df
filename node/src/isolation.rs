//! Isolation for drills, on this node: who holds it, and what is put into effect. The rules are
//! [`selvedge_fabric::isolation`]; here are the clock, the policy that says which node is in which cloud, and
//! those who are told.
//!
//! Nothing of it is ever written down. What drops packets knows the end of the lease by itself
//! ([`Transport::isolate`]), so the node heals although this task, its API or the drill were gone.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use selvedge_fabric::{
    command::AdmissionState,
    event::{EventSink as _, Severity},
    id::NodeName,
    isolation::{Claim, ClaimError, Cut, Cuts, Desk, Lease, Taken, Whom},
    policy::PolicyState,
};
use selvedge_transport::Transport;
use tokio::sync::{Notify, watch};

use crate::{clock, events::Events};

/// Most cuts that an event or alarm names; the rest are counted.
const MAX_NAMED: usize = 8;

/// Why a drill does not get this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsolationError {
    /// The node's configuration says no, as it does unless told otherwise.
    #[error("{0} takes part in no drills: drills.allow is false in its configuration")]
    NotAllowed(NodeName),
    /// The claim is not good, or somebody else was first.
    #[error(transparent)]
    Claim(#[from] ClaimError),
}

/// What drills do to this node.
pub struct Isolation {
    me: NodeName,
    allowed: bool,
    started: Instant,
    desk: Mutex<Desk>,
    transport: Transport,
    policy: watch::Receiver<Arc<PolicyState>>,
    events: Events,
    changed: Notify,
}

/// A lease in force, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// The lease.
    pub lease: Lease,
    /// How long it lasts from now, unless it is renewed.
    pub left: Duration,
}

impl Isolation {
    /// A node in nobody's hands.
    #[must_use]
    pub fn new(
        me: NodeName,
        allowed: bool,
        transport: Transport,
        policy: watch::Receiver<Arc<PolicyState>>,
        events: Events,
    ) -> Self {
        let (desk, changed) = (Mutex::default(), Notify::new());
        Self { me, allowed, started: Instant::now(), desk, transport, policy, events, changed }
    }

    /// Whether the configuration lets drills have this node.
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// The lease in force.
    #[must_use]
    pub fn in_force(&self) -> Option<InForce> {
        let now_ms = self.now_ms();
        let lease = self.desk().decide(now_ms)?.clone();
        let left = Duration::from_millis(lease.until_ms.saturating_sub(now_ms));
        Some(InForce { lease, left })
    }

    /// Takes, changes or renews a lease for the caller `by`, and puts it into effect.
    ///
    /// # Errors
    /// See [`IsolationError`].
    pub fn claim(&self, claim: Claim, by: &str) -> Result<(), IsolationError> {
        if !self.allowed {
            return Err(IsolationError::NotAllowed(self.me.clone()));
        }
        let mut desk = self.desk();
        // What ran out a moment ago is told before what begins.
        self.expire(&mut desk);
        let now_ms = self.now_ms();
        let taken = desk.claim(claim, by, now_ms)?;
        if let Some(lease) = desk.decide(now_ms) {
            self.transport.isolate(self.cuts(lease), self.started + Duration::from_millis(lease.until_ms));
            self.tell_taken(taken, lease);
        }
        self.changed.notify_one();
        Ok(())
    }

    /// Ends the lease of this holder, or, without one, whatever lease there is, for good. Returns whether
    /// there was one.
    pub fn end(&self, holder: Option<&str>, by: &str) -> bool {
        let mut desk = self.desk();
        let now_ms = self.now_ms();
        let ended = match holder {
            Some(holder) => desk.release(holder, now_ms),
            None => desk.stop(now_ms),
        };
        let Some(lease) = ended else { return false };
        self.heal();
        let how = if holder.is_some() { "the drill is over".to_owned() } else { format!("{by} stopped it") };
        self.tell_ended(&lease, &how);
        true
    }

    /// Tells when leases run out, for ever.
    pub async fn run(self: Arc<Self>) {
        loop {
            match self.in_force() {
                Some(lease) => {
                    // Whichever comes first: the end, or another end.
                    let _ = tokio::time::timeout(lease.left, self.changed.notified()).await;
                }
                None => self.changed.notified().await,
            }
            self.expire(&mut self.desk());
        }
    }

    fn expire(&self, desk: &mut Desk) {
        if let Some(lease) = desk.expire(self.now_ms()) {
            self.heal();
            self.tell_ended(&lease, "nobody renewed it");
        }
    }

    fn heal(&self) {
        self.transport.isolate(Cuts::default(), Instant::now());
    }

    /// By the policy of this moment; each renewal looks again.
    fn cuts(&self, lease: &Lease) -> Cuts {
        let policy = self.policy.borrow().clone();
        let admitted = policy.nodes.iter().filter(|(_, a)| a.state != AdmissionState::Revoked);
        lease.written_out(&self.me, admitted.map(|(name, admission)| (name, admission.zone.cloud())))
    }

    fn tell_taken(&self, taken: Taken, lease: &Lease) {
        let what = match taken {
            Taken::Renewed => return,
            Taken::Began | Taken::Changed => described(lease),
        };
        let seconds = lease.until_ms.saturating_sub(self.now_ms()).div_ceil(1_000);
        let message = format!(
            "an exercise: drill {} of {} {what}; this ends {seconds} s after its last renewal",
            lease.drill, lease.by
        );
        self.events.emit(Severity::Warning, "drill-isolation", self.me.as_str(), message);
    }

    fn tell_ended(&self, lease: &Lease, how: &str) {
        let message = format!("drill {} of {} lets go of this node: {how}", lease.drill, lease.by);
        self.events.emit(Severity::Info, "drill-isolation-ended", self.me.as_str(), message);
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        // Nothing panics while it holds the lock; every state of the desk is a good one.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl InForce {
    /// When it ends unless it is renewed, milliseconds since 1970.
    #[must_use]
    pub fn until_ms(&self) -> u64 {
        clock::unix_ms().saturating_add(u64::try_from(self.left.as_millis()).unwrap_or(u64::MAX))
    }

    /// What the drill does, for people: `cuts this node off from cloud/azr (both ways)`.
    #[must_use]
    pub fn described(&self) -> String {
        described(&self.lease)
    }
}

fn described(lease: &Lease) -> String {
    if lease.cuts.is_empty() {
        return "holds this node, and cuts nothing".to_owned();
    }
    let way = |cut: Cut| match (cut.to, cut.from) {
        (true, true) => "both ways",
        (true, false) => "is not heard by it",
        (false, true) => "does not hear it",
        (false, false) => "neither way",
    };
    let name = |(whom, cut): (&Whom, &Cut)| match whom {
        Whom::All => format!("everybody ({})", way(*cut)),
        other => format!("{other} ({})", way(*cut)),
    };
    let named: Vec<_> = lease.cuts.iter().take(MAX_NAMED).map(name).collect();
    let more = match lease.cuts.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("cuts this node off from {}{more}", named.join(", "))
}
