//! What leaves the fabric as a file: encrypted, with a passphrase or the recovery key.
//!
//! The file begins with a line that says what it is, and a header in clear that says how its key is made; the
//! rest is AES-256-GCM, and the header is authenticated with it. A passphrase becomes a key by PBKDF2 with
//! HMAC-SHA256 (RFC 8018), the recovery key by HKDF with SHA-256 (RFC 5869), each with a salt of its own, so
//! no key is ever used for two files. The header also holds a value by which a wrong key is told from a damaged
//! file, and the length, by which a file that was cut short is.

use std::num::NonZeroU32;

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey},
    hkdf, pbkdf2,
};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::NodeKey;
use crate::files::base64_bytes;

/// The first line.
const MAGIC: &[u8] = b"selvedge snapshot 1\n";
/// Iterations of PBKDF2 for new files; OWASP's advice of 2023 for HMAC-SHA256.
const ITERATIONS: u32 = 600_000;
/// Iterations that a file may ask for: fewer are no protection, more hold up who opens it.
const ITERATIONS_ALLOWED: std::ops::RangeInclusive<u32> = 100_000..=10_000_000;
/// Shortest passphrase.
pub const MIN_PASSPHRASE_BYTES: usize = 12;
/// Largest header.
const MAX_HEADER_BYTES: usize = 4_096;
const SALT_BYTES: usize = 32;
const CHECK_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;

/// What opens a file.
pub enum VaultKey {
    /// Something that people know.
    Passphrase(Zeroizing<String>),
    /// The fabric's recovery key.
    Recovery(NodeKey),
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    /// Iterations of PBKDF2; none when the key is the recovery key.
    iterations: Option<u32>,
    #[serde(with = "base64_bytes")]
    salt: Vec<u8>,
    #[serde(with = "base64_bytes")]
    check: Vec<u8>,
    /// Of the plaintext.
    bytes: usize,
}

/// Why a file cannot be made or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Not of ours.
    #[error("it is no snapshot of this version of selvedge")]
    Foreign,
    /// It ends too early.
    #[error("it is cut short: {have} of {expected} bytes are there; copy it again")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        expected: usize,
    },
    /// It was made for the other kind of key.
    #[error("it was encrypted with {0}: give that")]
    OtherKind(&'static str),
    /// The key is another one.
    #[error("the {0} is not the one it was encrypted with")]
    WrongKey(&'static str),
    /// Bytes of it have changed.
    #[error("it is damaged: {0}")]
    Damaged(&'static str),
    /// Too short a passphrase.
    #[error("the passphrase has fewer than {MIN_PASSPHRASE_BYTES} bytes: take a longer one")]
    WeakPassphrase,
    /// The system.
    #[error("the system gives no randomness")]
    Random,
}

impl VaultKey {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::Recovery(_) => "recovery key",
        }
    }

    /// The key of a file and the value that tells it from others.
    fn derive(&self, header: &Header) -> Result<(Zeroizing<[u8; 32]>, [u8; CHECK_BYTES]), VaultError> {
        let mut master = Zeroizing::new([0; 32]);
        match (self, header.iterations) {
            (Self::Passphrase(words), Some(iterations)) => {
                let iterations = Some(iterations).filter(|i| ITERATIONS_ALLOWED.contains(i));
                let iterations = iterations.and_then(NonZeroU32::new);
                let iterations =
                    iterations.ok_or(VaultError::Damaged("an impossible number of iterations"))?;
                let algorithm = pbkdf2::PBKDF2_HMAC_SHA256;
                pbkdf2::derive(algorithm, iterations, &header.salt, words.as_bytes(), master.as_mut_slice());
            }
            (Self::Recovery(key), None) => expand(&header.salt, key.seed().as_slice(), b"key", &mut *master)?,
            (Self::Passphrase(_), None) => return Err(VaultError::OtherKind("the recovery key")),
            (Self::Recovery(_), Some(_)) => return Err(VaultError::OtherKind("a passphrase")),
        }
        let (mut key, mut check) = (Zeroizing::new([0; 32]), [0; CHECK_BYTES]);
        expand(&header.salt, &*master, b"contents", &mut *key)?;
        expand(&header.salt, &*master, b"check", &mut check)?;
        Ok((key, check))
    }
}

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand(salt: &[u8], secret: &[u8], what: &[u8], out: &mut [u8]) -> Result<(), VaultError> {
    let info: [&[u8]; 2] = [b"selvedge snapshot ", what];
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(secret);
    let expanded = extracted.expand(&info, Length(out.len())).and_then(|okm| okm.fill(out));
    expanded.map_err(|_| VaultError::Damaged("an impossible key length"))
}

