//! The same inputs give the same plan, whoever plans, whenever, and however often before.

use std::sync::Arc;

use selvedge_fabric::{
    plan::Plan,
    planner::{self, Local},
    policy::PolicyState,
    view::View,
};

use super::Invariant;
use crate::world::{Sighting, World};

/// One plan in so many is made a second time: planning is most of the work of a simulated node.
const EVERY: u64 = 3;

pub(super) struct Plans;

impl Invariant for Plans {
    fn name(&self) -> &'static str {
        "plans"
    }

    fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), String> {
        let Sighting::Planned(n) = *sighting else { return Ok(()) };
        let Some(node) = &world.slots[n].node else { return Ok(()) };
        let Some(plan) = &node.plan else { return Ok(()) };
        if !node.plans_made.is_multiple_of(EVERY) {
            return Ok(());
        }
        let (policy, view) = &node.inputs;
        same(plan, &afresh(policy, view, &node.local, plan.at_ms))
            .map_err(|part| format!("{} made a plan whose {part} another does not have", node.birth.name))
    }
}

/// The plan without anything prepared.
fn afresh(policy: &Arc<PolicyState>, view: &Arc<View>, local: &Local, at_ms: u64) -> Plan {
    planner::plan(policy, view, local, at_ms)
}

fn same(a: &Plan, b: &Plan) -> Result<(), &'static str> {
    let parts = [
        ("revision", (a.revision, a.hash, a.generation) == (b.revision, b.hash, b.generation)),
        ("verdicts", a.verdicts == b.verdicts),
        ("identities", a.identities == b.identities),
        ("networks", a.networks == b.networks),
        ("routing", a.routing == b.routing),
        ("zone", a.zone == b.zone),
        ("alarms", a.alarms == b.alarms),
    ];
    parts.iter().find(|(_, same)| !same).map_or(Ok(()), |(part, _)| Err(part))
}
