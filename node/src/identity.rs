//! Who this node is: the identity file of its data directory, and the check that the directory was
//! not copied to another machine.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use selvedge_fabric::{
    Epoch, UnixMs,
    command::Role,
    id::{Name, NodeName, ZoneName},
    key::{FabricId, Hash, PublicKey},
    statement::VoterSet,
};
use selvedge_transport::{Credentials, CredentialsError};
use serde::{Deserialize, Serialize};

use crate::{
    files::{self, FileError},
    pki::{self, NodeKey},
};

/// Version of the data directory's layout.
const LAYOUT: u32 = 1;

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The identity file is no identity.
    #[error(
        "{path} is damaged ({why}): restore it from a copy, or move the data directory away and join again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// A layout this program does not know.
    #[error(
        "{path} has layout {found}, this program knows {LAYOUT}: run the version that wrote it, or a newer one"
    )]
    Layout {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
    },
    /// The directory was made on another machine.
    #[error(
        "{path} was made on another machine ({was}), this is {is}: two nodes must not share one key. \
         If the machine was renamed, run with --accept-new-host once; if this is a copy, move the \
         directory away and join with a new token"
    )]
    Cloned {
        /// The directory.
        path: PathBuf,
        /// The machine that made it.
        was: String,
        /// This machine.
        is: String,
    },
}

/// A node as the one that admitted us knew it: enough to find the fabric before any policy arrives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    /// Its name.
    pub name: NodeName,
    /// Its key.
    pub key: PublicKey,
    /// What it does.
    pub role: Role,
    /// Where its fabric port is reached.
    pub fabric: Vec<SocketAddr>,
    /// Where its gossip port is reached.
    pub gossip: Vec<SocketAddr>,
}

/// Why a certificate that this node was given is not used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// It cannot be shown to anybody.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It is another node's.
    #[error("the certificate is that of {found}, not of {expected}")]
    Node {
        /// This node.
        expected: NodeName,
        /// The one in the certificate.
        found: NodeName,
    },
    /// It is for the other role.
    #[error("the certificate is not that of a {0}")]
    Role(Role),
    /// It has ended.
    #[error("the certificate ended {ago_s} s ago by the clock of this node: check the clocks of both nodes")]
    Ended {
        /// When, in seconds before now.
        ago_s: u64,
    },
}

/// Who this node is. Holds no secret: the keys are in files of their own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Version of the layout.
    pub layout: u32,
    /// The fabric's name.
    pub fabric: Name,
    /// The fabric's id.
    pub fabric_id: FabricId,
    /// Fence epoch at which this node joined.
    pub epoch: Epoch,
    /// The voters when this node joined, by the word of the node that admitted it: from there on it
    /// verifies who follows them. None on the first node of a fabric.
    #[serde(default)]
    pub voters: Option<VoterSet>,
    /// Public half of the fabric's recovery key: a node that has no policy yet must be able to tell whether a
    /// recovery counts. None on nodes that joined by a version that did not keep it.
    #[serde(default)]
    pub recovery_key: Option<PublicKey>,
    /// The node's name.
    pub node: NodeName,
    /// What it does.
    pub role: Role,
    /// Where it is.
    pub zone: ZoneName,
    /// The machine that the directory was made on.
    pub machine: Machine,
    /// The root certificate, DER, base64.
    #[serde(with = "files::base64_bytes")]
    pub root_cert: Vec<u8>,
    /// The issuing certificate, DER, base64.
    #[serde(with = "files::base64_bytes")]
    pub issuing_cert: Vec<u8>,
    /// The newest node certificate, DER, base64.
    #[serde(with = "files::base64_bytes")]
    pub node_cert: Vec<u8>,
    /// Nodes known when this one joined.
    pub contacts: Vec<Contact>,
}

/// What tells one machine from another: a cloned disk image differs in at least one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The host name.
    pub host: String,
    /// SHA-256 of `/etc/machine-id`; absent where there is none.
    pub machine_id: Option<Hash>,
}

impl Machine {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let id = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        let id = id.trim();
        Self { host: host_name(), machine_id: (!id.is_empty()).then(|| Hash::of(id.as_bytes())) }
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        match &self.machine_id {
            Some(id) => write!(f, ", machine id {:.8}…", id.to_string()),
            None => Ok(()),
        }
    }
}

