//! How a workload node follows the policy without a replica.
//!
//! It asks processors of its choice for policy bundles and takes only what a majority of the voters
//! signed ([`selvedge_fabric::statement`]), so it need not trust whom it asks. The newest bundle is kept
//! on disk: the node starts and enforces with no processor reachable at all. The same two processors
//! vouch for it towards the others, because it may sit behind a translator of addresses where nobody
//! can probe it.
//!
//! * [`follower`]: what is known and verified, and its copy on disk;
//! * [`poll`]: whom to ask, and when to ask somebody else;
//! * [`serve`]: the processor's side;
//! * [`source`]: replica or follower, behind one face.

pub mod follower;
pub mod poll;
pub mod serve;
pub mod source;
#[cfg(test)]
mod tests;

use selvedge_fabric::{Epoch, Revision, id::NodeName};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

pub use follower::{FollowError, Follower};
pub use source::PolicySource;

/// Version of these messages, their first byte.
const VERSION: u8 = 1;

/// What a workload node asks a processor, under `Alpn::Fabric`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    /// The policy with its proof, if it is newer than this under fence epoch 0 or of a higher one; wait for
    /// one for so long.
    Policy {
        /// The revision it has.
        have: Revision,
        /// The set of voters it trusts.
        voters: u64,
        /// Longest wait.
        wait_ms: u64,
    },
    /// I live: vouch for me.
    Alive {
        /// Which start of it.
        incarnation: u64,
    },
    /// The revision up to which a linearizable read must see.
    Barrier {
        /// Longest wait.
        within_ms: u64,
    },
    /// [`Ask::Policy`] of a node that follows a fence epoch above 0.
    PolicyOf {
        /// The epoch it follows.
        epoch: Epoch,
        /// The revision it has.
        have: Revision,
        /// The set of voters it trusts.
        voters: u64,
        /// Longest wait.
        wait_ms: u64,
    },
}

/// What the processor answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// A newer policy, if there is one, and how writes fare.
    Policy {
        /// [`selvedge_fabric::statement::Bundle`], encoded.
        bundle: Option<Vec<u8>>,
        /// What the processor knows of the quorum.
        quorum: QuorumWord,
    },
    /// It will.
    Vouched,
    /// See up to here.
    Barrier(Revision),
}

/// What a processor says of the quorum. Only shown to people, and taken as a sign that the policy is
/// current; nothing is granted by it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QuorumWord {
    pub(crate) leader: Option<NodeName>,
    pub(crate) term: u64,
    pub(crate) quorum: bool,
    pub(crate) missing: Vec<NodeName>,
    pub(crate) survives: Vec<String>,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    // Cannot fail: bytes, integers, text and lists of them. An empty message is refused by `decode`.
    postcard::to_extend(message, vec![VERSION]).unwrap_or_default()
}

pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    match bytes.split_first() {
        Some((&VERSION, body)) => postcard::from_bytes(body).map_err(|e| format!("malformed message: {e}")),
        Some((&other, _)) => {
            Err(format!("message version {other} is not spoken here: upgrade the older node"))
        }
        None => Err("an empty message".to_owned()),
    }
}
