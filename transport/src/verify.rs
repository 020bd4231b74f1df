//! Verification of certificate chains: pinned root → issuing → leaf, by webpki.
//!
//! rustls' ready-made verifiers would do but for one thing: they refuse an expired leaf, and they do
//! not know the ALPN. A fabric that was switched off for months must come back by itself, so a node
//! with an expired certificate may ask for a new one. Hence the chain is verified here at the moment
//! of the leaf's validity that is nearest to now, and whether *now* lies within it is judged after the
//! handshake, by ALPN (see [`crate::judge`]). All else (signatures, basic constraints, path length,
//! extended key usage, the CAs' own validity at that moment) is webpki's.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use selvedge_fabric::key::Hash;
use webpki::{EndEntityCert, KeyUsage, anchor_from_trusted_cert};

use crate::{
    identity::{Leaf, LeafError, now_ms},
    tls::LocalIdentity,
};

/// Certificates between leaf and root that a peer may send; path building is quadratic in them.
const MAX_INTERMEDIATES: usize = 4;

/// Why a chain is not of this fabric.
#[derive(Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    #[error(transparent)]
    Leaf(#[from] LeafError),
    #[error("the certificate was not issued under this fabric's CA: {0}")]
    Chain(String),
    #[error("the peer sent {0} certificates; at most {MAX_INTERMEDIATES} may follow the leaf")]
    TooMany(usize),
    #[error("the seed's CA is not the one whose pin the join token holds")]
    Pin,
    #[error("{0} is not a processor, and only a processor may admit a node")]
    NotProcessor(String),
    #[error("the pinned root certificate is unusable: {0}")]
    Root(String),
}

/// In words, because rustls shows the `Debug` form of a verifier's error to people.
impl fmt::Debug for ChainError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<ChainError> for Error {
    fn from(error: ChainError) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// Verifies that `leaf` was issued for `usage` under `root`, disregarding whether it is valid now.
pub(crate) fn verify_chain(
    leaf_der: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    root: &CertificateDer<'_>,
    usage: KeyUsage,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<Leaf, ChainError> {
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(ChainError::TooMany(intermediates.len() + 1));
    }
    let leaf = Leaf::read(leaf_der)?;
    let anchor = anchor_from_trusted_cert(root).map_err(|e| ChainError::Root(e.to_string()))?;
    let chain_error = |e: webpki::Error| ChainError::Chain(e.to_string());
    let nearest_ms = now_ms().min(leaf.not_after_ms).max(leaf.not_before_ms);
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_millis(nearest_ms));
    EndEntityCert::try_from(leaf_der)
        .map_err(chain_error)?
        .verify_for_usage(algorithms.all, &[anchor], intermediates, time, usage, None, None)
        .map_err(chain_error)?;
    Ok(leaf)
}

/// Verifies peers of either side against the node's own credentials, as they are at that moment.
#[derive(Debug)]
pub(crate) struct PeerVerifier {
    pub(crate) identity: Arc<LocalIdentity>,
    pub(crate) provider: Arc<CryptoProvider>,
}

impl PeerVerifier {
    fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        sent: &[CertificateDer<'_>],
        usage: KeyUsage,
    ) -> Result<(), Error> {
        let ours = self.identity.current();
        let mut intermediates = sent.to_vec();
        intermediates.push(ours.issuing.clone());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_chain(leaf, &intermediates, &ours.root, usage, algorithms)?;
        Ok(())
    }
}

/// Verifies a seed for a node that knows nothing but the pin of the fabric's root.
#[derive(Debug)]
pub(crate) struct PinnedVerifier {
    pub(crate) pin: Hash,
    pub(crate) provider: Arc<CryptoProvider>,
}

/// The parts of a verifier that do not depend on whom it verifies. TLS 1.2 is never spoken.
macro_rules! tls13_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            _message: &[u8],
            _cert: &CertificateDer<'_>,
            _dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Err(Error::General("TLS 1.2 is not spoken here".to_owned()))
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            dss: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.provider.signature_verification_algorithms.supported_schemes()
        }
    };
}

impl ServerCertVerifier for PeerVerifier {
    /// The server name is a constant that says nothing; which node answered is judged afterwards.
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(end_entity, intermediates, KeyUsage::server_auth())?;
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!();
}

impl ClientCertVerifier for PeerVerifier {
    /// Optional here, because a joining node has none; demanded for every other ALPN afterwards.
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.verify(end_entity, intermediates, KeyUsage::client_auth())?;
        Ok(ClientCertVerified::assertion())
    }

    tls13_signatures!();
}

impl ServerCertVerifier for PinnedVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let root = intermediates.iter().find(|der| Hash::of(der) == self.pin).ok_or(ChainError::Pin)?;
        let algorithms = &self.provider.signature_verification_algorithms;
        let leaf = verify_chain(end_entity, intermediates, root, KeyUsage::server_auth(), algorithms)?;
        if !leaf.processor {
            return Err(ChainError::NotProcessor(leaf.node.to_string()).into());
        }
        Ok(ServerCertVerified::assertion())
    }

    tls13_signatures!();
}
