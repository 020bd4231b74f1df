//! Another version of this program, whose tables are of another layout, ran before: what it left in force
//! stays so until this one has put its own in the same place.

use std::os::fd::AsFd as _;

use super::{Dataplane, Place, attach::interface_name, hooks::Hook, pins::unpin, sys};
use crate::DataplaneError;

impl Dataplane {
    /// Puts a program in the place of one of another version, between two packets. Whether there was one.
    pub(super) fn succeed(&mut self, place: Place, hook: Hook) -> Result<bool, DataplaneError> {
        let Some(link) = self.predecessors.remove(&(place, hook)) else { return Ok(false) };
        sys::update_link(link.as_fd(), self.program(hook.program())?.as_fd())
            .map_err(DataplaneError::system(format!("replace the program of another version at {place}")))?;
        self.links.insert((place, hook), link);
        Ok(true)
    }

    /// Ends what another version left in force and nobody attached again, and removes its tables. Call it
    /// when everything was attached that there is to attach.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn forget_predecessors(&mut self) -> Result<(), DataplaneError> {
        while let Some(((place, hook), link)) = self.predecessors.pop_first() {
            if let Place::Interface(index) = place
                && interface_name(index).is_ok()
            {
                // Who could not be attached again is not set free.
                self.lay_floor(index)?;
            }
            let failed = || DataplaneError::system(format!("detach what another version left at {place}"));
            if let Some(pins) = &self.pins {
                unpin(&pins.link(&hook.pin_name(place))).map_err(failed())?;
            }
            sys::detach_link(link.as_fd()).map_err(failed())?;
        }
        match &self.pins {
            Some(pins) => pins
                .remove_predecessors()
                .map_err(DataplaneError::system("remove the tables of another version")),
            None => Ok(()),
        }
    }
}
