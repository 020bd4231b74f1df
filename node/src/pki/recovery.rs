//! The file that leaves the machine after `fabric init`: root key and recovery key.
//!
//! The root key can replace the issuing CA; the recovery key can declare that a quorum is lost for
//! good. Neither is needed in daily life, so neither should be where daily life can lose it.

use std::path::Path;

use selvedge_fabric::id::Name;
use zeroize::Zeroizing;

use super::{NodeKey, PkiError, pem, read_secret, write_secret};

/// Writes root key (PEM) and recovery key of a fabric into one file.
///
/// # Errors
/// When it cannot be written.
pub fn write_recovery_file(
    path: &Path,
    fabric: &Name,
    root_key_pem: &str,
    recovery_key: &NodeKey,
) -> Result<(), PkiError> {
    let recovery_key_pem = recovery_key.to_pem();
    let text = Zeroizing::new(format!(
        "Root key (first) and recovery key (second) of the fabric {fabric}.\n\
         Move this file offline: whoever has it can replace the fabric's certificate authority\n\
         and take the fabric over. Without it, a fabric that lost its quorum for good stays lost.\n\n\
         {root_key_pem}\n{}",
        recovery_key_pem.as_str()
    ));
    write_secret(path, text.as_bytes())
}

/// Reads the recovery key: the Ed25519 key of the file.
///
/// # Errors
/// When the file is missing, exposed, or holds no Ed25519 key, or several.
pub fn read_recovery_key(path: &Path) -> Result<NodeKey, PkiError> {
    let failed = |why: String| PkiError::KeyFile { path: path.to_owned(), why };
    let text = read_secret(path)?.ok_or_else(|| failed("there is no such file".to_owned()))?;
    let keys = pem::private_keys(&text).map_err(failed)?;
    let mut ed25519 = keys.iter().filter_map(|der| NodeKey::from_pkcs8(der).ok());
    match (ed25519.next(), ed25519.next()) {
        (Some(key), None) => Ok(key),
        _ => Err(failed("it should hold exactly one Ed25519 key".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::key::Signer;

    use super::*;
    use crate::pki::create_fabric_ca;

    #[test]
    fn the_recovery_key_comes_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("recovery.key");
        let fabric = Name::new("test").expect("a name");
        let (ca, key) = (create_fabric_ca(&fabric).expect("a CA"), NodeKey::generate().expect("a key"));
        assert!(read_recovery_key(&path).is_err());
        write_recovery_file(&path, &fabric, &ca.root_key_pem, &key).expect("written");
        assert_eq!(read_recovery_key(&path).expect("read").public_key(), key.public_key());
    }
}
