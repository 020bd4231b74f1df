//! The fabric's certificate authority: a root that goes offline and an issuing CA that processors hold.

use std::{fmt, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType, SerialNumber, SubjectPublicKeyInfo,
};
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use selvedge_fabric::{
    command::{Role, SealedSecret},
    id::{Name, NodeName},
    key::{Hash, PublicKey},
};
use selvedge_transport::{PROCESSOR_UNIT, WORKLOAD_UNIT, spiffe_id};
use time::OffsetDateTime;
use x509_parser::{certificate::X509Certificate, prelude::FromDer};
use zeroize::Zeroizing;

use super::{PkiError, SealingKey, seal_to};

/// A year, in days, near enough for a CA.
const YEAR_DAYS: u64 = 365;
/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;
/// How long the root lasts. It is pinned by hash, so this is for tools that look at it.
pub const ROOT_LIFETIME: Duration = Duration::from_secs(40 * YEAR_DAYS * DAY_S);
/// How long the issuing CA lasts: a fabric that was switched off for years comes back by itself.
pub const ISSUING_LIFETIME: Duration = Duration::from_secs(10 * YEAR_DAYS * DAY_S);
/// CA certificates begin a day early, so that a node whose clock is behind can issue under them.
const CA_BACKDATE: Duration = Duration::from_secs(DAY_S);
/// Node certificates begin a tenth of their lifetime early, but at most this much. Our own verifiers
/// bear more skew than that; other TLS clients that look at a node's certificate bear none.
pub const MAX_BACKDATE: Duration = Duration::from_secs(60 * 60);

/// A new certificate authority, as `fabric init` holds it for a moment.
pub struct FabricCa {
    /// The root certificate, DER. Its SHA-256 is the pin in join tokens.
    pub root_cert: Vec<u8>,
    /// The certificate of the issuing CA, DER.
    pub issuing_cert: Vec<u8>,
    /// The root key (PKCS #8, PEM), to be moved offline.
    pub root_key_pem: Zeroizing<String>,
    /// The issuing CA, ready for use.
    pub issuer: Issuer,
}

impl fmt::Debug for FabricCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FabricCa({:?}, secret)", Hash::of(&self.root_cert))
    }
}

/// Makes root and issuing CA of a fabric.
///
/// # Errors
/// When keys cannot be generated.
pub fn create_fabric_ca(fabric: &Name) -> Result<FabricCa, PkiError> {
    let root_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate_error)?;
    let root_key_pem = Zeroizing::new(root_key.serialize_pem());
    let root_params = ca_params(&format!("{fabric} root"), 1, ROOT_LIFETIME)?;
    let root = root_params.self_signed(&root_key).map_err(certificate_error)?;

    let issuing_key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(certificate_error)?;
    let issuing_params = ca_params(&format!("{fabric} issuing"), 0, ISSUING_LIFETIME)?;
    let issuing = issuing_params
        .signed_by(&issuing_key, &rcgen::Issuer::new(root_params, root_key))
        .map_err(certificate_error)?;
    let (root_cert, issuing_cert) = (root.der().to_vec(), issuing.der().to_vec());
    let issuing_key = Zeroizing::new(issuing_key.serialize_der());
    let issuer = Issuer::new(issuing_key, fabric, &root_cert, &issuing_cert)?;
    Ok(FabricCa { root_cert, issuing_cert, root_key_pem, issuer })
}

fn ca_params(name: &str, cas_below: u8, lifetime: Duration) -> Result<CertificateParams, PkiError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.serial_number = Some(random_serial()?);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(cas_below));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let now = OffsetDateTime::now_utc();
    params.not_before = now - CA_BACKDATE;
    params.not_after = now + lifetime;
    Ok(params)
}

/// The issuing CA with its key, which signs node certificates.
pub struct Issuer {
    fabric: Name,
    issuing_hash: Hash,
    not_before: OffsetDateTime,
    not_after: OffsetDateTime,
    key: Zeroizing<Vec<u8>>,
    signer: rcgen::Issuer<'static, KeyPair>,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Issuer({}, {:?}, secret)", self.fabric, self.issuing_hash)
    }
}

