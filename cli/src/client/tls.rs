//! TLS pinned to the fabric's root.
//!
//! Node certificates carry a SPIFFE id and no host name, so that a node may be asked under any address.
//! What makes a peer trustworthy is that its chain ends in the root of *this* fabric, which therefore
//! has to be given as a file; the public roots of the system are not consulted.
//!
//! That alone would let any node of the fabric stand in for any other and collect the API tokens sent to
//! it. Processors are trusted with policy and so with tokens; a workload node is not. Its certificate is
//! therefore refused, unless the user names that very node: `--api https://w1@10.0.0.7:7443`. A name
//! binds a processor in the same way.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
    server::ParsedCertificate,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime, pem::PemObject};
use selvedge_fabric::id::NodeName;
use selvedge_node::Leaf;

use crate::failure::{Failure, Outcome};

/// A configuration that trusts whatever the root in `ca_file` (PEM or DER) has signed.
pub(super) fn pinned(ca_file: &Path) -> Outcome<ClientConfig> {
    let bad = |why: String| {
        Failure::usage(format!("CA file {}: {why}", ca_file.display()))
            .remedy("give the root certificate that `selvedge fabric init` wrote")
    };
    let bytes = std::fs::read(ca_file).map_err(|e| bad(e.to_string()))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates(bytes) {
        roots.add(certificate).map_err(|e| bad(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(bad("holds no certificate".into()));
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Pinned { roots, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| bad(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(config)
}

/// Judges who answered: the named node, or else any processor.
pub(super) fn judge_peer(
    shown: Option<&CertificateDer<'_>>,
    wanted: Option<&NodeName>,
) -> Result<(), String> {
    let leaf = shown.map(Leaf::read).ok_or("it showed no certificate")?;
    let leaf = leaf.map_err(|e| format!("its certificate is no node's: {e}"))?;
    match wanted {
        Some(wanted) if leaf.node != *wanted => {
            Err(format!("node {} answers there, not {wanted}", leaf.node))
        }
        None if !leaf.processor => Err(format!(
            "{0} answers there, a workload node, which is not trusted with API tokens; to ask it all the \
             same, name it: https://{0}@HOST:PORT",
            leaf.node
        )),
        Some(_) | None => Ok(()),
    }
}

fn certificates(bytes: Vec<u8>) -> Vec<CertificateDer<'static>> {
    let pem: Vec<_> = CertificateDer::pem_slice_iter(&bytes).filter_map(Result::ok).collect();
    if pem.is_empty() { vec![CertificateDer::from(bytes)] } else { pem }
}

/// Verifies the chain and not the host name.
#[derive(Debug)]
struct Pinned {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::{command::Role, id::Name, key::Signer as _};
    use selvedge_node::pki;

    use super::*;

    /// A certificate as a fabric's own CA issues it.
    fn certificate(node: &NodeName, role: Role) -> CertificateDer<'static> {
        let fabric: Name = "demo".parse().expect("a name");
        let ca = pki::create_fabric_ca(&fabric).expect("a CA");
        let key = pki::NodeKey::generate().expect("a key").public_key();
        let lifetime = std::time::Duration::from_secs(3600);
        ca.issuer.issue(node, role, &key, lifetime).expect("a certificate").into()
    }

    #[test]
    fn a_workload_node_answers_only_when_it_is_named() {
        let (p1, w1): (NodeName, NodeName) = ("p1".parse().expect("a name"), "w1".parse().expect("a name"));
        let (processor, workload) = (certificate(&p1, Role::Processor), certificate(&w1, Role::Workload));
        assert_eq!(judge_peer(Some(&processor), None), Ok(()));
        assert_eq!(judge_peer(Some(&processor), Some(&p1)), Ok(()));
        assert_eq!(judge_peer(Some(&workload), Some(&w1)), Ok(()));
        let refused = judge_peer(Some(&workload), None).expect_err("it may collect tokens");
        assert!(refused.contains("https://w1@"), "{refused}");
        assert!(judge_peer(Some(&workload), Some(&p1)).is_err(), "not the one that was named");
        assert!(judge_peer(Some(&processor), Some(&w1)).is_err());
        assert!(judge_peer(Some(&CertificateDer::from(vec![0; 64])), None).is_err());
        assert!(judge_peer(None, None).is_err());
    }
}
