//! The floor beneath the gates of an interface: what no gate let pass is dropped.
//!
//! Gates are links, which live as long as a process or a pin holds them. The floor is a filter of the
//! interface itself (tc-bpf(8) on a clsact qdisc), which the kernel asks after all links of the hook, unless
//! one of them has said the last word. A gate says it on what it allows. So nothing comes to the floor while
//! the gates are there, and when they are not, whoever took them away and however, nothing passes.

use aya::programs::{
    ProgramError, SchedClassifier,
    tc::{
        NlOptions, TcAttachOptions, TcAttachType, TcError, TcHandle, qdisc_add_clsact, qdisc_detach_program,
    },
};

use super::{Dataplane, attach::interface_name, hooks::FLOOR};
use crate::DataplaneError;

const DIRECTIONS: [TcAttachType; 2] = [TcAttachType::Ingress, TcAttachType::Egress];
/// Before the filters of others, which could let a packet pass.
const PRIORITY: u16 = 1;
/// Nobody chooses this one by chance; the kernel numbers from 1.
const HANDLE: TcHandle = TcHandle::new(0x5e1e, 0xed9e);

impl Dataplane {
    /// Lays the floor of an interface. Whether it was missing.
    pub(super) fn lay_floor(&mut self, index: u32) -> Result<bool, DataplaneError> {
        let name = interface_name(index)?;
        exists_or(qdisc_add_clsact(&name)).map_err(failed(&name))?;
        let program = self.ebpf.program_mut(FLOOR).ok_or(DataplaneError::Missing(FLOOR))?;
        let program: &mut SchedClassifier =
            program.try_into().map_err(|source| DataplaneError::Program { name: FLOOR, source })?;
        let mut missing = false;
        for direction in DIRECTIONS {
            let options = NlOptions { priority: PRIORITY, handle: HANDLE, classid: None };
            match program.attach_with_options(&name, direction, TcAttachOptions::Netlink(options)) {
                Ok(id) => {
                    let link = program
                        .take_link(id)
                        .map_err(|source| DataplaneError::Program { name: FLOOR, source })?;
                    // It is the interface's from here on, and goes with it.
                    std::mem::forget(link);
                    missing = true;
                }
                Err(ProgramError::TcError(error)) => exists_or(Err(error)).map_err(failed(&name))?,
                Err(source) => return Err(DataplaneError::Program { name: FLOOR, source }),
            }
        }
        Ok(missing)
    }

    /// Takes the floor away: what no gate decides passes. Fine when it, or the interface, is gone.
    pub(super) fn lift_floor(&mut self, index: u32) -> Result<(), DataplaneError> {
        let Ok(name) = interface_name(index) else { return Ok(()) };
        for direction in DIRECTIONS {
            match qdisc_detach_program(&name, direction, FLOOR) {
                Err(TcError::IoError(error)) if error.kind() == std::io::ErrorKind::NotFound => {}
                lifted => lifted.map_err(failed(&name))?,
            }
        }
        Ok(())
    }
}

/// That it is there already is fine.
fn exists_or(done: Result<(), TcError>) -> Result<(), TcError> {
    match done {
        Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => Ok(()),
        other => other,
    }
}

fn failed(interface: &str) -> impl FnOnce(TcError) -> DataplaneError {
    let action = format!("have {interface} drop what no program judges (clsact and cls_bpf)");
    move |source| DataplaneError::system(action)(std::io::Error::other(source))
}
