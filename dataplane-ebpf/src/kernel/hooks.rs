//! The hooks, and the programs at them.

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};

use super::{Place, sys::AttachType};
use crate::DataplaneError;

/// A hook of an interface or of a control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Hook {
    /// What the workload sends: ingress of the host side.
    Leave,
    /// What is sent to the workload: egress of the host side.
    Arrive,
    /// What the group sends.
    GroupLeave,
    /// What is sent to the group.
    GroupArrive,
    /// The group's sockets get its address: when they bind, connect, or send without either.
    Bind4,
    Bind6,
    Connect4,
    Connect6,
    Sendmsg4,
    Sendmsg6,
}

/// The program that refuses everything that no other has judged.
pub(super) const FLOOR: &str = "selvedge_floor";
/// The program at the root of all groups.
pub(super) const GUARD: &str = "selvedge_group_guard";

impl Hook {
    /// The hooks of an interface.
    pub(super) const INTERFACE: [Self; 2] = [Self::Leave, Self::Arrive];
    /// The hooks of a group; what judges packets comes first.
    pub(super) const GROUP: [Self; 8] = [
        Self::GroupLeave,
        Self::GroupArrive,
        Self::Bind4,
        Self::Bind6,
        Self::Connect4,
        Self::Connect6,
        Self::Sendmsg4,
        Self::Sendmsg6,
    ];

    /// The hooks of a place.
    pub(super) const fn of(place: Place) -> &'static [Self] {
        match place {
            Place::Interface(_) => &Self::INTERFACE,
            Place::Group(_) => &Self::GROUP,
        }
    }

    pub(super) const fn program(self) -> &'static str {
        match self {
            Self::Leave => "selvedge_leave",
            Self::Arrive => "selvedge_arrive",
            Self::GroupLeave => "selvedge_group_leave",
            Self::GroupArrive => "selvedge_group_arrive",
            Self::Bind4 => "selvedge_bind4",
            Self::Bind6 => "selvedge_bind6",
            Self::Connect4 => "selvedge_connect4",
            Self::Connect6 => "selvedge_connect6",
            Self::Sendmsg4 => "selvedge_sendmsg4",
            Self::Sendmsg6 => "selvedge_sendmsg6",
        }
    }

    pub(super) const fn attach_type(self) -> AttachType {
        match self {
            Self::Leave => AttachType::TcxIngress,
            Self::Arrive => AttachType::TcxEgress,
            Self::GroupLeave => AttachType::GroupEgress,
            Self::GroupArrive => AttachType::GroupIngress,
            Self::Bind4 => AttachType::Bind4,
            Self::Bind6 => AttachType::Bind6,
            Self::Connect4 => AttachType::Connect4,
            Self::Connect6 => AttachType::Connect6,
            Self::Sendmsg4 => AttachType::Sendmsg4,
            Self::Sendmsg6 => AttachType::Sendmsg6,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Leave | Self::GroupLeave => "leave",
            Self::Arrive | Self::GroupArrive => "arrive",
            Self::Bind4 => "bind4",
            Self::Bind6 => "bind6",
            Self::Connect4 => "connect4",
            Self::Connect6 => "connect6",
            Self::Sendmsg4 => "sendmsg4",
            Self::Sendmsg6 => "sendmsg6",
        }
    }

    /// The name of the pinned link: the BPF file system takes no dots.
    pub(super) fn pin_name(self, place: Place) -> String {
        match place {
            Place::Interface(index) => format!("if-{index}-{}", self.word()),
            Place::Group(id) => format!("group-{id}-{}", self.word()),
        }
    }

    pub(super) fn from_pin_name(name: &str) -> Option<(Place, Self)> {
        let (kind, rest) = name.split_once('-')?;
        let (number, word) = rest.split_once('-')?;
        let place = match kind {
            "if" => Place::Interface(number.parse().ok()?),
            "group" => Place::Group(number.parse().ok()?),
            _ => return None,
        };
        Self::of(place).iter().find(|hook| hook.word() == word).map(|hook| (place, *hook))
    }
}

/// Loads every program into the kernel.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<(), DataplaneError> {
    let hooks = Hook::INTERFACE.iter().chain(&Hook::GROUP).map(|hook| hook.program());
    for name in hooks.chain([FLOOR, GUARD]) {
        let program = ebpf.program_mut(name).ok_or(DataplaneError::Missing(name))?;
        load_one(program).map_err(|source| DataplaneError::Program { name, source })?;
    }
    Ok(())
}

fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::SchedClassifier(program) => program.load(),
        Program::CgroupSkb(program) => program.load(),
        Program::CgroupSockAddr(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_found_again_by_their_names() {
        for place in [Place::Interface(7), Place::Group(1 << 40)] {
            for hook in Hook::of(place) {
                let name = hook.pin_name(place);
                assert_eq!(Hook::from_pin_name(&name), Some((place, *hook)));
                assert!(!name.contains('.'));
            }
        }
        for stranger in ["guard", "if-x-leave", "if-7", "group-7-leaves"] {
            assert_eq!(Hook::from_pin_name(stranger), None);
        }
    }
}
