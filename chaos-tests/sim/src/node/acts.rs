//! Plan, DNS and gate: what the reconciler does with policy and view.

use std::sync::Arc;

use selvedge_dataplane::TableImage;
use selvedge_dns::ZoneIndex;
use selvedge_fabric::{
    plan::Plan,
    planner::{Prepared, plan_with},
    record::{Body, Enforced},
};
use selvedge_membership::core::Now;

use super::Node;
use crate::mutant::Mutant;

impl Node {
    /// Plans, when something changed or the time has come, and applies the plan.
    pub(super) fn act(&mut self, now: Now) {
        if !self.is_plan_due(now) {
            return;
        }
        let current = |p: &Prepared| p.is_current(&self.policy, &self.local, now.unix_ms);
        let prepared = match self.prepared.take().filter(current) {
            Some(prepared) => prepared,
            None => Prepared::new(&self.policy, &self.local, now.unix_ms),
        };
        let mut plan = plan_with(&prepared, &self.policy, &self.view, &self.local, now.unix_ms);
        self.prepared = Some(prepared);
        self.plans_made += 1;
        if self.mutant == Some(Mutant::MoodyPlanner) && self.plans_made.is_multiple_of(7) {
            plan.identities.pop_last();
        }
        self.inputs = (self.policy.clone(), self.view.clone());
        self.apply(Arc::new(plan), now);
    }

    /// The names that its DNS serves. The daemon makes the index with each plan; here it is made when somebody
    /// asks.
    pub(crate) fn names(&mut self) -> Option<&ZoneIndex> {
        let plan = self.named_by.as_ref()?;
        let made_of = |index: &(Arc<Plan>, ZoneIndex)| Arc::ptr_eq(&index.0, plan);
        if !self.index.as_ref().is_some_and(made_of) {
            self.index = Some((plan.clone(), ZoneIndex::build(&plan.zone)));
        }
        self.index.as_ref().map(|(_, index)| index)
    }

    fn is_plan_due(&self, now: Now) -> bool {
        self.plan.as_ref().is_none_or(|plan| {
            (plan.revision, plan.generation) != (self.policy.revision, self.view.generation)
                || plan.next_deadline_ms.is_some_and(|at| at <= now.unix_ms)
        })
    }

    fn apply(&mut self, plan: Arc<Plan>, now: Now) {
        let before = self.plan.replace(plan.clone());
        let lost_names = before.as_ref().is_some_and(|b| b.zone.endpoints.len() > plan.zone.endpoints.len());
        if !(lost_names && self.mutant == Some(Mutant::StaleNames)) {
            self.named_by = Some(plan.clone());
        }
        if let Ok(image) = TableImage::new(&plan) {
            let less = image.contracts().len() < self.gate.image().contracts().len();
            if !(less && self.mutant == Some(Mutant::StaleTables)) {
                self.gate.sync(Arc::new(image));
            }
        }
        self.route_by(&plan, now);
        let enforced = Enforced { epoch: 0, revision: plan.revision, hash: plan.hash };
        self.gossip.own().say(Body::Enforced(enforced), false);
    }
}
