//! What must hold, one file each.

mod agreement;
mod fencing;
mod leaders;
mod names;
mod packets;
mod paths;
mod plans;
mod seats;
mod tombstones;

use std::fmt;

use crate::world::{Sighting, World};

/// Something that must never be seen was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// The invariant.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

/// Something that must hold.
trait Invariant {
    /// Its name, by which reports and planted bugs speak of it.
    fn name(&self) -> &'static str;

    /// Looks at what was seen, at any time.
    ///
    /// # Errors
    /// What should not be.
    fn see(&mut self, _world: &mut World, _sighting: &Sighting) -> Result<(), String> {
        Ok(())
    }

    /// Looks whether a fabric without faults has come to rest.
    ///
    /// # Errors
    /// What is not as it should be in the end.
    fn settled(&self, _world: &World) -> Result<(), String> {
        Ok(())
    }
}

/// All invariants, with what they remember.
pub(crate) struct Checks(Vec<Box<dyn Invariant>>);

impl Checks {
    pub(crate) fn all() -> Self {
        Self(vec![
            Box::new(packets::Packets::default()),
            Box::new(names::Names),
            Box::new(paths::Paths),
            Box::new(plans::Plans),
            Box::new(tombstones::Tombstones),
            Box::new(leaders::Leaders::default()),
            Box::new(seats::Seats),
            Box::new(fencing::Fencing),
            Box::new(agreement::Agreement),
        ])
    }

    pub(crate) fn see(&mut self, world: &mut World, sighting: &Sighting) -> Result<(), Violation> {
        self.0.iter_mut().try_for_each(|check| {
            check.see(world, sighting).map_err(|what| Violation { invariant: check.name(), what })
        })
    }

    pub(crate) fn settled(&self, world: &World) -> Result<(), Violation> {
        self.0.iter().try_for_each(|check| {
            check.settled(world).map_err(|what| Violation { invariant: check.name(), what })
        })
    }
}