impl Issuer {
    /// Puts key and certificate together, after checking that they belong together and to the root: a
    /// wrong one would sign certificates that no node accepts.
    fn new(
        key: Zeroizing<Vec<u8>>,
        fabric: &Name,
        root_cert: &[u8],
        issuing_cert: &[u8],
    ) -> Result<Self, PkiError> {
        let failed = |why: &str| PkiError::Issuer(why.to_owned());
        let (_, root) = X509Certificate::from_der(root_cert).map_err(|e| failed(&e.to_string()))?;
        let (_, issuing) = X509Certificate::from_der(issuing_cert).map_err(|e| failed(&e.to_string()))?;
        issuing
            .verify_signature(Some(root.public_key()))
            .map_err(|_| failed("the issuing certificate is not signed by the root"))?;
        let pkcs8 = PrivatePkcs8KeyDer::from(key.as_slice());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ECDSA_P256_SHA256)
            .map_err(|e| failed(&e.to_string()))?;
        if pair.subject_public_key_info() != issuing.public_key().raw {
            return Err(failed("they are of different pairs"));
        }
        let validity = issuing.validity();
        let (not_before, not_after) = (validity.not_before.to_datetime(), validity.not_after.to_datetime());
        let der = CertificateDer::from(issuing_cert);
        let signer = rcgen::Issuer::from_ca_cert_der(&der, pair).map_err(certificate_error)?;
        Ok(Self {
            fabric: fabric.clone(),
            issuing_hash: Hash::of(issuing_cert),
            not_before,
            not_after,
            key,
            signer,
        })
    }

    /// Opens the issuing key that was sealed to this processor.
    ///
    /// # Errors
    /// When it was sealed to another node, or does not fit the fabric's certificates.
    pub fn open(
        key: &SealingKey,
        sealed: &SealedSecret,
        fabric: &Name,
        root_cert: &[u8],
        issuing_cert: &[u8],
    ) -> Result<Self, PkiError> {
        let secret = key.open(&Hash::of(issuing_cert).0, sealed)?;
        Self::new(secret, fabric, root_cert, issuing_cert)
    }

    /// Seals the issuing key to a processor, by its sealing key.
    ///
    /// # Errors
    /// When that is no key to seal to.
    pub fn seal_to(&self, processor: &PublicKey) -> Result<SealedSecret, PkiError> {
        seal_to(processor, &self.issuing_hash.0, &self.key)
    }

    /// Signs a node certificate (DER) from now on for `lifetime`, but not beyond that of the CA. Who
    /// calls this has checked that the node is admitted under that key and role.
    ///
    /// # Errors
    /// When the certificate cannot be made.
    pub fn issue(
        &self,
        node: &NodeName,
        role: Role,
        key: &PublicKey,
        lifetime: Duration,
    ) -> Result<Vec<u8>, PkiError> {
        let mut params = CertificateParams::default();
        let id = spiffe_id(&self.fabric, node).as_str().try_into().map_err(certificate_error)?;
        params.subject_alt_names = vec![SanType::URI(id)];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::OrganizationalUnitName, unit_of(role));
        params.distinguished_name.push(DnType::CommonName, node.as_str());
        params.serial_number = Some(random_serial()?);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        params.not_before = (now - MAX_BACKDATE.min(lifetime / 10)).max(self.not_before);
        params.not_after =
            now.checked_add(saturating(lifetime)).unwrap_or(self.not_after).min(self.not_after);
        let subject = SubjectPublicKeyInfo::from_der(&key.spki_der()).map_err(certificate_error)?;
        let certificate = params.signed_by(&subject, &self.signer).map_err(certificate_error)?;
        Ok(certificate.der().to_vec())
    }
}

const fn unit_of(role: Role) -> &'static str {
    match role {
        Role::Processor => PROCESSOR_UNIT,
        Role::Workload => WORKLOAD_UNIT,
    }
}

fn saturating(lifetime: Duration) -> time::Duration {
    time::Duration::try_from(lifetime).unwrap_or(time::Duration::MAX)
}

fn certificate_error(error: rcgen::Error) -> PkiError {
    PkiError::Certificate(error.to_string())
}

