//! A client that keeps none of our rules: it believes any server, shows any certificate or none, asks
//! for any ALPN, and writes what it likes.

use std::{net::SocketAddr, sync::Arc};

use quinn::{Connection, Endpoint, crypto::rustls::QuicClientConfig};
use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use selvedge_transport::Credentials;

use crate::support::DEADLINE;

/// Connects, or tells how that failed. With TLS 1.3 a client may think it is connected when the server
/// is about to refuse its certificate.
pub(crate) async fn connect(
    to: SocketAddr,
    alpn: &[u8],
    credentials: Option<Credentials>,
) -> Result<(Endpoint, Connection), String> {
    let endpoint = Endpoint::client(([127, 0, 0, 1], 0).into()).expect("a socket");
    let config = client_config(alpn, credentials);
    let connecting = endpoint.connect_with(config, to, "anything").expect("a dial");
    let connection = connecting.await.map_err(|e| e.to_string())?;
    Ok((endpoint, connection))
}

pub(crate) fn client_config(alpn: &[u8], credentials: Option<Credentials>) -> quinn::ClientConfig {
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Credulous));
    let mut config = match credentials {
        Some(shown) => builder.with_client_auth_cert(shown.chain, shown.key).expect("a key"),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![alpn.to_vec()];
    quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config).expect("QUIC")))
}

/// The words with which the server ends a connection; panics if it does not.
pub(crate) async fn ending(to: SocketAddr, alpn: &[u8], credentials: Option<Credentials>) -> String {
    match connect(to, alpn, credentials).await {
        Err(why) => why,
        Ok((_endpoint, connection)) => {
            let closed = tokio::time::timeout(DEADLINE, connection.closed()).await;
            closed.expect("the server closes the connection").to_string()
        }
    }
}

#[derive(Debug)]
struct Credulous;

impl ServerCertVerifier for Credulous {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
