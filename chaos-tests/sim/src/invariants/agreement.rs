//! Healed nodes agree: on one revision of intent, on the same facts, and on who lives.

use selvedge_fabric::view::Liveness;

use super::Invariant;
use crate::{node::Node, world::World};

pub(super) struct Agreement;

impl Invariant for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }

    fn settled(&self, world: &World) -> Result<(), String> {
        let agreed = world.policy();
        let mut first: Option<&Node> = None;
        for (_, node) in world.living() {
            let name = &node.birth.name;
            if (node.policy.revision, node.policy.intent_hash()) != (agreed.revision, agreed.intent_hash()) {
                return Err(format!(
                    "{name} is at revision {}, not {}",
                    node.policy.revision, agreed.revision
                ));
            }
            lives_are_known(world, node)?;
            let one = *first.get_or_insert(node);
            if one.gossip.store().sums() != node.gossip.store().sums() {
                return Err(format!("{name} and {} have different facts", one.birth.name));
            }
        }
        Ok(())
    }
}

/// Whether a node takes exactly those for alive that are.
fn lives_are_known(world: &World, node: &Node) -> Result<(), String> {
    for slot in world.slots.iter().filter(|slot| !slot.removed && slot.birth.name != node.birth.name) {
        let (seen, name) = (&node.birth.name, &slot.birth.name);
        let state = node.view.nodes.get(name).map(|view| view.state);
        match (state, slot.node.is_some()) {
            (Some(Liveness::Alive), true)
            | (Some(Liveness::Down | Liveness::Unknown | Liveness::Left), false) => {}
            (state, lives) => {
                return Err(format!(
                    "{seen} takes {name} for {state:?}, which lives: {lives}; {}",
                    node.sight_of(slot.birth.id())
                ));
            }
        }
    }
    Ok(())
}
