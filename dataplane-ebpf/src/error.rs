//! What can go wrong, and what to do about it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};
use thiserror::Error;

use crate::Place;

/// Why tables could not be made from a plan.
#[derive(Debug, Error)]
pub enum ImageError {
    /// A table would be too large.
    #[error("{what}: {found}, more than the {limit} that the data plane holds; {remedy}")]
    TooMany {
        /// What there are too many of.
        what: &'static str,
        /// How many.
        found: usize,
        /// How many there may be.
        limit: usize,
        /// What to do.
        remedy: &'static str,
    },
}

/// Why the data plane could not do something. The tables and programs that were in force still are.
#[derive(Debug, Error)]
pub enum DataplaneError {
    /// The BPF file system cannot be used.
    #[error(
        "cannot use {path} for pinned programs: {source}; it needs root (CAP_SYS_ADMIN and CAP_BPF) and a \
         kernel with the BPF file system"
    )]
    Pins {
        /// Where.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The name of a node cannot be a directory of the BPF file system.
    #[error("{0:?} cannot name a directory of pinned programs: use letters, digits, '-' and '_'")]
    Name(String),
    /// A pinned map is not what this version makes.
    #[error(
        "the pinned map {path} is of another making ({what}); it was not touched. Stop whatever made it, \
         remove its directory, and start again: workloads are refused everything until then"
    )]
    ForeignMap {
        /// The pinned map.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// The kernel does not take the programs.
    #[error(
        "the kernel does not load the eBPF programs: {0}; they need Linux 6.6 or newer, root or CAP_BPF and \
         CAP_NET_ADMIN, and kernel.unprivileged_bpf_disabled does not matter"
    )]
    Load(#[from] EbpfError),
    /// The kernel does not take one program.
    #[error("the kernel refuses the eBPF program {name}: {source}; it needs Linux 6.6 or newer")]
    Program {
        /// Its name.
        name: &'static str,
        /// What it said.
        source: ProgramError,
    },
    /// A part that the object must have is missing.
    #[error("the embedded eBPF object has no {0}: this build is broken")]
    Missing(&'static str),
    /// A map cannot be read or written.
    #[error("cannot use the map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What went wrong.
        source: MapError,
    },
    /// A system call failed.
    #[error("cannot {action}: {source}")]
    System {
        /// What was tried.
        action: String,
        /// What the system said.
        source: io::Error,
    },
    /// There is no such interface here.
    #[error("there is no interface with index {0} in this network namespace")]
    NoInterface(u32),
    /// Every place is taken.
    #[error("{limit} workloads are attached already, more cannot be; detach some or use another node")]
    Full {
        /// How many there may be.
        limit: u32,
    },
    /// Nothing is attached there.
    #[error("nothing is attached to {0}")]
    NotAttached(Place),
}

impl DataplaneError {
    pub(crate) fn system(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::System { action, source }
    }

    pub(crate) fn map<E: Into<MapError>>(name: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::Map { name, source: source.into() }
    }
}
