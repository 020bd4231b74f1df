//! Elections: one leader at most in each term of each epoch, it has everything that was committed, and no
//! leader whose majority hears it is deposed by one who returns.

use std::collections::BTreeMap;

use selvedge_consensus::rules::is_majority;
use selvedge_fabric::Epoch;

use super::Invariant;
use crate::{
    node::{Deed, Entry},
    world::{Sighting, World},
};

/// A leader whose majority answered for so long is not to be deposed: no vote that was promised before is
/// on its way any more.
const WELL_MS: u64 = 4_000;

#[derive(Default)]
pub(super) struct Leaders {
    led: BTreeMap<(Epoch, u64), usize>,
    /// What is committed at which index, and in which term that was so first.
    committed: BTreeMap<(Epoch, usize), (Entry, u64)>,
}

impl Invariant for Leaders {
    fn name(&self) -> &'static str {
        "leaders"
    }

    fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), String> {
        let Sighting::Did { by, deed } = sighting else { return Ok(()) };
        match deed {
            Deed::Led { epoch, term } => {
                let other = *self.led.entry((*epoch, *term)).or_insert(*by);
                if other != *by {
                    return Err(format!("both n{other} and n{by} lead in term {term} of epoch {epoch}"));
                }
                self.has_everything(world, *by, (*epoch, *term))
            }
            // Who was stopped or is slow may hold promises that are long over.
            Deed::Deposed { term, well_for_ms } if *well_for_ms >= WELL_MS && all_are_steady(world) => {
                Err(format!("n{by} gives way to term {term}, and its majority heard it for {well_for_ms} ms"))
            }
            Deed::Committed { epoch, term, index, entry } => {
                let first = || (entry.clone(), *term);
                let (known, since) = self.committed.entry((*epoch, *index)).or_insert_with(first);
                *since = *term.min(since);
                if known != entry {
                    return Err(format!(
                        "entry {index} of epoch {epoch} is {known:?} and, by n{by}, {entry:?}"
                    ));
                }
                Ok(())
            }
            Deed::Deposed { .. } | Deed::Followed { .. } | Deed::Reseated { .. } => Ok(()),
        }
    }

    fn settled(&self, world: &World) -> Result<(), String> {
        let newest = world.living().max_by_key(|(_, node)| {
            (
                node.replica.stored.epoch,
                node.replica.stored.log.last().map(|e| e.term),
                node.replica.stored.log.len(),
            )
        });
        let Some((_, newest)) = newest else { return Ok(()) };
        let living = world.living().map(|(_, node)| node.birth.id().0).collect();
        if !is_majority(&newest.replica.members().voters, &living) {
            return Ok(()); // What was lost for good only an operator brings back.
        }
        let leads = |node: &crate::node::Node| node.replica.quorum_answered(1_000, node.mono_ms());
        if world.living().any(|(_, node)| leads(node)) { Ok(()) } else { Err("nobody leads".to_owned()) }
    }
}

impl Leaders {
    /// Leaders of later terms have what was committed in earlier ones; a late one of an earlier term need not
    /// have it, and commits nothing.
    fn has_everything(&self, world: &World, by: usize, (epoch, term): (Epoch, u64)) -> Result<(), String> {
        let Some(node) = &world.slots[by].node else { return Ok(()) };
        let log = &node.replica.stored.log;
        for ((_, index), (entry, since)) in self.committed.range((epoch, 0)..=(epoch, usize::MAX)) {
            if *since < term && log.get(*index) != Some(entry) {
                return Err(format!("n{by} leads epoch {epoch} without entry {index}, which was committed"));
            }
        }
        Ok(())
    }
}

fn all_are_steady(world: &World) -> bool {
    world.weather_is_fair() && world.living().all(|(n, _)| world.is_steady(n))
}
