//! What is to be attached, found on this host.

use selvedge_fabric::id::EndpointId;

use super::{
    AttachError, Place,
    group::{Group, GroupError, Owner},
    resolver, wiring,
};
use crate::net::Namespace;

/// What is attached, found.
pub(super) enum Target {
    /// A process tree, which is to get a control group.
    Group,
    /// A network namespace, and where its names are set up.
    Namespace { inside: Namespace, names: resolver::Place },
    /// An interface of this host.
    Interface(String),
}

impl Target {
    /// Looks for it.
    pub(super) fn find(place: &Place) -> Result<Self, AttachError> {
        let (inside, names) = match place {
            Place::Netns(path) => (Namespace::open(path)?, resolver::of_named(path)),
            Place::Pid(pid) => (Namespace::of_process(*pid)?, resolver::of_process(*pid)),
            Place::Interface(name) => return Ok(Self::Interface(name.clone())),
            Place::Group => return Ok(Self::Group),
        };
        if inside.is_own() {
            return Err(AttachError::Own(inside.path().display().to_string()));
        }
        Ok(Self::Namespace { inside, names })
    }

    /// The interface of this host by which it will be reached.
    pub(super) fn interface(&self, endpoint: &EndpointId) -> String {
        match self {
            Self::Namespace { .. } => wiring::host_interface(endpoint),
            Self::Interface(name) => name.clone(),
            Self::Group => wiring::LOOPBACK.to_owned(),
        }
    }

    /// The control group that a process tree is to get.
    pub(super) fn group(&self, owner: &Owner, endpoint: &EndpointId) -> Result<Option<Group>, GroupError> {
        match self {
            Self::Group => Group::plan(owner, endpoint).map(Some),
            _ => Ok(None),
        }
    }
}
