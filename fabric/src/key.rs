//! Keys, signatures and the ids made from them.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ed25519_dalek::{Verifier, VerifyingKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

use crate::id::IdError;

/// DER prefix of an Ed25519 `SubjectPublicKeyInfo` (RFC 8410, section 4).
const ED25519_SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Fixed-size bytes that are base64url text in human-readable formats and raw bytes elsewhere.
macro_rules! bytes_type {
    ($(#[$doc:meta])* $name:ident, $len:expr, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&URL_SAFE_NO_PAD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($what, ":{}"), self)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                let bad = |why: String| IdError::Encoding { what: $what, text: text.to_owned(), why };
                let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|e| bad(e.to_string()))?;
                let array = bytes.try_into().map_err(|b: Vec<u8>| {
                    bad(format!("{} bytes instead of {}", b.len(), $len))
                })?;
                Ok(Self(array))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                if s.is_human_readable() {
                    s.collect_str(self)
                } else {
                    s.serialize_bytes(&self.0)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                if d.is_human_readable() {
                    String::deserialize(d)?.parse().map_err(de::Error::custom)
                } else {
                    let bytes = Vec::<u8>::deserialize(d)?;
                    let array = bytes.try_into().map_err(|_| de::Error::custom(concat!("wrong length of ", $what)))?;
                    Ok(Self(array))
                }
            }
        }
    };
}

bytes_type!(
    /// Public half of an Ed25519 key pair (RFC 8032): of a node, a service token or the recovery key.
    PublicKey, 32, "key"
);
bytes_type!(
    /// An Ed25519 signature.
    Signature, 64, "signature"
);
bytes_type!(
    /// SHA-256 of something.
    Hash, 32, "hash"
);
bytes_type!(
    /// Random id of a fabric, made once by `fabric init`.
    FabricId, 16, "fabric"
);
bytes_type!(
    /// Random id of a token; it is public, the secret is elsewhere.
    TokenId, 9, "token"
);
bytes_type!(
    /// Random id of a command; a repeated one is applied once.
    CommandId, 16, "command"
);

impl PublicKey {
    /// The key as DER `SubjectPublicKeyInfo`, the form that CGAs and certificates use.
    #[must_use]
    pub fn spki_der(&self) -> Vec<u8> {
        [&ED25519_SPKI_PREFIX[..], &self.0].concat()
    }

    /// Reads an Ed25519 `SubjectPublicKeyInfo`; `None` for any other algorithm.
    #[must_use]
    pub fn from_spki_der(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&ED25519_SPKI_PREFIX)?.try_into().ok().map(Self)
    }

    /// Whether `signature` over `message` was made with this key. Small-order keys verify nothing.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&self.0) else { return false };
        !key.is_weak() && key.verify(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }

    /// The id that Raft and failure detection use for the node with this key.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        let digest = Sha256::digest(self.spki_der());
        NodeId(u64::from_be_bytes(std::array::from_fn(|i| digest[i])))
    }
}

impl Hash {
    /// SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

/// First 64 bits of the SHA-256 of a node's `SubjectPublicKeyInfo`. A node with a new key is another
/// node, so a reinstalled machine can never vote with a forgotten log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Something that can sign for a node. The key itself stays with `node`.
pub trait Signer: Send + Sync {
    /// The public half.
    fn public_key(&self) -> PublicKey;
    /// Signs `message`.
    fn sign(&self, message: &[u8]) -> Signature;
}

impl Signer for ed25519_dalek::SigningKey {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.verifying_key().to_bytes())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signature(ed25519_dalek::Signer::sign(self, message).to_bytes())
    }
}
