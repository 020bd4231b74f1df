//! Programs at their hooks: attached, adopted, put back.

use std::os::fd::{AsFd, OwnedFd};

use aya::{
    Ebpf,
    programs::{ProgramFd, SchedClassifier},
};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};

use selvedge_abi::{Direction, Reason};

use super::{
    Attached, Change, Dataplane, Place,
    pins::{open_pin, unpin},
    sys::{self, AttachType},
};
use crate::{DataplaneError, Workload};

/// The program that refuses everything.
pub(super) const SHUT: &str = "selvedge_shut";

/// What a classifier returns to refuse a packet.
const TC_ACT_SHOT: u32 = 2;

/// A hook of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Hook {
    /// What the workload sends: ingress of the host side.
    Leave,
    /// What is sent to the workload: egress of the host side.
    Arrive,
}

impl Hook {
    pub(super) const ALL: [Self; 2] = [Self::Leave, Self::Arrive];

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Leave => "selvedge_leave",
            Self::Arrive => "selvedge_arrive",
        }
    }

    const fn attach_type(self) -> AttachType {
        match self {
            Self::Leave => AttachType::TcxIngress,
            Self::Arrive => AttachType::TcxEgress,
        }
    }

    /// The name of the pinned link: the BPF file system takes no dots.
    fn pin_name(self, place: Place) -> String {
        let Place::Interface(index) = place;
        match self {
            Self::Leave => format!("if-{index}-leave"),
            Self::Arrive => format!("if-{index}-arrive"),
        }
    }

    fn from_pin_name(name: &str) -> Option<(Place, Self)> {
        let (index, _) = name.strip_prefix("if-")?.split_once('-')?;
        let place = Place::Interface(index.parse().ok()?);
        Self::ALL.into_iter().find(|hook| hook.pin_name(place) == name).map(|hook| (place, hook))
    }
}

/// Loads a program into the kernel.
pub(super) fn load(ebpf: &mut Ebpf, name: &'static str) -> Result<(), DataplaneError> {
    let program = ebpf.program_mut(name).ok_or(DataplaneError::Missing(name))?;
    let program: Result<&mut SchedClassifier, _> = program.try_into();
    let loaded = program.and_then(SchedClassifier::load);
    loaded.map_err(|source| DataplaneError::Program { name, source })
}

/// The name of an interface, which proves that it is there.
pub(super) fn interface_name(index: u32) -> Result<String, DataplaneError> {
    let probe = socket(AddressFamily::INET, SocketType::DGRAM, None)
        .map_err(|error| DataplaneError::system("open a socket")(error.into()))?;
    netdevice::index_to_name(probe, index).map_err(|_| DataplaneError::NoInterface(index))
}

