//! Programs at their places: attached, adopted, put back.

use std::os::fd::{AsFd, OwnedFd};

use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use super::{
    Attached, Change, Dataplane, Place,
    hooks::{GUARD, Hook},
    pins::{open_pin, unpin},
    sys,
};
use crate::{DataplaneError, Workload};

/// The name under which the guard's link is pinned.
pub(super) const GUARD_PIN: &str = "guard";

/// The name of an interface, which proves that it is there.
pub(super) fn interface_name(index: u32) -> Result<String, DataplaneError> {
    let probe = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|error| DataplaneError::system("open a socket")(error.into()))?;
    netdevice::index_to_name(probe, index).map_err(|_| DataplaneError::NoInterface(index))
}

impl Dataplane {
    /// Takes over what an earlier process pinned. An entry without links is an attachment that was not
    /// finished, and is put right by [`Dataplane::reassert`]; links without an entry are a detachment that
    /// was not finished, and are removed, unless another version left them.
    pub(super) fn adopt(&mut self) -> Result<(), DataplaneError> {
        let found = self.control.abi();
        if found != selvedge_abi::layout::ABI_VERSION {
            let path = self.pins.as_ref().map(|pins| pins.map("CONTROL")).unwrap_or_default();
            return Err(DataplaneError::ForeignMap { path, what: format!("its version is {found}") });
        }
        for entry in self.attachments.iter() {
            let (index, attachment) = entry.map_err(DataplaneError::map("ATTACHMENTS"))?;
            let place = Place::Interface(index);
            let workload = Workload::from(&attachment.0);
            self.attached.insert(place, Attached { place, workload, slot: attachment.0.slot });
        }
        self.adopt_groups()?;
        let Some(pins) = self.pins.clone() else { return Ok(()) };
        let upgraded =
            pins.has_predecessor().map_err(DataplaneError::system("look for an earlier version"))?;
        let names = pins.link_names().map_err(DataplaneError::system("list the pinned links"))?;
        for name in names {
            let path = pins.link(&name);
            let failed = || format!("adopt the pinned link {}", path.display());
            if name == GUARD_PIN {
                self.adopt_guard(&path)?;
                continue;
            }
            let found = Hook::from_pin_name(&name);
            let known = found.filter(|(place, _)| upgraded || self.attached.contains_key(place));
            let link = open_pin(&path).map_err(DataplaneError::system(failed()))?;
            let (Some((place, hook)), Some(link)) = (known, link) else {
                unpin(&path).map_err(DataplaneError::system(failed()))?;
                continue;
            };
            let info = sys::link_info(link.as_fd()).map_err(DataplaneError::system(failed()))?;
            if info.target == 0 {
                unpin(&path).map_err(DataplaneError::system(failed()))?;
                continue;
            }
            if !self.attached.contains_key(&place) {
                self.predecessors.insert((place, hook), link);
                continue;
            }
            let program = self.program(hook.program())?;
            sys::update_link(link.as_fd(), program.as_fd()).map_err(DataplaneError::system(failed()))?;
            self.links.insert((place, hook), link);
        }
        Ok(())
    }

    /// Attaches what is missing at a place. A program of an earlier version is replaced between two packets.
    pub(super) fn ensure_linked(&mut self, place: Place) -> Result<(), DataplaneError> {
        for hook in Hook::of(place) {
            if !self.links.contains_key(&(place, *hook)) && !self.succeed(place, *hook)? {
                self.link(place, *hook)?;
            }
        }
        Ok(())
    }

    /// Attaches a program, before every other, and pins the link.
    pub(super) fn link(&mut self, place: Place, hook: Hook) -> Result<(), DataplaneError> {
        // The kernel takes a program only once per hook, so an older link of ours must go first. Meanwhile
        // the floor drops what comes: better no packet than one that nobody judged.
        if let (Some(old), Place::Interface(_)) = (self.links.remove(&(place, hook)), place) {
            sys::detach_link(old.as_fd())
                .map_err(DataplaneError::system(format!("detach {} from {place}", hook.program())))?;
        }
        let link = self.attach_first(place, hook)?;
        self.pin(place, hook, &link)?;
        self.links.insert((place, hook), link);
        Ok(())
    }

    fn attach_first(&self, place: Place, hook: Hook) -> Result<OwnedFd, DataplaneError> {
        let program = hook.program();
        let fd = self.program(program)?.as_fd();
        let link = match place {
            Place::Interface(index) => sys::link_interface(fd, index, hook.attach_type()),
            Place::Group(id) => sys::link_group(fd, self.group_directory(id)?.as_fd(), hook.attach_type()),
        };
        link.map_err(DataplaneError::system(format!("attach {program} to {place}")))
    }

