//! Keys and certificates: the fabric's CA, node certificates, key files, sealing.
//!
//! * The **root** signs the issuing CA once, in `fabric init`, and its key then leaves with the
//!   recovery key (`recovery`). Nodes pin its certificate and nothing else.
//! * The **issuing CA** lasts ten years. Its key is held by processors only, sealed to each one's own
//!   key (`seal`), and never stored in clear.
//! * A **node certificate** is short-lived and says which node holds which key. It grants nothing: who
//!   is admitted, and as what, is policy.
//!
//! Node keys are Ed25519, because they sign facts and name nodes as well. The two CA keys are ECDSA
//! P-256: webpki verifies either, but browsers and many HTTP clients still refuse an Ed25519 CA, and a
//! fabric cannot change its root when it one day wants to show them a certificate.
//!
//! Secrets are overwritten when they are dropped, as far as our own copies go, and `Debug` of a type
//! that holds one shows none.

mod authority;
mod csr;
mod error;
mod key;
mod keyfile;
mod pem;
mod recovery;
mod seal;
mod vault;

use rustls_pki_types::CertificateDer;
use selvedge_fabric::key::PublicKey;
use selvedge_transport::{Credentials, Leaf};

pub use self::{
    authority::{FabricCa, ISSUING_LIFETIME, Issuer, MAX_BACKDATE, ROOT_LIFETIME, create_fabric_ca},
    csr::{MAX_CSR_BYTES, csr, csr_key},
    error::PkiError,
    key::NodeKey,
    keyfile::{MAX_KEY_FILE_BYTES, read_secret, write_secret},
    recovery::{read_recovery_key, write_recovery_file},
    seal::{SealingKey, seal_to},
    vault::{MIN_PASSPHRASE_BYTES, VaultError, VaultKey, open as open_vault, seal as seal_vault},
};

/// What the transport shows of this node: its certificate (DER) under the fabric's CA, and its key.
#[must_use]
pub fn node_credentials(
    node_cert: &[u8],
    issuing_cert: &[u8],
    root_cert: &[u8],
    key: &NodeKey,
) -> Credentials {
    let der = |bytes: &[u8]| CertificateDer::from(bytes.to_vec());
    let issuing = der(issuing_cert);
    Credentials {
        chain: vec![der(node_cert), issuing.clone()],
        key: key.tls_key(),
        root: der(root_cert),
        issuing,
    }
}

/// What a node certificate (DER) says; among it, from when to when it is valid. Nothing is verified.
///
/// # Errors
/// When it is not a node certificate.
pub fn validity(certificate: &[u8]) -> Result<Leaf, PkiError> {
    Leaf::read(&CertificateDer::from(certificate)).map_err(|e| PkiError::Certificate(e.to_string()))
}

/// The key of a node certificate (DER).
///
/// # Errors
/// When it is not a node certificate.
pub fn certified_key(certificate: &[u8]) -> Result<PublicKey, PkiError> {
    Ok(validity(certificate)?.key)
}

/// A certificate (DER) as PEM text.
#[must_use]
pub fn certificate_pem(certificate: &[u8]) -> String {
    pem::encode("CERTIFICATE", certificate).to_string()
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use selvedge_fabric::{
        command::Role,
        id::Name,
        key::{Hash, Signer},
    };
    use selvedge_transport::{
        Alpn, Gate, Options, PeerIdentity, RequestError, Transport, join_request,
        testing::{OpenGate, TestEvents},
    };
    use tokio::sync::watch;

    use super::*;

    const HOUR: Duration = Duration::from_secs(60 * 60);
    const TIMEOUT: Duration = Duration::from_secs(10);

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    /// Admits one key under one name, as a policy would.
    struct Only(Name, PublicKey);

    impl Gate for Only {
        fn admit(&self, peer: &PeerIdentity, _: Alpn) -> Result<(), String> {
            let admitted = peer.node == self.0 && peer.key == self.1;
            if admitted { Ok(()) } else { Err(format!("{} is not admitted under that key", peer.node)) }
        }
    }

    fn node(ca: &FabricCa, of: &str, role: Role, key: &NodeKey, gate: Arc<dyn Gate>) -> Transport {
        let leaf = ca.issuer.issue(&name(of), role, &key.public_key(), HOUR).expect("a certificate");
        let shown = node_credentials(&leaf, &ca.issuing_cert, &ca.root_cert, key);
        Transport::bind(Options {
            listen: ([127, 0, 0, 1], 0).into(),
            fabric: name("test"),
            me: Some(name(of)),
            credentials: watch::channel(Arc::new(shown)).1,
            gate,
            events: Arc::new(TestEvents::default()),
        })
        .expect("a transport")
    }

    /// Whether there was an answer at all; nobody handles anything here.
    fn reached<T: std::fmt::Debug>(answer: &Result<T, RequestError>) -> bool {
        matches!(answer, Err(RequestError::Refused(text)) if text.contains("does not answer"))
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn nodes_with_certificates_of_this_ca_reach_each_other() {
        let ca = create_fabric_ca(&name("test")).expect("a CA");
        let (p1, p2) = (NodeKey::generate().expect("a key"), NodeKey::generate().expect("a key"));
        let server = node(&ca, "p1", Role::Processor, &p1, Arc::new(Only(name("p2"), p2.public_key())));
        let client = node(&ca, "p2", Role::Workload, &p2, Arc::new(OpenGate));
        client.book().set(&name("p1"), vec![server.local_addr()]);
        let answer = client.request(&name("p1"), Alpn::Renew, Vec::new().into(), TIMEOUT).await;
        assert!(reached(&answer), "{answer:?}");

        let minted = NodeKey::generate().expect("a key");
        let stranger = node(&ca, "p2", Role::Processor, &minted, Arc::new(OpenGate));
        stranger.book().set(&name("p1"), vec![server.local_addr()]);
        let answer = stranger.request(&name("p1"), Alpn::Renew, Vec::new().into(), TIMEOUT).await;
        assert!(matches!(answer, Err(RequestError::NotAdmitted { .. })), "{answer:?}");

        let pin = Hash::of(&ca.root_cert);
        let answer = join_request(server.local_addr(), &pin, Vec::new().into(), TIMEOUT).await;
        assert!(reached(&answer), "{answer:?}");
        let posing = join_request(client.local_addr(), &pin, Vec::new().into(), TIMEOUT).await;
        assert!(
            matches!(posing, Err(RequestError::NotAdmitted { .. })),
            "a workload node is no seed: {posing:?}"
        );
    }
}