impl Dataplane {
    /// Takes over what an earlier process pinned. An entry without links is an attachment that was not
    /// finished, and is put right by [`Dataplane::reassert`]; links without an entry are a detachment that
    /// was not finished, and are removed.
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
        let Some(pins) = self.pins.clone() else { return Ok(()) };
        let names = pins.link_names().map_err(DataplaneError::system("list the pinned links"))?;
        for name in names {
            let path = pins.link(&name);
            let failed = || format!("adopt the pinned link {}", path.display());
            let known = Hook::from_pin_name(&name).filter(|(place, _)| self.attached.contains_key(place));
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
            let program = self.program(hook.program())?;
            sys::update_link(link.as_fd(), program.as_fd()).map_err(DataplaneError::system(failed()))?;
            self.links.insert((place, hook), link);
        }
        Ok(())
    }

    /// Attaches a program, before every other, and pins the link.
    pub(super) fn link(&mut self, place: Place, hook: Hook) -> Result<(), DataplaneError> {
        // The kernel takes a program only once per hook, so an older link of ours must go first. Meanwhile
        // the interface is shut: better no packet than one that nobody judged.
        let shut = match self.links.remove(&(place, hook)) {
            Some(old) => {
                let shut = self.attach_first(place, hook, SHUT)?;
                sys::detach_link(old.as_fd())
                    .map_err(DataplaneError::system(format!("detach {} from {place}", hook.program())))?;
                Some(shut)
            }
            None => None,
        };
        let link = self.attach_first(place, hook, hook.program())?;
        self.pin(place, hook, &link)?;
        self.links.insert((place, hook), link);
        drop(shut);
        Ok(())
    }

    fn attach_first(
        &self,
        place: Place,
        hook: Hook,
        program: &'static str,
    ) -> Result<OwnedFd, DataplaneError> {
        let Place::Interface(index) = place;
        sys::link_interface(self.program(program)?.as_fd(), index, hook.attach_type())
            .map_err(DataplaneError::system(format!("attach {program} to {place}")))
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

    /// Has frames judged by the programs in the kernel, without sending them.
    ///
    /// # Errors
    /// When a descriptor cannot be duplicated.
    pub fn probe(&self) -> Result<Probe, DataplaneError> {
        let clone = |hook: Hook| -> Result<ProgramFd, DataplaneError> {
            self.program(hook.program())?
                .try_clone()
                .map_err(DataplaneError::system("duplicate a descriptor"))
        };
        Ok(Probe { leave: clone(Hook::Leave)?, arrive: clone(Hook::Arrive)? })
    }

    /// What is not as it should be: programs that somebody removed or overtook, pins that are gone,
    /// interfaces that are gone. Changes nothing.
    ///
    /// # Errors
    /// When the kernel does not answer.
    pub fn verify(&self) -> Result<Vec<Change>, DataplaneError> {
        let mut changes = Vec::new();
        for place in self.attached.keys().copied() {
            let Place::Interface(index) = place;
            if interface_name(index).is_err() {
                changes.push(Change::Gone(place));
                continue;
            }
            for hook in Hook::ALL {
                changes.extend(self.verify_hook(place, hook, index)?);
            }
        }
        changes.dedup();
        Ok(changes)
    }

    fn verify_hook(&self, place: Place, hook: Hook, index: u32) -> Result<Option<Change>, DataplaneError> {
        let failed = || DataplaneError::system(format!("inspect the programs at {place}"));
        let Some(link) = self.links.get(&(place, hook)) else { return Ok(Some(Change::Removed(place))) };
        let info = sys::link_info(link.as_fd()).map_err(failed())?;
        if info.target != u64::from(index) {
            return Ok(Some(Change::Removed(place)));
        }
        let programs = sys::programs_at(index, hook.attach_type()).map_err(failed())?;
        if programs.first() != Some(&info.program) {
            return Ok(Some(Change::Overtaken(place)));
        }
        let is_pinned = self.pins.as_ref().is_none_or(|pins| pins.link(&hook.pin_name(place)).exists());
        Ok((!is_pinned).then_some(Change::Unpinned(place)))
    }

    /// Puts right what [`Dataplane::verify`] finds, and says what it was. What was attached to an
    /// interface that is gone is forgotten.
    ///
    /// # Errors
    /// When the kernel refuses; what was not put right yet is found again by the next call.
    pub fn reassert(&mut self) -> Result<Vec<Change>, DataplaneError> {
        let changes = self.verify()?;
        for change in &changes {
            match *change {
                Change::Gone(place) => self.detach(place)?,
                Change::Removed(place) | Change::Overtaken(place) | Change::Unpinned(place) => {
                    self.repair(place)?;
                }
            }
        }
        Ok(changes)
    }

    fn repair(&mut self, place: Place) -> Result<(), DataplaneError> {
        let Place::Interface(index) = place;
        for hook in Hook::ALL {
            match self.verify_hook(place, hook, index)? {
                Some(Change::Unpinned(_)) => {
                    if let Some(link) = self.links.get(&(place, hook)) {
                        self.pin(place, hook, link)?;
                    }
                }
                Some(_) => self.link(place, hook)?,
                None => {}
            }
        }
        Ok(())
    }
}

/// Has frames judged by the programs in the kernel as if they passed an interface of this network
/// namespace, without sending them: for self-tests. They are counted and may open flows like any other.
#[derive(Debug)]
pub struct Probe {
    leave: ProgramFd,
    arrive: ProgramFd,
}

impl Probe {
    /// What becomes of a frame. It is judged `repeat` times; the last verdict is returned.
    ///
    /// # Errors
    /// When the kernel does not take the frame: it wants at least Ethernet and IP headers.
    pub fn judge(
        &self,
        ifindex: u32,
        direction: Direction,
        frame: &[u8],
        repeat: u32,
    ) -> Result<(bool, Reason), DataplaneError> {
        let program = match direction {
            Direction::Leaving => &self.leave,
            Direction::Arriving => &self.arrive,
        };
        let (result, reason) = sys::run_classifier(program.as_fd(), ifindex, frame, repeat)
            .map_err(DataplaneError::system(format!("have a frame of {} bytes judged", frame.len())))?;
        let reason = u8::try_from(reason).map_or(Reason::UnknownCode, Reason::from_code);
        Ok((result != TC_ACT_SHOT, reason))
    }
}
