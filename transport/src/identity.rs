//! Who a certificate speaks of: the SPIFFE id and the key of a node.

use std::{net::SocketAddr, time::SystemTime};

use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use selvedge_fabric::{
    UnixMs,
    id::{Name, NodeName},
    key::PublicKey,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Organizational unit in the subject of a processor's certificate. Only a processor may answer a
/// joining node, which shows it the secret of its token before it knows any policy.
pub const PROCESSOR_UNIT: &str = "processor";
/// Organizational unit in the subject of a workload node's certificate.
pub const WORKLOAD_UNIT: &str = "workload";

/// What a node shows its peers, and what it measures them by.
#[derive(Debug)]
pub struct Credentials {
    /// The leaf, then the issuing certificate.
    pub chain: Vec<CertificateDer<'static>>,
    /// The node key (Ed25519, PKCS #8).
    pub key: PrivateKeyDer<'static>,
    /// The pinned root of the fabric.
    pub root: CertificateDer<'static>,
    /// The issuing certificate, so that a peer that sends only its leaf is understood.
    pub issuing: CertificateDer<'static>,
}

/// A peer whose certificate is of this fabric. That alone grants nothing: see [`crate::Gate`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its name, from `spiffe://<fabric>/node/<name>`.
    pub node: NodeName,
    /// Its key, of which it proved possession.
    pub key: PublicKey,
    /// The end of its certificate.
    pub not_after_ms: UnixMs,
    /// The address it was seen at.
    pub remote: SocketAddr,
    /// Whether the certificate had ended at the handshake. Only [`crate::Alpn::Renew`] gets here so.
    pub expired: bool,
}

/// The SPIFFE id of a node.
#[must_use]
pub fn spiffe_id(fabric: &Name, node: &NodeName) -> String {
    format!("spiffe://{fabric}/node/{node}")
}

/// Why a certificate is not that of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeafError {
    /// Not X.509.
    #[error("the certificate is malformed: {0}")]
    Malformed(String),
    /// No SPIFFE id, several, or one of another form.
    #[error("the certificate names no node: {0}")]
    SpiffeId(String),
    /// Node keys are Ed25519.
    #[error("the certificate's key is not an Ed25519 key")]
    Key,
}

/// What a node's certificate says. Nothing is verified by reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaf {
    /// The fabric it belongs to.
    pub fabric: Name,
    /// The node it speaks of.
    pub node: NodeName,
    /// The node's key.
    pub key: PublicKey,
    /// Begin of validity.
    pub not_before_ms: UnixMs,
    /// End of validity, inclusive.
    pub not_after_ms: UnixMs,
    /// Whether it was issued to a processor.
    pub processor: bool,
}

impl Leaf {
    /// Reads a certificate.
    ///
    /// # Errors
    /// When it is malformed or not a node's.
    pub fn read(der: &CertificateDer<'_>) -> Result<Self, LeafError> {
        let malformed = |e: &dyn std::fmt::Display| LeafError::Malformed(e.to_string());
        let (_, certificate) = X509Certificate::from_der(der).map_err(|e| malformed(&e))?;
        let (fabric, node) = read_spiffe_id(&certificate)?;
        let key = PublicKey::from_spki_der(certificate.public_key().raw).ok_or(LeafError::Key)?;
        let mut units = certificate.subject().iter_organizational_unit();
        let validity = certificate.validity();
        Ok(Self {
            fabric,
            node,
            key,
            not_before_ms: seconds_to_ms(validity.not_before.timestamp()),
            not_after_ms: seconds_to_ms(validity.not_after.timestamp()),
            processor: units.any(|unit| unit.as_str() == Ok(PROCESSOR_UNIT)),
        })
    }
}

/// The fabric and the node of the only URI name, which must be a SPIFFE id (its specification,
/// X.509-SVID section 2).
fn read_spiffe_id(certificate: &X509Certificate<'_>) -> Result<(Name, NodeName), LeafError> {
    let names = certificate.subject_alternative_name().map_err(|e| LeafError::Malformed(e.to_string()))?;
    let mut uris = names.iter().flat_map(|names| &names.value.general_names).filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return Err(LeafError::SpiffeId("it must hold exactly one URI name".to_owned()));
    };
    let parts = uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once("/node/"));
    let (fabric, node) =
        parts.ok_or_else(|| LeafError::SpiffeId(format!("{uri:?} is not spiffe://<fabric>/node/<name>")))?;
    let name = |text| Name::new(text).map_err(|e| LeafError::SpiffeId(e.to_string()));
    Ok((name(fabric)?, name(node)?))
}

/// Times before 1970 count as 1970.
fn seconds_to_ms(seconds: i64) -> UnixMs {
    UnixMs::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}

/// The wall clock.
pub(crate) fn now_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{TestCa, public_key};

    #[test]
    fn a_leaf_says_who_and_what() {
        let (ca, key) = (TestCa::new("test"), TestCa::node_key());
        let shown = ca.credentials_with(&ca.leaf("p1"), &key);
        let leaf = Leaf::read(&shown.chain[0]).unwrap();
        assert_eq!((leaf.fabric.as_str(), leaf.node.as_str()), ("test", "p1"));
        assert_eq!((leaf.key, leaf.processor), (public_key(&key), true));
        assert!(Leaf::read(&shown.issuing).is_err(), "a CA is no node");
    }
}
