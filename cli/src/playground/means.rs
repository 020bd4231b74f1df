//! Whether a playground can have real packets.

use super::{layout::NodeSlot, networks::Networks};
use crate::doctor;

/// What a playground works with.
#[derive(Debug)]
pub(crate) struct Means {
    /// Networks for its nodes, when packets are real.
    pub(crate) networks: Option<Networks>,
    /// Otherwise why not.
    pub(crate) without: Option<String>,
}

impl Means {
    /// The best that this user and this kernel allow.
    pub(crate) fn of(slots: &[NodeSlot], rootless: bool) -> Self {
        match reason_against(rootless) {
            Some(reason) => Self { networks: None, without: Some(reason) },
            None => match Networks::lay(slots) {
                Ok(networks) => Self { networks: Some(networks), without: None },
                Err(error) => Self { networks: None, without: Some(format!("{error:#}")) },
            },
        }
    }
}

fn reason_against(rootless: bool) -> Option<String> {
    if rootless {
        return Some("--rootless".to_owned());
    }
    if !rustix::process::geteuid().is_root() {
        return Some("this user is not root".to_owned());
    }
    doctor::lacks_for_packets()
}