/// The host name, from the kernel.
#[must_use]
pub fn host_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map(|s| s.trim().to_owned()).unwrap_or_default()
}

/// The files of a data directory.
#[derive(Debug, Clone)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Takes the directory, making it with mode 0700 when it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        files::private_dir(path)?;
        Ok(Self(path.to_owned()))
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The identity file.
    #[must_use]
    pub fn identity(&self) -> PathBuf {
        self.0.join("identity.json")
    }

    /// The node's private key.
    #[must_use]
    pub fn node_key(&self) -> PathBuf {
        self.0.join("node.key")
    }

    /// The node's private sealing key.
    #[must_use]
    pub fn sealing_key(&self) -> PathBuf {
        self.0.join("sealing.key")
    }

    /// The Raft store.
    #[must_use]
    pub fn raft(&self) -> PathBuf {
        self.0.join("raft")
    }

    /// The last known facts.
    #[must_use]
    pub fn facts(&self) -> PathBuf {
        self.0.join("facts")
    }

    /// The newest policy and its proof, on workload nodes.
    #[must_use]
    pub fn policy(&self) -> PathBuf {
        self.0.join("policy.bundle")
    }

    /// The endpoints registered on this node.
    #[must_use]
    pub fn endpoints(&self) -> PathBuf {
        self.0.join("endpoints.json")
    }

    /// Emergency revocations that are not policy yet.
    #[must_use]
    pub fn revocations(&self) -> PathBuf {
        self.0.join("revocations.json")
    }

    /// What is attached.
    #[must_use]
    pub fn attachments(&self) -> PathBuf {
        self.0.join("attachments.json")
    }

    /// The first command of a new fabric, until it is committed.
    #[must_use]
    pub fn bootstrap(&self) -> PathBuf {
        self.0.join("bootstrap.json")
    }
}

impl Identity {
    /// Reads the identity; `None` when the directory has none yet.
    ///
    /// # Errors
    /// When the file is damaged, of another layout, or was made on another machine.
    pub fn load(dir: &DataDir) -> Result<Option<Self>, IdentityError> {
        let path = dir.identity();
        let Some(bytes) = files::read_optional(&path)? else { return Ok(None) };
        let damaged = |why: String| IdentityError::Damaged { path: path.clone(), why };
        let identity: Self = serde_json::from_slice(&bytes).map_err(|e| damaged(e.to_string()))?;
        if identity.layout != LAYOUT {
            return Err(IdentityError::Layout { path, found: identity.layout });
        }
        Ok(Some(identity))
    }

    /// Writes the identity, atomically and durably.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, dir: &DataDir) -> Result<(), IdentityError> {
        let bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| IdentityError::Damaged { path: dir.identity(), why: e.to_string() })?;
        Ok(files::write_private(&dir.identity(), &bytes)?)
    }

    /// Checks that the directory was made on `machine`.
    ///
    /// # Errors
    /// When it was made on another one.
    pub fn check_machine(&self, dir: &DataDir, machine: &Machine) -> Result<(), IdentityError> {
        if self.machine == *machine {
            return Ok(());
        }
        Err(IdentityError::Cloned {
            path: dir.path().to_owned(),
            was: self.machine.to_string(),
            is: machine.to_string(),
        })
    }

    /// What the transport shows of this node.
    #[must_use]
    pub fn credentials(&self, key: &NodeKey) -> Credentials {
        pki::node_credentials(&self.node_cert, &self.issuing_cert, &self.root_cert, key)
    }

    /// Checks that the certificate is one that this node can show now: whoever issued it may be broken, or
    /// lie.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn check_certificate(&self, key: &NodeKey, now_ms: UnixMs) -> Result<(), CertificateError> {
        let leaf = self.credentials(key).check(&self.fabric)?;
        if leaf.node != self.node {
            return Err(CertificateError::Node { expected: self.node.clone(), found: leaf.node });
        }
        if leaf.processor != (self.role == Role::Processor) {
            return Err(CertificateError::Role(self.role));
        }
        if leaf.not_after_ms <= now_ms {
            return Err(CertificateError::Ended { ago_s: (now_ms - leaf.not_after_ms) / 1_000 });
        }
        Ok(())
    }

    /// The layout that this program writes.
    #[must_use]
    pub const fn layout() -> u32 {
        LAYOUT
    }
}
