//! Signing requests (PKCS #10, RFC 2986). They carry a key and the proof that its holder asks; the name
//! comes from the join token or the admission, never from the request.

use rcgen::{CertificateParams, DistinguishedName};
use selvedge_fabric::key::PublicKey;
use x509_parser::{certification_request::X509CertificationRequest, prelude::FromDer};

use super::{NodeKey, PkiError};

/// Largest signing request that is looked at, in bytes; ours have about 150.
pub const MAX_CSR_BYTES: usize = 4 << 10;

/// A signing request for `key`, DER.
///
/// # Errors
/// When it cannot be encoded, which no key that was made here does.
pub fn csr(key: &NodeKey) -> Result<Vec<u8>, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(key).map_err(|e| PkiError::Request(e.to_string()))?;
    Ok(request.der().to_vec())
}

/// The key of a signing request, which its holder proved to have.
///
/// # Errors
/// When the request is malformed, is not signed by its own key, or the key is not Ed25519.
pub fn csr_key(der: &[u8]) -> Result<PublicKey, PkiError> {
    let failed = |why: &str| PkiError::Request(why.to_owned());
    if der.len() > MAX_CSR_BYTES {
        return Err(failed("it is too large"));
    }
    let (rest, request) =
        X509CertificationRequest::from_der(der).map_err(|e| PkiError::Request(e.to_string()))?;
    if !rest.is_empty() {
        return Err(failed("something follows it"));
    }
    let spki = request.certification_request_info.subject_pki.raw;
    let key = PublicKey::from_spki_der(spki).ok_or_else(|| failed("its key is not an Ed25519 key"))?;
    request.verify_signature().map_err(|_| failed("it is not signed by its own key"))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::key::Signer;

    use super::*;

    #[test]
    fn a_request_proves_possession_of_its_key() {
        let key = NodeKey::generate().expect("a key");
        let request = csr(&key).expect("a request");
        assert_eq!(csr_key(&request).expect("valid"), key.public_key());
    }

    #[test]
    fn damaged_foreign_and_endless_requests_are_refused() {
        let key = NodeKey::generate().expect("a key");
        let request = csr(&key).expect("a request");
        for position in 0..request.len() {
            let mut damaged = request.clone();
            damaged[position] ^= 1;
            // What is not under the signature may change, but never the key.
            let found = csr_key(&damaged).ok();
            assert!(found.is_none() || found == Some(key.public_key()), "byte {position}");
        }
        for length in 0..request.len() {
            assert!(csr_key(&request[..length]).is_err(), "{length} bytes");
        }
        assert!(csr_key(&[request, vec![0]].concat()).is_err());
        assert!(csr_key(&vec![0x30; MAX_CSR_BYTES + 1]).is_err());
        let p256 = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
        let foreign = CertificateParams::default().serialize_request(&p256).expect("a request");
        assert!(csr_key(foreign.der()).is_err());
    }
}
