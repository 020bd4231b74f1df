//! The one circuit: policy, view and what this node alone knows become a plan, and the plan is what
//! DNS, data plane and overlay apply.

use std::{sync::Arc, time::Duration};

use selvedge_consensus::QuorumStatus;
use selvedge_fabric::{
    UnixMs,
    event::{EventSink as _, Severity},
    plan::{Plan, Routing},
    planner::{Local, Prepared, plan_with},
    policy::PolicyState,
    record::{Body, Enforced},
    statement::Revocations,
    view::View,
};
use selvedge_membership::Membership;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    daemon::OverlayCell,
    events::Events,
    packets::{PacketError, Packets},
};

/// Shortest time between two plans: a burst of facts makes one plan, not hundreds.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Longest time between two plans, so that staleness and expiry are seen even when nothing happens.
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// The inputs of the plan.
pub struct Planner {
    policy: watch::Receiver<Arc<PolicyState>>,
    revocations: watch::Receiver<Arc<Revocations>>,
    view: watch::Receiver<Arc<View>>,
    quorum: watch::Receiver<Arc<QuorumStatus>>,
    local: watch::Receiver<Local>,
    confirmed_ms: Option<UnixMs>,
    prepared: Option<Prepared>,
}

impl Planner {
    /// Plans from these snapshots. When the policy was confirmed is found out here.
    #[must_use]
    pub const fn new(
        policy: watch::Receiver<Arc<PolicyState>>,
        revocations: watch::Receiver<Arc<Revocations>>,
        view: watch::Receiver<Arc<View>>,
        quorum: watch::Receiver<Arc<QuorumStatus>>,
        local: watch::Receiver<Local>,
    ) -> Self {
        Self { policy, revocations, view, quorum, local, confirmed_ms: None, prepared: None }
    }

    /// The plan by the present snapshots.
    pub fn plan(&mut self) -> Plan {
        let policy = self.policy.borrow_and_update().clone();
        let revocations = self.revocations.borrow_and_update().clone();
        let view = self.view.borrow_and_update().clone();
        let quorum = self.quorum.borrow_and_update().quorum;
        let now = clock::unix_ms();
        if quorum {
            self.confirmed_ms = Some(now);
        }
        let policy_confirmed_ms = self.confirmed_ms;
        let local = Local { policy_confirmed_ms, ..self.local.borrow_and_update().clone() };
        // Facts change far more often than intent: what only intent decides is kept. It is prepared from
        // what was agreed, whose hash the others know; which nodes serve is decided with the revocations.
        let prepared = match self.prepared.take().filter(|p| p.is_current(&policy, &local, now)) {
            Some(prepared) => prepared,
            None => Prepared::new(&policy, &local, now),
        };
        let enforced = revocations.enforced(&policy);
        let plan = plan_with(&prepared, enforced.as_ref().unwrap_or(&policy), &view, &local, now);
        self.prepared = Some(prepared);
        plan
    }

    /// Returns when an input changed or the time has come. A closed input means shutdown: the others
    /// and the timer go on.
    async fn changed(&mut self, wait: Duration) {
        tokio::select! {
            Ok(()) = self.policy.changed() => {}
            Ok(()) = self.revocations.changed() => {}
            Ok(()) = self.view.changed() => {}
            Ok(()) = self.local.changed() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// What judges packets on this node: its router and its gates.
pub struct Judges {
    /// The routing half of the plan, which the overlay follows.
    pub routing: watch::Sender<Arc<Routing>>,
    /// The overlay, where and once it runs.
    pub overlay: OverlayCell,
    /// The gates.
    pub packets: Packets,
}

impl Judges {
    /// Puts a plan in force: when it returns, none of them judges a packet by an earlier one.
    async fn apply(&self, plan: Arc<Plan>) -> Result<(), PacketError> {
        self.routing.send_if_modified(|known| {
            let changed = *known != plan.routing;
            known.clone_from(&plan.routing);
            changed
        });
        if let Some(overlay) = self.overlay.get() {
            overlay.take_over();
        }
        // Last, because it tells those who wait that the plan is in force.
        self.packets.apply(plan).await
    }
}

/// Plans whenever something changed, until `stop`, and announces which revision is enforced.
pub async fn run(
    mut planner: Planner,
    out: watch::Sender<Arc<Plan>>,
    judges: Judges,
    membership: Membership,
    events: Events,
    stop: CancellationToken,
) {
    let mut announced = None;
    loop {
        let started = Instant::now();
        let plan = planner.plan();
        let wait = until(plan.next_deadline_ms);
        let (epoch, outdated) = {
            let quorum = planner.quorum.borrow();
            (quorum.fence_epoch, quorum.outdated)
        };
        let enforced = Enforced { epoch, revision: plan.revision, hash: plan.hash };
        let plan = Arc::new(plan);
        out.send_replace(plan.clone());
        let applied = judges.apply(plan).await;
        if let Err(error) = &applied {
            events.emit(Severity::Warning, "not-enforced", "dataplane", error.to_string());
        }
        // Announced only now: the revision is enforced when no packet is judged by an earlier one.
        if applied.is_ok() && announced != Some(enforced) && enforced.revision > 0 && !outdated {
            membership.announce(Body::Enforced(enforced));
            announced = Some(enforced);
        }
        let pause = async {
            planner.changed(wait).await;
            tokio::time::sleep_until(started + MIN_INTERVAL).await;
        };
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
    }
}

/// How long to wait for a deadline, within bounds.
fn until(deadline_ms: Option<u64>) -> Duration {
    let wait = deadline_ms.map(|d| Duration::from_millis(d.saturating_sub(clock::unix_ms())));
    wait.unwrap_or(MAX_INTERVAL).clamp(MIN_INTERVAL, MAX_INTERVAL)
}
