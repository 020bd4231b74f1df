//! Tombstones stay: what a node knows to be removed never comes back, in facts, view or plan.

use super::Invariant;
use crate::world::{Sighting, World};

pub(super) struct Tombstones;

impl Invariant for Tombstones {
    fn name(&self) -> &'static str {
        "tombstones"
    }

    fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), String> {
        let Sighting::Planned(n) = *sighting else { return Ok(()) };
        let Some(node) = &world.slots[n].node else { return Ok(()) };
        // What was agreed, not what the node makes of it.
        let Some(policy) = world.agreed_at(node.inputs.0.revision) else { return Ok(()) };
        for id in policy.removed.keys() {
            let kept = node.gossip.store().of_node(*id).count();
            let seen = node.view.nodes.values().any(|seen| seen.key.node_id() == *id);
            let routed = node.plan.iter().any(|plan| plan.routing.nodes.contains_key(id));
            if kept > 0 || seen || routed {
                return Err(format!(
                    "{} enforces revision {}, in which {id} is removed, and still has {kept} records of it \
                     (in its view: {seen}, in its routes: {routed})",
                    node.birth.name, policy.revision
                ));
            }
        }
        Ok(())
    }
}
