//! Self-tests: frames that the kernel judges and nobody sends.

use std::os::fd::AsFd;

use aya::programs::ProgramFd;
use selvedge_abi::{Direction, Reason};

use super::{Dataplane, hooks::Hook, sys};
use crate::DataplaneError;

/// What a classifier returns to refuse a packet.
const TC_ACT_SHOT: u32 = 2;

impl Dataplane {
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
