//! What replicas say to each other, inside a stream of `Alpn::Raft`.
//!
//! A message is postcard behind a version byte. Every request carries the fence epoch of its sender and
//! is refused under any other: after a recovery, replicas of the old epoch must not mix with the new
//! one. The fabric and the sender need no fields: TLS proves both.

use std::{net::SocketAddr, time::Duration};

use openraft::{
    error::InstallSnapshotError,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use selvedge_fabric::{
    Epoch, Revision,
    id::NodeName,
    statement::{Recovery, SignedRecovery, Statement, Succession},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    recovery::plan::Position,
    types::{LogIndex, Outcome, TypeConfig},
};

/// Version of these messages.
const VERSION: u8 = 1;

/// Why a message cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// Spoken by a version of selvedge that this one does not understand.
    #[error("message version {0} is not spoken here (this node speaks {VERSION}): upgrade the older node")]
    Version(u8),
    /// Not a message at all.
    #[error("malformed message: {0}")]
    Malformed(#[from] postcard::Error),
    /// A command or its outcome inside the message.
    #[error("malformed command: {0}")]
    Command(#[from] serde_json::Error),
}

/// A request with what its sender says of itself.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) epoch: Epoch,
    /// From a leader: the round trip between voters, 99th percentile, and whether its quorum is fresh.
    pub(crate) rtt_us: u32,
    pub(crate) quorum: bool,
    pub(crate) ask: Ask,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ask {
    Append(AppendEntriesRequest<TypeConfig>),
    Vote(VoteRequest<u64>),
    Snapshot(InstallSnapshotRequest<TypeConfig>),
    /// Would you vote for me? Changes nothing at the one asked.
    PreVote {
        last: Option<LogIndex>,
    },
    /// Who leads?
    Leader,
    /// A proposal (JSON) for the leader, which has this long to decide.
    Propose {
        proposal: Vec<u8>,
        within_ms: u64,
    },
    /// The index up to which a linearizable read must have applied.
    ReadIndex {
        within_ms: u64,
    },
    /// Your statements over these revisions, and the successions of voters after this one.
    Statements {
        wanted: Vec<Revision>,
        links_after: u64,
    },
    /// Where a processor is that was just admitted. It tells that itself as soon as it has a policy, which the
    /// leader must bring to it first.
    Introduce {
        name: NodeName,
        addrs: Vec<SocketAddr>,
    },
    /// How far are you? Answered under any epoch, as all that follow.
    Position,
    /// The state that this recovery is based on, if you have it.
    Base {
        recovery: Recovery,
    },
    /// Enter this epoch; here is the state to begin with, if it is given.
    Recover {
        signed: Box<SignedRecovery>,
        image: Option<Vec<u8>>,
    },
    /// What did recoveries leave behind at yours?
    Lost,
    /// To the leader: hand leadership over to this voter.
    Transfer {
        to: NodeName,
    },
    /// From the leader: stand for election now.
    Campaign,
}

impl Ask {
    /// Whether it has to do with recovery, and so is asked across fence epochs.
    pub(crate) const fn crosses_epochs(&self) -> bool {
        matches!(self, Self::Position | Self::Base { .. } | Self::Recover { .. } | Self::Lost)
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    Snapshot(Result<InstallSnapshotResponse<u64>, InstallSnapshotError>),
    PreVote {
        granted: bool,
    },
    Leader(LeaderHint),
    Propose(Proposed),
    ReadIndex(ReadIndex),
    Statements {
        statements: Vec<Statement>,
        links: Vec<Succession>,
    },
    /// The sender's fence epoch is not mine; if mine is the higher one, this began it.
    Fenced {
        epoch: Epoch,
        signed: Option<Box<SignedRecovery>>,
    },
    /// This replica has stopped, for instance because its disk failed.
    Stopped {
        why: String,
    },
    Introduced,
    Position(Position),
    Base {
        image: Option<Vec<u8>>,
    },
    /// The epoch was entered, or why it was not.
    Recovered {
        refusal: Option<String>,
    },
    /// [`crate::recovery::Lost`], as a JSON list.
    Lost {
        json: Vec<u8>,
    },
    /// It was done, or why it was not.
    Transferred {
        refusal: Option<String>,
    },
}

/// Who leads, as far as the one asked knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderHint {
    pub(crate) leader: Option<NodeName>,
    pub(crate) term: u64,
}

/// What became of a forwarded proposal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Proposed {
    /// Decided; an [`Outcome`] as JSON.
    Decided(Vec<u8>),
    /// Not appended: somebody else leads.
    NotLeader(LeaderHint),
    /// Not appended: the leader has no quorum; these voters do not answer.
    NoQuorum(Vec<NodeName>),
    /// Not appended: too many proposals wait, or this one is too large.
    Rejected(String),
    /// Appended, and not known to be committed in time.
    Unknown,
}

impl Proposed {
    pub(crate) fn decided(outcome: &Outcome) -> Self {
        match serde_json::to_vec(outcome) {
            Ok(json) => Self::Decided(json),
            // Committed, and only its outcome cannot be told.
            Err(_) => Self::Unknown,
        }
    }
}

/// Answer to [`Ask::ReadIndex`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ReadIndex {
    At(u64),
    NotLeader(LeaderHint),
    NoQuorum(Vec<NodeName>),
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    Ok(postcard::to_extend(message, vec![VERSION])?)
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    match bytes.split_first() {
        Some((&VERSION, body)) => Ok(postcard::from_bytes(body)?),
        Some((&other, _)) => Err(WireError::Version(other)),
        None => Err(WireError::Malformed(postcard::Error::DeserializeUnexpectedEnd)),
    }
}

/// Milliseconds for the wire.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use openraft::Vote;

    use super::*;

    #[test]
    fn messages_come_back() {
        let ask = Ask::Vote(VoteRequest::new(Vote::new(3, 7), None));
        let bytes = encode(&Request { epoch: 2, rtt_us: 5, quorum: true, ask }).expect("encodes");
        let back: Request = decode(&bytes).expect("decodes");
        assert_eq!(back.epoch, 2);
        assert!(matches!(back.ask, Ask::Vote(v) if v.vote == Vote::new(3, 7)));
    }
}
