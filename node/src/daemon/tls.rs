//! TLS of the API: the node's own certificate, the newest one for each handshake.

use std::sync::Arc;

use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use selvedge_transport::Credentials;
use tokio::sync::watch;

/// Clients prove themselves by bearer tokens, so no client certificate is asked for; they pin the
/// fabric's root to know the node.
pub(super) fn server_config(
    credentials: watch::Receiver<Arc<Credentials>>,
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let newest = Newest { credentials, provider: provider.clone() };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(newest));
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Shows the certificate that is in use when the handshake happens.
#[derive(Debug)]
struct Newest {
    credentials: watch::Receiver<Arc<Credentials>>,
    provider: Arc<CryptoProvider>,
}

impl ResolvesServerCert for Newest {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let now = self.credentials.borrow().clone();
        let key = self.provider.key_provider.load_private_key(now.key.clone_key()).ok()?;
        Some(Arc::new(CertifiedKey::new(now.chain.clone(), key)))
    }
}
