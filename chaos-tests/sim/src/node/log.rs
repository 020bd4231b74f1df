//! What replicas of the modelled log keep, say and do.

use std::collections::BTreeSet;

use selvedge_fabric::{Epoch, key::NodeId};

/// Who takes part: voters, of two sets while they change, and learners.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) voters: Vec<BTreeSet<u64>>,
    pub(crate) learners: BTreeSet<u64>,
}

impl Members {
    pub(super) fn all(&self) -> BTreeSet<u64> {
        self.voters.iter().flatten().chain(&self.learners).copied().collect()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The first of a leader.
    Blank,
    Write(u64),
    Members(Members),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) term: u64,
    pub(crate) what: What,
}

/// What survives a crash.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stored {
    pub(crate) epoch: Epoch,
    pub(super) term: u64,
    pub(super) voted: Option<NodeId>,
    pub(crate) log: Vec<Entry>,
}

pub(super) type Last = Option<(u64, usize)>;

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(super) epoch: Epoch,
    pub(super) term: u64,
    pub(super) say: Say,
}

#[derive(Debug, Clone)]
pub(super) enum Say {
    PreVote(Last),
    WouldVote(bool),
    Vote(Last),
    Voted(bool),
    Append {
        from: usize,
        before: u64,
        entries: Vec<Entry>,
        committed: usize,
    },
    Appended {
        ok: bool,
        matched: usize,
    },
    /// Refused: the epoch is another.
    Fenced,
}

/// What an invariant looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Deed {
    Led {
        epoch: Epoch,
        term: u64,
    },
    /// A leader in this term knows that the entry is on a majority.
    Committed {
        epoch: Epoch,
        term: u64,
        index: usize,
        entry: Entry,
    },
    /// A leader gave way to a higher term; its majority had answered it all the time for so long.
    Deposed {
        term: u64,
        well_for_ms: u64,
    },
    /// Took entries of a leader at `theirs`.
    Followed {
        mine: Epoch,
        theirs: Epoch,
    },
    /// A leader wrote a change of membership.
    Reseated {
        before: Members,
        after: Members,
        under_way: bool,
    },
}
