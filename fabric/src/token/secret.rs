//! Bytes that must not be shown.

use std::fmt;

use serde::{Deserialize, Serialize, Serializer, ser::Error};

use crate::key::Hash;

/// 256 secret bits. Neither `Debug` nor any text format shows them: only the binary encoding within a
/// token's text holds them, so that a token cannot slip into a log or an answer of the API as JSON.
#[derive(Clone, Deserialize)]
pub struct Secret([u8; 32]);

impl Secret {
    /// Takes random bytes, or an Ed25519 seed.
    #[must_use]
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// SHA-256 of the bytes: what intent holds instead of them.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::of(&self.0)
    }

    /// Whether this is the secret with the given hash, in time that does not depend on where two hashes
    /// differ.
    #[must_use]
    pub fn matches(&self, hash: &Hash) -> bool {
        let differing = self.hash().0.iter().zip(hash.0).fold(0, |acc, (a, b)| acc | (a ^ b));
        differing == 0
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        if s.is_human_readable() {
            return Err(S::Error::custom("a secret is not written as text; expose the token instead"));
        }
        self.0.serialize(s)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.hash())
    }
}

impl Eq for Secret {}
