//! The replicated state as the bytes of a snapshot.
//!
//! A format byte, the length of the voter history, the history as JSON, and the policy in its own
//! format, which says its version itself.

use selvedge_fabric::{key::Hash, policy::PolicyState};

use crate::voters::VoterHistory;

/// Version of what surrounds the policy.
const FORMAT: u8 = 1;
/// Bytes of the length.
const LENGTH_BYTES: usize = 4;

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    #[error("snapshot format {0} is not known to this version; it knows {FORMAT}: install a newer selvedge")]
    Format(u8),
    #[error("the snapshot ends too early")]
    Short,
    #[error("the voters in the snapshot are damaged: {0}")]
    Voters(#[from] serde_json::Error),
    #[error(transparent)]
    Policy(#[from] selvedge_fabric::policy::DecodeError),
}

pub(crate) fn encode(policy: &PolicyState, voters: &VoterHistory) -> Vec<u8> {
    // Cannot fail: sets of keys under no map. If it ever did, `decode` refuses the empty text.
    let history = serde_json::to_vec(voters).unwrap_or_default();
    let length = u32::try_from(history.len()).unwrap_or(u32::MAX).to_be_bytes();
    [&[FORMAT][..], &length, &history, &policy.encode()].concat()
}

/// Stands for the state in a recovery: equal on all replicas that applied the same log.
pub(crate) fn hash(policy: &PolicyState, voters: &VoterHistory) -> Hash {
    Hash::of(&encode(policy, voters))
}

pub(crate) fn decode(bytes: &[u8]) -> Result<(PolicyState, VoterHistory), ImageError> {
    let (&format, rest) = bytes.split_first().ok_or(ImageError::Short)?;
    if format != FORMAT {
        return Err(ImageError::Format(format));
    }
    let (length, rest) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or(ImageError::Short)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| ImageError::Short)?;
    let (history, policy) = rest.split_at_checked(length).ok_or(ImageError::Short)?;
    Ok((PolicyState::decode(policy)?, serde_json::from_slice(history)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back() {
        let policy = PolicyState { revision: 7, ..PolicyState::default() };
        let (back, voters) = decode(&encode(&policy, &VoterHistory::default())).expect("decodes");
        assert_eq!((back, voters), (policy, VoterHistory::default()));
    }
}
