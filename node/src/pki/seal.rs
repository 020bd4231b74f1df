//! Secrets for one node: HPKE (RFC 9180) in base mode with X25519, HKDF-SHA256 and AES-256-GCM.
//!
//! The issuing key must reach every processor through the log and its snapshots, which are copied,
//! backed up and looked at; there it is a ciphertext that only its processor can open.

use std::{fmt, path::Path};

use aws_lc_rs::agreement::{PrivateKey, X25519};
use rustls::crypto::{
    aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256,
    hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey},
};
use selvedge_fabric::{command::SealedSecret, key::PublicKey};
use zeroize::Zeroizing;

use super::{PkiError, pem, read_secret, write_secret};

/// DER in front of an X25519 private key (PKCS #8; RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x6e, 4, 0x22, 4, 0x20];
/// What is sealed, so that no other protocol's ciphertext passes for one of ours.
const INFO: &[u8] = b"selvedge issuing key 1";

/// An X25519 key pair, to which secrets for this node are sealed. It is not the node key: that one
/// signs, and a key should do one thing.
#[derive(Clone)]
pub struct SealingKey {
    secret: Zeroizing<[u8; 32]>,
    public: PublicKey,
}

impl fmt::Debug for SealingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealingKey({}, secret)", self.public)
    }
}

impl SealingKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        let mut secret = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(secret.as_mut_slice()).map_err(|_| PkiError::Random)?;
        Self::from_secret(secret).ok_or(PkiError::Random)
    }

    /// `None` for a secret that gives no public key, which 32 random bytes always do.
    fn from_secret(secret: Zeroizing<[u8; 32]>) -> Option<Self> {
        let private = PrivateKey::from_private_key(&X25519, secret.as_slice()).ok()?;
        let public = private.compute_public_key().ok()?.as_ref().try_into().ok()?;
        Some(Self { secret, public: PublicKey(public) })
    }

    /// The public half, which is part of the node's admission.
    #[must_use]
    pub const fn public_key(&self) -> PublicKey {
        self.public
    }

    /// The secret half, for the overlay's handshakes.
    #[must_use]
    pub fn secret(&self) -> Zeroizing<[u8; 32]> {
        self.secret.clone()
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When it is missing, exposed, or holds anything but one X25519 key.
    pub fn load(path: &Path) -> Result<Self, PkiError> {
        let missing = || PkiError::KeyFile { path: path.to_owned(), why: "there is no such file".to_owned() };
        Self::load_optional(path)?.ok_or_else(missing)
    }

    /// Reads a key file, or makes one with a new key when there is none.
    ///
    /// # Errors
    /// As [`Self::load`], or when it cannot be written.
    pub fn load_or_generate(path: &Path) -> Result<Self, PkiError> {
        if let Some(key) = Self::load_optional(path)? {
            return Ok(key);
        }
        let key = Self::generate()?;
        key.save(path)?;
        Ok(key)
    }

    fn load_optional(path: &Path) -> Result<Option<Self>, PkiError> {
        let Some(text) = read_secret(path)? else { return Ok(None) };
        let failed = |why: &str| PkiError::KeyFile { path: path.to_owned(), why: why.to_owned() };
        let keys = pem::private_keys(&text).map_err(|e| failed(&e))?;
        let [der] = keys.as_slice() else { return Err(failed("not exactly one private key")) };
        let secret = der.strip_prefix(&PKCS8_PREFIX).and_then(|rest| <[u8; 32]>::try_from(rest).ok());
        let key = secret.and_then(|secret| Self::from_secret(Zeroizing::new(secret)));
        key.map(Some).ok_or_else(|| failed("not an X25519 key"))
    }

    /// Writes the key file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PkiError> {
        let der = Zeroizing::new([&PKCS8_PREFIX[..], &self.secret[..]].concat());
        write_secret(path, pem::encode("PRIVATE KEY", &der).as_bytes())
    }

    /// Opens what was sealed to this key for `purpose`.
    ///
    /// # Errors
    /// When it was sealed to another key or for another purpose, or is damaged.
    pub fn open(&self, purpose: &[u8], sealed: &SealedSecret) -> Result<Zeroizing<Vec<u8>>, PkiError> {
        let encapsulated = EncapsulatedSecret(sealed.encapsulated.clone());
        let key = HpkePrivateKey::from(self.secret.to_vec());
        DH_KEM_X25519_HKDF_SHA256_AES_256
            .open(&encapsulated, INFO, purpose, &sealed.ciphertext, &key)
            .map(Zeroizing::new)
            .map_err(|_| PkiError::Open)
    }
}

/// Seals a secret to a node's sealing key, for `purpose` (authenticated, not secret).
///
/// # Errors
/// When the key is no X25519 key that can be sealed to.
pub fn seal_to(recipient: &PublicKey, purpose: &[u8], secret: &[u8]) -> Result<SealedSecret, PkiError> {
    let recipient = HpkePublicKey(recipient.0.to_vec());
    let (encapsulated, ciphertext) = DH_KEM_X25519_HKDF_SHA256_AES_256
        .seal(INFO, purpose, secret, &recipient)
        .map_err(|e| PkiError::Seal(e.to_string()))?;
    Ok(SealedSecret { encapsulated: encapsulated.0, ciphertext })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_recipient_opens_and_only_for_the_purpose() {
        let (ours, other) = (SealingKey::generate().expect("a key"), SealingKey::generate().expect("a key"));
        let sealed = seal_to(&ours.public_key(), b"a", b"the issuing key").expect("sealed");
        assert_eq!(ours.open(b"a", &sealed).expect("opened").as_slice(), b"the issuing key");
        assert!(ours.open(b"b", &sealed).is_err());
        assert!(other.open(b"a", &sealed).is_err());
        for position in 0..sealed.ciphertext.len() {
            let mut damaged = sealed.clone();
            damaged.ciphertext[position] ^= 1;
            assert!(ours.open(b"a", &damaged).is_err());
        }
        let empty = SealedSecret { encapsulated: Vec::new(), ciphertext: Vec::new() };
        assert!(ours.open(b"a", &empty).is_err());
        assert!(!String::from_utf8_lossy(&sealed.ciphertext).contains("issuing"));
    }

    #[test]
    fn a_low_order_key_is_not_sealed_to() {
        assert!(seal_to(&PublicKey([0; 32]), b"a", b"secret").is_err());
    }

    #[test]
    fn a_key_survives_its_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sealing.key");
        let key = SealingKey::load_or_generate(&path).expect("made");
        assert_eq!(SealingKey::load(&path).expect("read").public_key(), key.public_key());
        assert!(super::super::NodeKey::load(&path).is_err(), "a sealing key is not a node key");
        let text = format!("{key:?}");
        assert!(text.ends_with(", secret)"), "{text}");
    }
}
