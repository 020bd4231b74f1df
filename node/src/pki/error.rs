//! What can go wrong with keys and certificates, with the file and the remedy.

use std::{io, path::PathBuf};

/// Why a key or certificate cannot be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file operation failed.
    #[error("cannot {what} {path}: {source}")]
    File {
        /// The operation.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key file that others than its owner can reach.
    #[error(
        "{path} has mode {mode:04o}: others than its owner can reach the key in it; if nobody did, run \
         `chmod 600 {path}`, otherwise replace the key"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A key file with something else in it.
    #[error("{path} holds no usable key: {why}; restore it from a backup, or let the node join anew")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The system gave no randomness.
    #[error("cannot generate a key: the system's random generator failed")]
    Random,
    /// A certificate cannot be made or read.
    #[error("certificate: {0}")]
    Certificate(String),
    /// A signing request that is malformed or not signed by its own key.
    #[error("signing request: {0}")]
    Request(String),
    /// A secret cannot be sealed to that key.
    #[error("cannot seal to the key of that node: {0}")]
    Seal(String),
    /// A sealed secret is not for this node, or damaged.
    #[error("the sealed issuing key cannot be opened: it is damaged or meant for another node's sealing key")]
    Open,
    /// An issuing key that is not that of the issuing certificate.
    #[error("the issuing key does not fit the fabric's issuing certificate: {0}")]
    Issuer(String),
}
