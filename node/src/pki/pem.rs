//! PEM text (RFC 7468).

use base64::{Engine, engine::general_purpose::STANDARD};
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use zeroize::Zeroizing;

/// Characters in a line (RFC 7468, section 2).
const LINE_CHARS: usize = 64;

/// DER as PEM.
pub(super) fn encode(label: &str, der: &[u8]) -> Zeroizing<String> {
    let text = Zeroizing::new(STANDARD.encode(der));
    // Sized beforehand: a string that grows leaves copies of a secret behind.
    let mut pem = Zeroizing::new(String::with_capacity(text.len() * 2 + 2 * label.len() + 64));
    pem.push_str("-----BEGIN ");
    pem.push_str(label);
    pem.push_str("-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
        pem.push_str(line);
        pem.push('\n');
        rest = after;
    }
    pem.push_str("-----END ");
    pem.push_str(label);
    pem.push_str("-----\n");
    pem
}

/// The DER of all private keys (PKCS #8) in a text; what stands between them is passed over.
pub(super) fn private_keys(text: &[u8]) -> Result<Vec<Zeroizing<Vec<u8>>>, String> {
    PrivatePkcs8KeyDer::pem_slice_iter(text)
        .map(|key| key.map(|key| Zeroizing::new(key.secret_pkcs8_der().to_vec())).map_err(|e| e.to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_read_again() {
        for length in [1, 47, 48, 49, 200] {
            let der = vec![0x5a; length];
            let text = format!("a word before\n{}", *encode("PRIVATE KEY", &der));
            assert_eq!(private_keys(text.as_bytes()).expect("PEM"), vec![Zeroizing::new(der)]);
        }
        assert_eq!(private_keys(b"no PEM at all").expect("nothing"), Vec::new());
    }
}
