//! `fabric init`: the first processor of a new fabric, and its certificate authority.
//!
//! Nothing is started here. The data directory gets keys, identity, a configuration, and the first
//! command of the log; `node run` commits that command when it starts.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use selvedge_fabric::{
    address::Ipv4Pool,
    command::{Admit, Command, Role},
    id::{Name, NodeName, ZoneName},
    key::{FabricId, Hash, Signer},
    policy::FabricParams,
};

use crate::{
    clock,
    config::{self, NodeConfig},
    files::{self, FileError},
    identity::{DataDir, Identity, IdentityError, Machine},
    pki::{self, NodeKey, PkiError, SealingKey},
};

/// What a new fabric is made from.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The fabric's name.
    pub fabric: Name,
    /// The first processor's name.
    pub node: NodeName,
    /// Where it is.
    pub zone: ZoneName,
    /// Its data directory; must not hold a node yet.
    pub data_dir: PathBuf,
    /// DNS suffix.
    pub suffix: String,
    /// IPv4 pool of the overlay, `address/length`.
    pub ipv4_pool: String,
    /// Length of each node's block.
    pub ipv4_block_len: u8,
    /// Lifetime of node certificates.
    pub certificate_lifetime: Duration,
}

/// What was made.
#[derive(Debug, Clone)]
pub struct InitReport {
    /// The fabric's name.
    pub fabric: Name,
    /// Its random id.
    pub fabric_id: FabricId,
    /// The first processor.
    pub node: NodeName,
    /// SHA-256 of the root certificate.
    pub ca_fingerprint: Hash,
    /// The root certificate, for clients of the API.
    pub ca_file: PathBuf,
    /// Root key and recovery key; to be moved offline.
    pub recovery_key_file: PathBuf,
    /// A configuration for `node run`.
    pub config_file: PathBuf,
}

/// Why a fabric cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// There is a node in the directory.
    #[error("{0} holds a node already: choose another --data-dir; nothing was changed")]
    Exists(PathBuf),
    /// An option makes no sense.
    #[error("{0}")]
    Option(String),
    /// A file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The identity cannot be written.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Keys or certificates cannot be made.
    #[error(transparent)]
    Pki(#[from] PkiError),
}

/// Makes a fabric.
///
/// # Errors
/// When the directory is in use, an option makes no sense, or a file cannot be written.
pub fn init(options: &InitOptions) -> Result<InitReport, InitError> {
    check(options)?;
    let dir = DataDir::open(&options.data_dir)?;
    if Identity::load(&dir)?.is_some() {
        return Err(InitError::Exists(options.data_dir.clone()));
    }
    let ca = pki::create_fabric_ca(&options.fabric)?;
    let (key, sealing) = (NodeKey::generate()?, SealingKey::generate()?);
    let recovery = NodeKey::generate()?;
    let recovery_key_file = options.data_dir.join(format!("recovery-{}.key", options.fabric));
    pki::write_recovery_file(&recovery_key_file, &options.fabric, &ca.root_key_pem, &recovery)?;

    let params = params(options, &ca, recovery.public_key());
    let node_cert =
        ca.issuer.issue(&options.node, Role::Processor, &key.public_key(), options.certificate_lifetime)?;
    let bootstrap = Command::Init {
        first: Admit {
            node: options.node.clone(),
            key: key.public_key(),
            sealing_key: sealing.public_key(),
            role: Role::Processor,
            zone: options.zone.clone(),
            token: None,
            sealed_issuer: Some(ca.issuer.seal_to(&sealing.public_key())?),
        },
        params: params.clone(),
    };
    key.save(&dir.node_key())?;
    sealing.save(&dir.sealing_key())?;
    let bytes = serde_json::to_vec(&bootstrap).map_err(|e| InitError::Option(e.to_string()))?;
    files::write_private(&dir.bootstrap(), &bytes)?;
    let ca_file = options.data_dir.join("ca.pem");
    files::write_private(&ca_file, pki::certificate_pem(&params.root_cert).as_bytes())?;
    let config_file = write_config(options)?;
    // Last: with the identity the directory holds a node.
    identity(options, &params, node_cert).save(&dir)?;
    Ok(InitReport {
        fabric: options.fabric.clone(),
        fabric_id: params.id,
        node: options.node.clone(),
        ca_fingerprint: Hash::of(&params.root_cert),
        ca_file,
        recovery_key_file,
        config_file,
    })
}

fn check(options: &InitOptions) -> Result<(), InitError> {
    let suffix = &options.suffix;
    let labels_fine = suffix.split('.').all(|label| Name::new(label).is_ok());
    if !labels_fine || suffix.len() > 100 {
        let problem = format!("--suffix {suffix:?} must be a lower-case DNS name such as fabric.internal");
        return Err(InitError::Option(problem));
    }
    if options.certificate_lifetime < config::MIN_CERTIFICATE_LIFETIME {
        return Err(InitError::Option("certificates must last at least 5s".to_owned()));
    }
    Ipv4Pool::parse(&options.ipv4_pool, options.ipv4_block_len)
        .map(drop)
        .map_err(|e| InitError::Option(format!("--ipv4-pool {}: {e}", options.ipv4_pool)))
}

fn params(
    options: &InitOptions,
    ca: &pki::FabricCa,
    recovery_key: selvedge_fabric::key::PublicKey,
) -> FabricParams {
    // RFC 4193, section 3.2: fd00::/8 and a 40-bit random global id.
    let global_id: [u8; 5] = rand::random();
    let mut ula_prefix = [0xfd; 6];
    ula_prefix[1..].copy_from_slice(&global_id);
    FabricParams {
        name: options.fabric.clone(),
        id: FabricId(rand::random()),
        suffix: options.suffix.clone(),
        ula_prefix,
        ipv4_pool: options.ipv4_pool.clone(),
        ipv4_block_len: options.ipv4_block_len,
        root_cert: ca.root_cert.clone(),
        issuing_cert: ca.issuing_cert.clone(),
        recovery_key,
        created_ms: clock::unix_ms(),
    }
}

fn identity(options: &InitOptions, params: &FabricParams, node_cert: Vec<u8>) -> Identity {
    Identity {
        layout: Identity::layout(),
        fabric: options.fabric.clone(),
        fabric_id: params.id,
        epoch: 0,
        voters: None,
        recovery_key: Some(params.recovery_key),
        node: options.node.clone(),
        role: Role::Processor,
        zone: options.zone.clone(),
        machine: Machine::this(),
        root_cert: params.root_cert.clone(),
        issuing_cert: params.issuing_cert.clone(),
        node_cert,
        contacts: Vec::new(),
    }
}

/// A configuration to start from. An existing one stays.
fn write_config(options: &InitOptions) -> Result<PathBuf, InitError> {
    let path = options.data_dir.join("node.toml");
    if files::read_optional(&path)?.is_none() {
        let config = NodeConfig {
            name: Some(options.node.clone()),
            data_dir: absolute(&options.data_dir),
            role: Some(Role::Processor),
            zone: Some(options.zone.clone()),
            ..NodeConfig::default()
        };
        files::write_private(&path, config.to_toml().as_bytes())?;
    }
    Ok(path)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}
