//! TLS settings: 1.3 only, aws-lc-rs, mutual, and credentials that are read anew at every handshake.
//!
//! Sessions are never resumed: a resumed session skips the certificates, and with them the question
//! whether the peer's are still good.

use std::sync::{Arc, Mutex, PoisonError};

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::{
    ClientConfig, ServerConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
    sign::CertifiedKey,
};
use rustls_pki_types::CertificateDer;
use selvedge_fabric::{
    event::{EventSink, Severity},
    id::Name,
    key::Hash,
};
use tokio::sync::watch;
use webpki::KeyUsage;

use crate::{
    Alpn,
    error::{CredentialsError, TransportError},
    identity::{Credentials, Leaf},
    verify::{PeerVerifier, PinnedVerifier, verify_chain},
};

/// The name every client asks for. A constant, so that a capture shows no name of a node.
pub(crate) const SERVER_NAME: &str = "selvedge";

/// The provider of all cryptography here.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Credentials, checked and in the form a handshake needs.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) leaf: Leaf,
    pub(crate) root: CertificateDer<'static>,
    pub(crate) issuing: CertificateDer<'static>,
    /// Grows with every renewal; connections made under an older one are not used for new requests.
    pub(crate) generation: u64,
    certified: Arc<CertifiedKey>,
    /// With the root in the chain, for a joining node that knows only its hash.
    certified_with_root: Arc<CertifiedKey>,
}

impl Ready {
    fn new(credentials: &Credentials, fabric: &Name, generation: u64) -> Result<Self, CredentialsError> {
        let provider = provider();
        let leaf_der = credentials.chain.first().ok_or(CredentialsError::Empty)?;
        let mut intermediates = credentials.chain[1..].to_vec();
        intermediates.push(credentials.issuing.clone());
        let algorithms = &provider.signature_verification_algorithms;
        let usage = KeyUsage::client_auth();
        let leaf = verify_chain(leaf_der, &intermediates, &credentials.root, usage, algorithms)
            .map_err(|e| CredentialsError::Chain(e.to_string()))?;
        if leaf.fabric != *fabric {
            return Err(CredentialsError::Fabric { expected: fabric.clone(), found: leaf.fabric });
        }
        let signing_key = provider
            .key_provider
            .load_private_key(credentials.key.clone_key())
            .map_err(|e| CredentialsError::Key(e.to_string()))?;
        let with_root = [&credentials.chain[..], std::slice::from_ref(&credentials.root)].concat();
        let certified = CertifiedKey::new(credentials.chain.clone(), Arc::clone(&signing_key));
        certified.keys_match().map_err(|e| CredentialsError::Key(e.to_string()))?;
        Ok(Self {
            leaf,
            root: credentials.root.clone(),
            issuing: credentials.issuing.clone(),
            generation,
            certified: Arc::new(certified),
            certified_with_root: Arc::new(CertifiedKey::new(with_root, signing_key)),
        })
    }

    /// Itself, if it may follow `old`: a renewal changes neither the pinned root nor the node.
    fn replaces(self, old: &Self) -> Result<Self, CredentialsError> {
        if self.root != old.root {
            return Err(CredentialsError::Root);
        }
        if self.leaf.node != old.leaf.node {
            return Err(CredentialsError::Node { expected: old.leaf.node.clone(), found: self.leaf.node });
        }
        Ok(self)
    }
}

impl Credentials {
    /// Whether a node of `fabric` can show these: the leaf leads to the root, is of the fabric, and the key
    /// is its key. Whether it is valid now is another question.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check(&self, fabric: &Name) -> Result<Leaf, CredentialsError> {
        Ready::new(self, fabric, 0).map(|ready| ready.leaf)
    }
}

/// The node's own credentials as they are now.
pub(crate) struct LocalIdentity {
    fabric: Name,
    events: Arc<dyn EventSink>,
    state: Mutex<(watch::Receiver<Arc<Credentials>>, Arc<Ready>)>,
}

impl std::fmt::Debug for LocalIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalIdentity").field("fabric", &self.fabric).finish_non_exhaustive()
    }
}

impl LocalIdentity {
    pub(crate) fn new(
        mut credentials: watch::Receiver<Arc<Credentials>>,
        fabric: Name,
        events: Arc<dyn EventSink>,
    ) -> Result<Self, CredentialsError> {
        let first = Arc::clone(&credentials.borrow_and_update());
        let ready = Arc::new(Ready::new(&first, &fabric, 0)?);
        Ok(Self { fabric, events, state: Mutex::new((credentials, ready)) })
    }

    /// The newest usable credentials. Unusable ones never replace usable ones: a renewal that went
    /// wrong must not cut a node off while its old certificate is valid.
    pub(crate) fn current(&self) -> Arc<Ready> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (receiver, ready) = &mut *state;
        if receiver.has_changed().unwrap_or(false) {
            let newest = Arc::clone(&receiver.borrow_and_update());
            match Ready::new(&newest, &self.fabric, ready.generation + 1).and_then(|new| new.replaces(ready))
            {
                Ok(usable) => *ready = Arc::new(usable),
                Err(error) => self.events.emit(
                    Severity::Warning,
                    "credentials-unusable",
                    ready.leaf.node.as_str(),
                    format!("new credentials are not used, the old ones stay: {error}"),
                ),
            }
        }
        Arc::clone(ready)
    }
}

impl ResolvesServerCert for LocalIdentity {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let ready = self.current();
        let joins = hello.alpn().is_some_and(|mut ids| ids.any(|id| id == Alpn::Join.wire()));
        Some(Arc::clone(if joins { &ready.certified_with_root } else { &ready.certified }))
    }
}

impl ResolvesClientCert for LocalIdentity {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current().certified))
    }

    fn has_certs(&self) -> bool {
        true
    }
}

/// The server side, for all ALPNs.
pub(crate) fn server_config(identity: &Arc<LocalIdentity>) -> Result<QuicServerConfig, TransportError> {
    let provider = provider();
    let verifier = PeerVerifier { identity: Arc::clone(identity), provider: Arc::clone(&provider) };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| TransportError::Tls(e.to_string()))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::clone(identity) as Arc<dyn ResolvesServerCert>);
    config.alpn_protocols = Alpn::ALL.iter().map(|alpn| alpn.wire().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|e| TransportError::Tls(e.to_string()))
}

/// The client side of a node with credentials, for one ALPN.
pub(crate) fn client_config(
    identity: &Arc<LocalIdentity>,
    alpn: Alpn,
) -> Result<QuicClientConfig, TransportError> {
    let provider = provider();
    let verifier = PeerVerifier { identity: Arc::clone(identity), provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| TransportError::Tls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::clone(identity) as Arc<dyn ResolvesClientCert>);
    finish_client(config, alpn)
}

/// The client side of a node that has no certificate yet.
pub(crate) fn join_config(pin: &Hash) -> Result<QuicClientConfig, TransportError> {
    let provider = provider();
    let verifier = PinnedVerifier { pin: *pin, provider: Arc::clone(&provider) };
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| TransportError::Tls(e.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    finish_client(config, Alpn::Join)
}

fn finish_client(mut config: ClientConfig, alpn: Alpn) -> Result<QuicClientConfig, TransportError> {
    config.alpn_protocols = vec![alpn.wire().to_vec()];
    config.resumption = Resumption::disabled();
    QuicClientConfig::try_from(config).map_err(|e| TransportError::Tls(e.to_string()))
}
