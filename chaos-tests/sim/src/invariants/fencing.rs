//! A fenced epoch never commits: no replica takes entries of a leader whose epoch is not its own, so those
//! who went on to a higher one are no part of any majority of a lower one.

use super::Invariant;
use crate::{
    node::Deed,
    world::{Sighting, World},
};

pub(super) struct Fencing;

impl Invariant for Fencing {
    fn name(&self) -> &'static str {
        "fencing"
    }

    fn see(&mut self, _world: &mut World, sighting: &Sighting) -> Result<(), String> {
        match sighting {
            Sighting::Did { by, deed: Deed::Followed { mine, theirs } } if mine != theirs => {
                Err(format!("n{by} is at epoch {mine} and takes entries of a leader at epoch {theirs}"))
            }
            _ => Ok(()),
        }
    }
}