/// Encrypts.
///
/// # Errors
/// When the passphrase is too short, or the system gives no randomness.
pub fn seal(key: &VaultKey, plaintext: &[u8]) -> Result<Vec<u8>, VaultError> {
    let iterations = match key {
        VaultKey::Passphrase(words) if words.len() < MIN_PASSPHRASE_BYTES => {
            return Err(VaultError::WeakPassphrase);
        }
        VaultKey::Passphrase(_) => Some(ITERATIONS),
        VaultKey::Recovery(_) => None,
    };
    let mut salt = vec![0; SALT_BYTES];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| VaultError::Random)?;
    let mut header = Header { iterations, salt, check: Vec::new(), bytes: plaintext.len() };
    let (secret, check) = key.derive(&header)?;
    header.check = check.to_vec();
    let text = serde_json::to_vec(&header).unwrap_or_default(); // Plain data.
    let mut file = MAGIC.to_vec();
    file.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    file.extend_from_slice(&text);
    let aead = RandomizedNonceKey::new(&AES_256_GCM, secret.as_slice()).map_err(|_| VaultError::Random)?;
    let mut contents = plaintext.to_vec();
    let nonce =
        aead.seal_in_place_append_tag(Aad::from(&file), &mut contents).map_err(|_| VaultError::Random)?;
    file.extend_from_slice(nonce.as_ref());
    file.extend_from_slice(&contents);
    Ok(file)
}

/// Decrypts.
///
/// # Errors
/// What is wrong with the file or the key.
pub fn open(key: &VaultKey, file: &[u8]) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    let rest = file.strip_prefix(MAGIC).ok_or(VaultError::Foreign)?;
    let short = |expected| VaultError::Short { have: file.len(), expected };
    let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| short(MAGIC.len() + 4))?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    if length > MAX_HEADER_BYTES {
        return Err(VaultError::Damaged("its header is too long"));
    }
    let clear = MAGIC.len() + 4 + length;
    let (text, rest) = rest.split_at_checked(length).ok_or_else(|| short(clear))?;
    let header: Header =
        serde_json::from_slice(text).map_err(|_| VaultError::Damaged("its header is unreadable"))?;
    let expected = header.bytes.checked_add(clear + NONCE_BYTES + TAG_BYTES);
    let expected = expected.ok_or(VaultError::Damaged("its header gives an impossible length"))?;
    if file.len() < expected {
        return Err(short(expected));
    }
    let (secret, check) = key.derive(&header)?;
    if check[..] != header.check[..] {
        return Err(VaultError::WrongKey(key.kind()));
    }
    let (nonce, contents) = rest.split_first_chunk::<NONCE_BYTES>().ok_or_else(|| short(expected))?;
    let aead = RandomizedNonceKey::new(&AES_256_GCM, secret.as_slice())
        .map_err(|_| VaultError::Damaged("an impossible key"))?;
    let mut contents = Zeroizing::new(contents.to_vec());
    let opened = aead
        .open_in_place(Nonce::from(nonce), Aad::from(&file[..clear]), &mut contents)
        .map_err(|_| VaultError::Damaged("its contents do not match their seal"))?;
    let bytes = opened.len();
    contents.truncate(bytes);
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use selvedge_fuzz::fuzz;

    use super::*;

    fn words(text: &str) -> VaultKey {
        VaultKey::Passphrase(Zeroizing::new(text.to_owned()))
    }

    #[test]
    fn what_was_sealed_is_opened_by_the_same_key_alone() {
        let recovery = NodeKey::generate().expect("a key");
        let keys = [words("a long passphrase"), VaultKey::Recovery(recovery)];
        for key in &keys {
            let file = seal(key, b"the whole intent").expect("sealed");
            assert!(!file.windows(6).any(|w| w == b"intent"), "in clear");
            assert_eq!(open(key, &file).expect("opened").as_slice(), b"the whole intent");
            assert_ne!(seal(key, b"the whole intent").expect("sealed"), file, "never the same key twice");
        }
        let by_words = seal(&keys[0], b"x").expect("sealed");
        let by_key = seal(&keys[1], b"x").expect("sealed");
        assert_eq!(open(&keys[1], &by_words), Err(VaultError::OtherKind("a passphrase")));
        assert_eq!(open(&keys[0], &by_key), Err(VaultError::OtherKind("the recovery key")));
        assert_eq!(open(&words("another passphrase"), &by_words), Err(VaultError::WrongKey("passphrase")));
        let other = VaultKey::Recovery(NodeKey::generate().expect("a key"));
        assert_eq!(open(&other, &by_key), Err(VaultError::WrongKey("recovery key")));
        assert_eq!(seal(&words("short"), b"x"), Err(VaultError::WeakPassphrase));
    }

    #[test]
    fn damage_and_truncation_are_told_apart() {
        let key = VaultKey::Recovery(NodeKey::generate().expect("a key"));
        let file = seal(&key, b"the whole intent").expect("sealed");
        for end in MAGIC.len()..file.len() {
            assert!(matches!(open(&key, &file[..end]), Err(VaultError::Short { .. })), "{end}");
        }
        assert_eq!(open(&key, b"apiVersion: selvedge/v1"), Err(VaultError::Foreign));
        for at in 0..file.len() {
            let mut altered = file.clone();
            altered[at] ^= 1;
            assert!(open(&key, &altered).is_err(), "byte {at}");
        }
        let mut longer = file;
        longer.push(0);
        assert!(matches!(open(&key, &longer), Err(VaultError::Damaged(_))));
    }

    #[test]
    fn hostile_files_are_refused() {
        let key = VaultKey::Recovery(NodeKey::generate().expect("a key"));
        let genuine = seal(&key, b"the whole intent").expect("sealed");
        fuzz("snapshot files", std::slice::from_ref(&genuine), |bytes| {
            assert!(open(&key, bytes).is_err() || bytes == genuine);
        });
    }
}