    fn pin(&self, place: Place, hook: Hook, link: &OwnedFd) -> Result<(), DataplaneError> {
        let Some(pins) = &self.pins else { return Ok(()) };
        let path = pins.link(&hook.pin_name(place));
        let action = format!("pin a link as {}", path.display());
        unpin(&path).and_then(|()| sys::pin(link, &path)).map_err(DataplaneError::system(action))
    }

    pub(super) fn unlink(&mut self, place: Place, hook: Hook) -> Result<(), DataplaneError> {
        if let Some(pins) = &self.pins {
            let path = pins.link(&hook.pin_name(place));
            unpin(&path).map_err(DataplaneError::system(format!("remove {}", path.display())))?;
        }
        match self.links.remove(&(place, hook)) {
            Some(link) => sys::detach_link(link.as_fd())
                .map_err(DataplaneError::system(format!("detach {} from {place}", hook.program()))),
            None => Ok(()),
        }
    }

    /// What is not as it should be: programs that somebody removed or overtook, pins that are gone,
    /// interfaces and groups that are gone. Changes nothing, and so does not look beneath the programs.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn verify(&self) -> Result<Vec<Change>, DataplaneError> {
        let mut changes = Vec::new();
        for place in self.attached.keys().copied() {
            if !self.is_there(place) {
                changes.push(Change::Gone(place));
                continue;
            }
            for hook in Hook::of(place) {
                changes.extend(self.verify_hook(place, *hook)?);
            }
        }
        changes.dedup();
        let has_groups = self.attached.keys().any(|place| matches!(place, Place::Group(_)));
        if has_groups && !self.is_guarded()? {
            changes.push(Change::Unguarded);
        }
        Ok(changes)
    }

    fn is_there(&self, place: Place) -> bool {
        match place {
            Place::Interface(index) => interface_name(index).is_ok(),
            Place::Group(id) => self.group_directory(id).is_ok(),
        }
    }

    fn verify_hook(&self, place: Place, hook: Hook) -> Result<Option<Change>, DataplaneError> {
        let failed = || DataplaneError::system(format!("inspect the programs at {place}"));
        let Some(link) = self.links.get(&(place, hook)) else { return Ok(Some(Change::Removed(place))) };
        let info = sys::link_info(link.as_fd()).map_err(failed())?;
        let target = match place {
            Place::Interface(index) => u64::from(index),
            Place::Group(id) => id,
        };
        if info.target != target {
            return Ok(Some(Change::Removed(place)));
        }
        // Programs of groups all have their say, whatever their order.
        if let Place::Interface(index) = place {
            let programs = sys::programs_at(index, hook.attach_type()).map_err(failed())?;
            if programs.first() != Some(&info.program) {
                return Ok(Some(Change::Overtaken(place)));
            }
        }
        let is_pinned = self.pins.as_ref().is_none_or(|pins| pins.link(&hook.pin_name(place)).exists());
        Ok((!is_pinned).then_some(Change::Unpinned(place)))
    }

    /// Puts right what [`Dataplane::verify`] finds, and what is beneath the programs, and says what it was. What was attached to an
    /// interface or group that is gone is forgotten.
    ///
    /// # Errors
    /// When the kernel refuses; what was not put right yet is found again by the next call.
    pub fn reassert(&mut self) -> Result<Vec<Change>, DataplaneError> {
        let mut changes = self.verify()?;
        let gone: Vec<_> =
            changes.iter().filter(|change| matches!(change, Change::Gone(_))).copied().collect();
        for place in self.attached.keys().copied().collect::<Vec<_>>() {
            if let Place::Interface(index) = place
                && !gone.contains(&Change::Gone(place))
                && self.lay_floor(index)?
            {
                changes.push(Change::Floorless(place));
            }
        }
        for change in &changes {
            match *change {
                Change::Gone(place) => self.detach(place)?,
                Change::Unguarded => self.ensure_guard()?,
                Change::Floorless(_) => {}
                Change::Removed(place) | Change::Overtaken(place) | Change::Unpinned(place) => {
                    self.repair(place)?;
                }
            }
        }
        Ok(changes)
    }

    fn repair(&mut self, place: Place) -> Result<(), DataplaneError> {
        for hook in Hook::of(place) {
            match self.verify_hook(place, *hook)? {
                Some(Change::Unpinned(_)) => {
                    if let Some(link) = self.links.get(&(place, *hook)) {
                        self.pin(place, *hook, link)?;
                    }
                }
                Some(_) => self.link(place, *hook)?,
                None => {}
            }
        }
        Ok(())
    }

    fn adopt_guard(&mut self, path: &std::path::Path) -> Result<(), DataplaneError> {
        let failed = || DataplaneError::system(format!("adopt the pinned link {}", path.display()));
        if let Some(link) = open_pin(path).map_err(failed())? {
            sys::update_link(link.as_fd(), self.program(GUARD)?.as_fd()).map_err(failed())?;
            self.guard = Some(link);
        }
        Ok(())
    }
}