/// A serial number of 127 random bits; rcgen's default would be the same at every renewal of a key.
fn random_serial() -> Result<SerialNumber, PkiError> {
    let mut serial = [0; 16];
    aws_lc_rs::rand::fill(&mut serial).map_err(|_| PkiError::Random)?;
    serial[0] &= 0x7f;
    Ok(SerialNumber::from_slice(&serial))
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::key::Signer;

    use super::*;
    use crate::pki::{NodeKey, certified_key, validity};

    const HOUR: Duration = Duration::from_secs(60 * 60);

    fn name(text: &str) -> Name {
        Name::new(text).expect("a name")
    }

    #[test]
    fn a_certificate_says_who_and_until_when() {
        let ca = create_fabric_ca(&name("test")).expect("a CA");
        let key = NodeKey::generate().expect("a key").public_key();
        let der = ca.issuer.issue(&name("p1"), Role::Processor, &key, HOUR).expect("a certificate");
        let leaf = validity(&der).expect("a leaf");
        assert_eq!((leaf.fabric, leaf.node, leaf.key), (name("test"), name("p1"), key));
        assert!(leaf.processor);
        assert_eq!(certified_key(&der).expect("a key"), key);
        let backdate_ms = u64::try_from(HOUR.as_millis() / 10).expect("small");
        assert_eq!(leaf.not_after_ms - leaf.not_before_ms, 10 * backdate_ms + backdate_ms);
        let workload = ca.issuer.issue(&name("w1"), Role::Workload, &key, HOUR).expect("a certificate");
        assert!(!validity(&workload).expect("a leaf").processor);
        assert_ne!(der, ca.issuer.issue(&name("p1"), Role::Processor, &key, HOUR).expect("another"));
    }

    #[test]
    fn no_certificate_outlives_its_ca() {
        let ca = create_fabric_ca(&name("test")).expect("a CA");
        let key = NodeKey::generate().expect("a key").public_key();
        let (_, issuing) = X509Certificate::from_der(&ca.issuing_cert).expect("X.509");
        let end_s = u64::try_from(issuing.validity().not_after.timestamp()).expect("after 1970");
        for lifetime in [ISSUING_LIFETIME * 2, Duration::MAX] {
            let der = ca.issuer.issue(&name("p1"), Role::Processor, &key, lifetime).expect("a certificate");
            assert_eq!(validity(&der).expect("a leaf").not_after_ms, end_s * 1_000);
        }
    }

    #[test]
    fn the_issuing_key_travels_sealed() {
        let fabric = name("test");
        let (ca, other) =
            (create_fabric_ca(&fabric).expect("a CA"), create_fabric_ca(&fabric).expect("a CA"));
        let (key, stranger) =
            (SealingKey::generate().expect("a key"), SealingKey::generate().expect("a key"));
        let sealed = ca.issuer.seal_to(&key.public_key()).expect("sealed");
        let open = |key, root: &[u8], issuing: &[u8]| Issuer::open(key, &sealed, &fabric, root, issuing);
        let issuer = open(&key, &ca.root_cert, &ca.issuing_cert).expect("opened");
        assert!(issuer.seal_to(&stranger.public_key()).is_ok(), "it can be passed on");
        assert!(matches!(open(&stranger, &ca.root_cert, &ca.issuing_cert), Err(PkiError::Open)));
        assert!(matches!(open(&key, &ca.root_cert, &other.issuing_cert), Err(PkiError::Open)));
        assert!(matches!(open(&key, &other.root_cert, &ca.issuing_cert), Err(PkiError::Issuer(_))));
        let foreign =
            seal_to(&key.public_key(), &Hash::of(&ca.issuing_cert).0, &other.issuer.key).expect("sealed");
        let mixed = Issuer::open(&key, &foreign, &fabric, &ca.root_cert, &ca.issuing_cert);
        assert!(matches!(mixed, Err(PkiError::Issuer(_))));
    }

    #[test]
    fn secrets_are_not_shown() {
        let ca = create_fabric_ca(&name("test")).expect("a CA");
        for text in [format!("{ca:?}"), format!("{:?}", ca.issuer)] {
            assert!(text.ends_with(", secret)"), "{text}");
        }
    }
}
