//! What two nodes say to each other about the records they have.
//!
//! One round of anti-entropy is two requests. The first carries one sum per bucket of the store (about
//! 2.5 KB whatever the size of the fabric) and is answered with the heads of the buckets that differ; the
//! second gives what the other lacks and asks for what it has newer. Both are bounded; what does not fit
//! is left to the next round, which begins with another bucket.

use selvedge_fabric::{
    record::Record,
    statement::{MAX_REVOCATIONS, SignedRevocation},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::store::{BUCKETS, Key, Rank};

/// Largest request or response, in bytes, as encoded.
pub const MAX_MESSAGE_BYTES: usize = 512 * 1024;
/// Most bytes of records in one message; leaves room for the rest of it.
pub const MAX_RECORDS_BYTES: usize = 256 * 1024;
/// Most heads in one answer; about 30 bytes each.
pub const MAX_HEADS: usize = 4_096;
/// Most records asked for at once.
pub const MAX_WANTED: usize = 4_096;

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The sums of the sender's buckets; the answer begins with bucket `from`.
    Sums {
        /// The bucket to begin with.
        from: u8,
        /// One per bucket.
        sums: Vec<u64>,
    },
    /// Here is what you lack; hand me these.
    Exchange {
        /// Records the sender has newer.
        give: Vec<Record>,
        /// Records it wants.
        want: Vec<Key>,
    },
    /// These keys were revoked by the recovery key.
    Revocations(Vec<SignedRevocation>),
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// The heads of whole buckets that differ.
    Heads(Vec<Bucket>),
    /// The records that were asked for, as many as fit.
    Records(Vec<Record>),
    /// The request was not understood.
    Refused,
    /// The revocations were looked at.
    Noted,
}

/// A bucket and the heads of all records in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// Its number.
    pub index: u8,
    /// What is in it.
    pub heads: Vec<(Key, Rank)>,
}

/// Why bytes are no message.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// Too long.
    #[error("{0} bytes exceed the {MAX_MESSAGE_BYTES} of a gossip message")]
    TooLong(usize),
    /// Not the expected encoding.
    #[error("malformed gossip message: {0}")]
    Malformed(#[from] postcard::Error),
    /// More of something than a message may hold.
    #[error("a gossip message holds {count} {what}, more than {limit}")]
    Bound {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// How many there may be.
        limit: usize,
    },
}

/// Encodes a message.
///
/// # Errors
/// When it is longer than a message may be.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, WireError> {
    let bytes = postcard::to_stdvec(message)?;
    if bytes.len() > MAX_MESSAGE_BYTES { Err(WireError::TooLong(bytes.len())) } else { Ok(bytes) }
}

/// Decodes a message.
///
/// # Errors
/// When it is longer than a message may be, or no message.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WireError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(WireError::TooLong(bytes.len()));
    }
    // postcard never reserves more than the input could fill, so lengths in it cannot exhaust memory.
    Ok(postcard::from_bytes(bytes)?)
}

impl Request {
    /// Checks the counts that the encoding itself does not bound.
    ///
    /// # Errors
    /// What there is too much of.
    pub fn check(&self) -> Result<(), WireError> {
        match self {
            Self::Sums { sums, .. } if sums.len() != BUCKETS => {
                Err(WireError::Bound { what: "sums", count: sums.len(), limit: BUCKETS })
            }
            Self::Exchange { want, .. } if want.len() > MAX_WANTED => {
                Err(WireError::Bound { what: "wanted records", count: want.len(), limit: MAX_WANTED })
            }
            Self::Revocations(list) if list.len() > MAX_REVOCATIONS => {
                Err(WireError::Bound { what: "revocations", count: list.len(), limit: MAX_REVOCATIONS })
            }
            Self::Sums { .. } | Self::Exchange { .. } | Self::Revocations(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_checked() {
        assert!(Request::Sums { from: 0, sums: vec![0; BUCKETS] }.check().is_ok());
        assert!(Request::Sums { from: 0, sums: vec![0; BUCKETS + 1] }.check().is_err());
        assert!(decode::<Request>(&vec![0; MAX_MESSAGE_BYTES + 1]).is_err());
    }
}
