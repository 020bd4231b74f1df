//! Voters: where three clouds have some, no cloud is given a majority of them; and there is one change of
//! membership at a time.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{command::AdmissionState, id::Name, policy::PolicyState};

use super::Invariant;
use crate::{
    node::{Deed, Members},
    world::{Sighting, World},
};

pub(super) struct Seats;

impl Invariant for Seats {
    fn name(&self) -> &'static str {
        "seats"
    }

    fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), String> {
        let Sighting::Did { by, deed: Deed::Reseated { before, after, under_way } } = sighting else {
            return Ok(());
        };
        if *under_way {
            return Err(format!("n{by} begins a change of membership while another is under way: {after:?}"));
        }
        let Some(node) = &world.slots[*by].node else { return Ok(()) };
        crowded(&node.policy, before, after).map_err(|cloud| {
            format!("n{by} gives cloud {cloud} a majority of the voters: {before:?} become {after:?}")
        })
    }
}

/// The cloud that is given a majority. Taking a node out may leave one with it: that must happen all the
/// same, and the next step spreads the seats.
fn crowded(policy: &PolicyState, before: &Members, after: &Members) -> Result<(), Name> {
    // The end of a joint change is no choice: it was made when the change began, by the policy of then.
    let ([old], Some(new)) = (before.voters.as_slice(), after.voters.last()) else { return Ok(()) };
    let active = policy.nodes.values().filter(|admission| admission.state == AdmissionState::Active);
    let clouds: BTreeMap<u64, &Name> =
        active.map(|admission| (admission.key.node_id().0, admission.zone.cloud())).collect();
    let several = clouds.values().collect::<BTreeSet<_>>().len() >= 3;
    if !several || new.len() < 2 || new.is_subset(old) || majority(old, &clouds).is_some() {
        return Ok(());
    }
    majority(new, &clouds).map_or(Ok(()), Err)
}

fn majority(voters: &BTreeSet<u64>, clouds: &BTreeMap<u64, &Name>) -> Option<Name> {
    let places: Vec<&Name> = voters.iter().filter_map(|id| clouds.get(id).copied()).collect();
    let of = |cloud: &Name| places.iter().filter(|place| **place == cloud).count();
    places.iter().find(|cloud| voters.len() > 1 && of(cloud) * 2 > voters.len()).map(|cloud| (*cloud).clone())
}
