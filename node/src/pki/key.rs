//! The key of a node.

use std::{fmt, path::Path};

use ed25519_dalek::{SigningKey, pkcs8::DecodePrivateKey};
use rcgen::{PKCS_ED25519, PublicKeyData, SignatureAlgorithm};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use selvedge_fabric::key::{PublicKey, Signature, Signer};
use zeroize::Zeroizing;

use super::{PkiError, pem, read_secret, write_secret};

/// DER in front of an Ed25519 private key (PKCS #8 version 1; RFC 8410, section 7).
const PKCS8_PREFIX: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

/// An Ed25519 key pair (RFC 8032): a node's identity in certificates, facts, gossip and addresses. The
/// recovery key of a fabric is one, too.
#[derive(Clone)]
pub struct NodeKey(SigningKey);

impl fmt::Debug for NodeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeKey({}, secret)", self.public_key())
    }
}

impl NodeKey {
    /// A new key.
    ///
    /// # Errors
    /// When the system gives no randomness.
    pub fn generate() -> Result<Self, PkiError> {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| PkiError::Random)?;
        Ok(Self(SigningKey::from_bytes(&seed)))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// When it is missing, exposed, or holds anything but one Ed25519 key.
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
        let failed = |why| PkiError::KeyFile { path: path.to_owned(), why };
        match pem::private_keys(&text).map_err(failed)?.as_slice() {
            [der] => Self::from_pkcs8(der).map(Some).map_err(failed),
            keys => Err(failed(format!("{} private keys instead of one", keys.len()))),
        }
    }

    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, String> {
        SigningKey::from_pkcs8_der(der).map(Self).map_err(|e| format!("not an Ed25519 key: {e}"))
    }

    /// Writes the key file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), PkiError> {
        write_secret(path, self.to_pem().as_bytes())
    }

    /// The key as PEM (PKCS #8).
    #[must_use]
    pub fn to_pem(&self) -> Zeroizing<String> {
        pem::encode("PRIVATE KEY", &self.to_pkcs8())
    }

    /// The secret seed, for a library that wants the key in its own form.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The key for TLS.
    pub(super) fn tls_key(&self) -> PrivateKeyDer<'static> {
        PrivatePkcs8KeyDer::from(self.to_pkcs8().to_vec()).into()
    }

    fn to_pkcs8(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new([&PKCS8_PREFIX[..], self.0.as_bytes()].concat())
    }
}

impl Signer for NodeKey {
    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    fn sign(&self, message: &[u8]) -> Signature {
        Signer::sign(&self.0, message)
    }
}

impl PublicKeyData for NodeKey {
    fn der_bytes(&self) -> &[u8] {
        AsRef::<ed25519_dalek::VerifyingKey>::as_ref(&self.0).as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for NodeKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        Ok(Signer::sign(&self.0, message).0.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_file_and_signs() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.key");
        let key = NodeKey::load_or_generate(&path).expect("made");
        let again = NodeKey::load_or_generate(&path).expect("read");
        assert_eq!(key.public_key(), again.public_key());
        let signature = Signer::sign(&again, b"fact");
        assert!(key.public_key().verifies(b"fact", &signature));
        assert!(!format!("{key:?}").contains(&format!("{:?}", key.seed())));
    }

    #[test]
    fn other_content_is_refused_by_name() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("node.key");
        let error = NodeKey::load(&path).expect_err("missing").to_string();
        assert!(error.contains("node.key"), "{error}");
        let two = [NodeKey::generate(), NodeKey::generate()].map(|key| key.expect("a key").to_pem());
        let p256 =
            rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key").serialize_pem();
        for content in [String::new(), "garbage".to_owned(), format!("{}{}", *two[0], *two[1]), p256] {
            write_secret(&path, content.as_bytes()).expect("written");
            assert!(matches!(NodeKey::load_or_generate(&path), Err(PkiError::KeyFile { .. })), "{content}");
        }
    }
}
