//! A throw-away certificate authority and fixtures, for tests of this and other crates.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ED25519, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use selvedge_fabric::{
    event::{EventSink, Severity},
    id::{Name, NodeName},
    key::{Hash, PublicKey},
};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::{
    Alpn, Credentials, Gate, Options, PROCESSOR_UNIT, PeerIdentity, Transport, WORKLOAD_UNIT, spiffe_id,
};

/// A fabric's CA in memory. Panics where a test may.
pub struct TestCa {
    fabric: Name,
    root: CertificateDer<'static>,
    issuing: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// What a test certificate says; see [`TestCa::credentials_with`].
#[derive(Debug, Clone)]
pub struct TestLeaf {
    /// The trust domain.
    pub fabric: Name,
    /// The node.
    pub node: NodeName,
    /// Whether it is a processor's.
    pub processor: bool,
    /// Begin, relative to now, in seconds.
    pub begins_in_s: i64,
    /// End, relative to now, in seconds.
    pub ends_in_s: i64,
}

impl TestCa {
    /// A new CA.
    ///
    /// # Panics
    /// When a key cannot be generated.
    #[must_use]
    pub fn new(fabric: &str) -> Self {
        let fabric = Name::new(fabric).expect("a fabric name");
        let root_key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let root_params = ca_params("test root", 1);
        let root = root_params.self_signed(&root_key).expect("a root").der().clone();
        let issuing_key = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
        let issuing_params = ca_params("test issuing", 0);
        let issuing = issuing_params
            .signed_by(&issuing_key, &Issuer::new(root_params, root_key))
            .expect("an issuing certificate");
        let issuing = issuing.der().clone();
        Self { fabric, root, issuing, issuer: Issuer::new(issuing_params, issuing_key) }
    }

    /// The fabric's name.
    #[must_use]
    pub const fn fabric(&self) -> &Name {
        &self.fabric
    }

    /// The pin that a join token would hold.
    #[must_use]
    pub fn pin(&self) -> Hash {
        Hash::of(&self.root)
    }

    /// A new node key.
    ///
    /// # Panics
    /// When a key cannot be generated.
    #[must_use]
    pub fn node_key() -> KeyPair {
        KeyPair::generate_for(&PKCS_ED25519).expect("a key")
    }

    /// Credentials of a processor for an hour, under a new key.
    #[must_use]
    pub fn credentials(&self, node: &str) -> Credentials {
        self.credentials_with(&self.leaf(node), &Self::node_key())
    }

    /// What [`Self::credentials`] puts into a certificate, to be changed.
    ///
    /// # Panics
    /// When `node` is not a name.
    #[must_use]
    pub fn leaf(&self, node: &str) -> TestLeaf {
        let node = NodeName::new(node).expect("a node name");
        TestLeaf { fabric: self.fabric.clone(), node, processor: true, begins_in_s: -60, ends_in_s: 3_600 }
    }

    /// Credentials as told.
    ///
    /// # Panics
    /// When the certificate cannot be made.
    #[must_use]
    pub fn credentials_with(&self, leaf: &TestLeaf, key: &KeyPair) -> Credentials {
        let mut params = CertificateParams::default();
        let uri = spiffe_id(&leaf.fabric, &leaf.node);
        params.subject_alt_names = vec![SanType::URI(uri.as_str().try_into().expect("ASCII"))];
        params.distinguished_name = DistinguishedName::new();
        let unit = if leaf.processor { PROCESSOR_UNIT } else { WORKLOAD_UNIT };
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit);
        params.distinguished_name.push(DnType::CommonName, leaf.node.as_str());
        params.not_before = OffsetDateTime::now_utc() + time::Duration::seconds(leaf.begins_in_s);
        params.not_after = OffsetDateTime::now_utc() + time::Duration::seconds(leaf.ends_in_s);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(key, &self.issuer).expect("a certificate");
        Credentials {
            chain: vec![certificate.der().clone(), self.issuing.clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("PKCS #8"),
            root: self.root.clone(),
            issuing: self.issuing.clone(),
        }
    }

    /// A transport of a new processor on a free port of 127.0.0.1, with its admission left to `gate`.
    ///
    /// # Panics
    /// When it cannot be bound.
    #[must_use]
    pub fn transport(&self, node: &str, gate: Arc<dyn Gate>) -> Transport {
        let (_, credentials) = watch::channel(Arc::new(self.credentials(node)));
        Transport::bind(self.options(credentials, gate, Arc::new(TestEvents::default())))
            .expect("a transport")
    }

    /// Options for a free port of 127.0.0.1.
    pub fn options(
        &self,
        credentials: watch::Receiver<Arc<Credentials>>,
        gate: Arc<dyn Gate>,
        events: Arc<dyn EventSink>,
    ) -> Options {
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        Options { listen, fabric: self.fabric.clone(), me: None, credentials, gate, events }
    }
}

fn ca_params(name: &str, below: u8) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The public key of a node key made by [`TestCa::node_key`].
///
/// # Panics
/// When it is not an Ed25519 key.
#[must_use]
pub fn public_key(key: &KeyPair) -> PublicKey {
    PublicKey(key.public_key_raw().try_into().expect("32 bytes"))
}

/// A gate that admits whoever has a certificate.
#[derive(Debug, Default)]
pub struct OpenGate;

impl Gate for OpenGate {
    fn admit(&self, _peer: &PeerIdentity, _alpn: Alpn) -> Result<(), String> {
        Ok(())
    }
}

/// A sink that keeps what it is told.
#[derive(Debug, Default)]
pub struct TestEvents(Mutex<Vec<(Severity, &'static str, String, String)>>);

impl TestEvents {
    /// Severity, code, subject and message of all events so far.
    pub fn all(&self) -> Vec<(Severity, &'static str, String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a message of an event holds `text`; `false` when none did in 10 s.
    pub async fn wait_for(&self, text: &str) -> bool {
        for _ in 0..500 {
            if self.all().iter().any(|(_, _, _, message)| message.contains(text)) {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }
}

impl EventSink for TestEvents {
    fn emit(&self, severity: Severity, code: &'static str, subject: &str, message: String) {
        let event = (severity, code, subject.to_owned(), message);
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(event);
    }
}
