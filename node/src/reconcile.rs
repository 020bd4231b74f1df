//! The one circuit: policy, view and what this node alone knows become a plan, and the plan is what
//! DNS, data plane and overlay apply.

mod hold;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use selvedge_consensus::QuorumStatus;
use selvedge_fabric::{
    UnixMs,
    event::{EventSink, Pulse, Severity},
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

use self::hold::{Held, guarded};
use crate::{
    clock,
    daemon::OverlayCell,
    packets::{PacketError, Packets},
};

/// Shortest time between two plans: a burst of facts makes one plan, not hundreds.
const MIN_INTERVAL: Duration = Duration::from_millis(20);
/// Longest time between two plans, so that staleness and expiry are seen even when nothing happens.
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// What the task is called where tasks are watched over.
pub const TASK: &str = "reconcile";

/// The inputs of the plan.
pub struct Planner {
    policy: watch::Receiver<Arc<PolicyState>>,
    revocations: watch::Receiver<Arc<Revocations>>,
    view: watch::Receiver<Arc<View>>,
    quorum: watch::Receiver<Arc<QuorumStatus>>,
    local: watch::Receiver<Local>,
    confirmed_ms: Option<UnixMs>,
    prepared: Option<Prepared>,
    /// The newest policy that was carried out whole.
    worked: Option<Arc<PolicyState>>,
    /// The newest facts that could be planned by.
    sound: Option<Arc<View>>,
    held: Option<Held>,
    /// By what planning panics.
    #[cfg(test)]
    panics_by: fn(&PolicyState, &View) -> bool,
}

/// The inputs at one moment.
struct Inputs {
    policy: Arc<PolicyState>,
    revocations: Arc<Revocations>,
    view: Arc<View>,
    local: Local,
    now_ms: UnixMs,
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
        let (confirmed_ms, prepared) = (None, None);
        let (worked, sound, held) = (None, None, None);
        Self {
            policy,
            revocations,
            view,
            quorum,
            local,
            confirmed_ms,
            prepared,
            worked,
            sound,
            held,
            #[cfg(test)]
            panics_by: |_, _| false,
        }
    }

    /// The plan by the present snapshots, less what cannot be planned.
    ///
    /// # Panics
    /// When nothing can.
    pub fn plan(&mut self) -> Plan {
        let inputs = self.inputs();
        if self.held.as_ref().is_some_and(|held| !held.holds(&inputs.policy, inputs.now_ms)) {
            self.hold(None);
        }
        match guarded(|| self.plan_by(&inputs)) {
            Ok(plan) => {
                self.sound = Some(inputs.view);
                plan
            }
            Err(why) => self.plan_less(inputs, &why),
        }
    }

    fn inputs(&mut self) -> Inputs {
        let policy = self.policy.borrow_and_update().clone();
        let revocations = self.revocations.borrow_and_update().clone();
        let view = self.view.borrow_and_update().clone();
        let now_ms = clock::unix_ms();
        if self.quorum.borrow_and_update().quorum {
            self.confirmed_ms = Some(now_ms);
        }
        let policy_confirmed_ms = self.confirmed_ms;
        let local = Local { policy_confirmed_ms, ..self.local.borrow_and_update().clone() };
        Inputs { policy, revocations, view, local, now_ms }
    }

    fn plan_by(&mut self, inputs: &Inputs) -> Plan {
        let Inputs { revocations, view, local, now_ms, .. } = inputs;
        let policy = self.held.as_ref().map_or(&inputs.policy, |held| &held.policy);
        #[cfg(test)]
        assert!(!(self.panics_by)(policy, view), "on purpose");
        // Facts change far more often than intent: what only intent decides is kept. It is prepared from
        // what was agreed, whose hash the others know; which nodes serve is decided with the revocations.
        let prepared = match self.prepared.take().filter(|p| p.is_current(policy, local, *now_ms)) {
            Some(prepared) => prepared,
            None => Prepared::new(policy, local, *now_ms),
        };
        let enforced = revocations.enforced(policy);
        let mut plan = plan_with(&prepared, enforced.as_ref().unwrap_or(policy), view, local, *now_ms);
        self.prepared = Some(prepared);
        if let Some(held) = &self.held {
            plan.whole = false;
            plan.alarms.insert(0, held.alarm());
        }
        plan
    }

    /// Plans although planning by these inputs panicked. If the policy changed since it worked, it is to
    /// blame, else the facts.
    fn plan_less(&mut self, inputs: Inputs, why: &str) -> Plan {
        if self.worked.as_ref().is_none_or(|worked| worked.revision != inputs.policy.revision)
            && let Some(plan) = self.plan_less_policy(&inputs, why)
        {
            return plan;
        }
        self.hold(None);
        let before = self.sound.clone().unwrap_or_else(|| Arc::clone(&inputs.view));
        let inputs = Inputs { view: before, ..inputs };
        match guarded(|| self.plan_by(&inputs)) {
            Ok(mut plan) => {
                plan.alarms.insert(0, hold::facts_alarm(why));
                plan
            }
            Err(_) => self.plan_less_policy(&inputs, why).unwrap_or_else(|| panic!("{why}")),
        }
    }

    /// Leaves out as little of the policy as must be for the rest to be planned.
    fn plan_less_policy(&mut self, inputs: &Inputs, why: &str) -> Option<Plan> {
        let worked = self.worked.clone();
        hold::suspects(&inputs.policy, worked.as_deref()).find_map(|suspects| {
            self.hold(Some(Held::new(&inputs.policy, &suspects, why, inputs.now_ms)));
            guarded(|| self.plan_by(inputs)).ok()
        })
    }

    fn hold(&mut self, held: Option<Held>) {
        self.held = held;
        self.prepared = None;
    }

    /// Learns what came of a plan. Whether to plan again at once: the kernel did not take the whole of a new
    /// policy, and what it withdraws cannot wait for what it allows.
    fn learn(&mut self, plan: &Plan, outcome: &Result<(), PacketError>) -> bool {
        let policy = self.policy.borrow().clone();
        match (outcome, &self.worked) {
            // A newer one came meanwhile: it will be planned by next.
            _ if !plan.whole || policy.revision != plan.revision => false,
            (Ok(()), _) => {
                self.worked = Some(policy);
                false
            }
            (Err(why), Some(worked)) if worked.revision < plan.revision => {
                let suspects = policy.set_after(worked);
                self.hold(Some(Held::new(&policy, &suspects, &why.to_string(), clock::unix_ms())));
                true
            }
            (Err(_), _) => false,
        }
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

/// Who hears of it.
pub struct Tell {
    /// Who tells the others which revision is enforced.
    pub membership: Membership,
    /// Where events and signs of life go.
    pub sink: Arc<dyn EventSink>,
}

/// Plans whenever something changed, until `stop`, and announces which revision is enforced.
pub async fn run(
    mut planner: Planner,
    out: watch::Sender<Arc<Plan>>,
    judges: Judges,
    tell: Tell,
    stop: CancellationToken,
) {
    let (mut announced, mut whole) = (None, true);
    loop {
        tell.sink.pulse(TASK, Pulse::Turned);
        let started = Instant::now();
        let plan = planner.plan();
        let wait = until(plan.next_deadline_ms);
        let (epoch, outdated) = {
            let quorum = planner.quorum.borrow();
            (quorum.fence_epoch, quorum.outdated)
        };
        let enforced = Enforced { epoch, revision: plan.revision, hash: plan.hash };
        let plan = Arc::new(plan);
        if std::mem::replace(&mut whole, plan.whole) && !plan.whole {
            let message = plan.alarms.first().map(|alarm| alarm.message.clone());
            tell.sink.emit(Severity::Warning, "held-back", "policy", message.unwrap_or_default());
        }
        out.send_replace(plan.clone());
        let applied = judges.apply(plan.clone()).await;
        if let Err(error) = &applied {
            tell.sink.emit(Severity::Warning, "not-enforced", "dataplane", error.to_string());
        }
        if planner.learn(&plan, &applied) {
            continue;
        }
        // Announced only now: the revision is enforced when no packet is judged by an earlier one, and all
        // of it is.
        if applied.is_ok() && plan.whole && announced != Some(enforced) && enforced.revision > 0 && !outdated
        {
            tell.membership.announce(Body::Enforced(enforced));
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
