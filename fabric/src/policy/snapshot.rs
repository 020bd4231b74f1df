//! The state as bytes, for snapshots and for the copy that a node keeps on disk.
//!
//! JSON, because it must outlive versions: a field that a newer version added is skipped, one that an
//! older version lacked gets its default. What must not be skipped raises [`SNAPSHOT_FORMAT`].

use serde::{Deserialize, Serialize};

use super::PolicyState;

/// Version of the snapshot format.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// Why bytes are no policy state.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// They are no snapshot, or a damaged one.
    #[error(
        "the policy snapshot is damaged: {0}; remove it, the node fetches the policy again from its peers"
    )]
    Malformed(String),
    /// A newer version wrote them.
    #[error(
        "the policy snapshot has format {found}, this version reads up to {SNAPSHOT_FORMAT}: run the newer version"
    )]
    Format {
        /// The format it has.
        found: u32,
    },
}

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    state: &'a PolicyState,
}

/// Read first: a newer format need not have a state that this version can read.
#[derive(Deserialize)]
struct Header {
    format: u32,
}

#[derive(Deserialize)]
struct Read {
    state: PolicyState,
}

impl PolicyState {
    /// The state as bytes. Holds the sealed issuing keys and the hashes of token secrets: mode 0600.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        // Every map of the state has keys that JSON can hold, so this has no way to fail; if it ever
        // did, an empty snapshot is refused by `decode`.
        serde_json::to_vec(&Written { format: SNAPSHOT_FORMAT, state: self }).unwrap_or_default()
    }

    /// Reads what [`PolicyState::encode`] wrote, also when another version did.
    ///
    /// # Errors
    /// When the bytes are damaged or of a newer format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let malformed = |e: serde_json::Error| DecodeError::Malformed(e.to_string());
        let Header { format } = serde_json::from_slice(bytes).map_err(malformed)?;
        if format != SNAPSHOT_FORMAT {
            return Err(DecodeError::Format { found: format });
        }
        serde_json::from_slice(bytes).map(|Read { state }| state).map_err(malformed)
    }
}
