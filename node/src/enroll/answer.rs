//! What a seed answered, judged before anything of it is kept. Only a processor with the fabric's key gets
//! to answer, but one that is broken must not leave a node behind that can neither start nor join again.

use selvedge_fabric::{UnixMs, id::NodeName, key::Hash, statement::BundleError, token::JoinTokenText};

use super::JoinReply;
use crate::{
    identity::{CertificateError, Identity, Machine},
    pki::NodeKey,
};

/// Why an answer is not used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Another fabric than the token's.
    #[error("it is of another fabric than the token")]
    Fabric,
    /// Another root than the pinned one.
    #[error("its CA is not the one whose pin the join token holds")]
    Pin,
    /// Voters from which no policy can be verified.
    #[error("its voters cannot be: {0}")]
    Voters(String),
    /// The certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
}

/// The identity of a node that was admitted as `name` with `token`.
///
/// # Errors
/// When the answer does not fit the token, the key or itself.
pub fn identity(
    reply: JoinReply,
    token: &JoinTokenText,
    name: NodeName,
    key: &NodeKey,
    now_ms: UnixMs,
) -> Result<Identity, AnswerError> {
    let JoinReply { params, epoch, voters, certificate, contacts } = reply;
    if params.id != token.fabric {
        return Err(AnswerError::Fabric);
    }
    if Hash::of(&params.root_cert) != token.ca_pin {
        return Err(AnswerError::Pin);
    }
    if voters.epoch != epoch {
        return Err(AnswerError::Voters(format!("of epoch {}, not {epoch}", voters.epoch)));
    }
    voters.check_size().map_err(|e: BundleError| AnswerError::Voters(e.to_string()))?;
    let identity = Identity {
        layout: Identity::layout(),
        fabric: params.name,
        fabric_id: params.id,
        epoch,
        voters: Some(voters),
        recovery_key: Some(params.recovery_key),
        node: name,
        role: token.role,
        zone: token.zone.clone(),
        machine: Machine::this(),
        root_cert: params.root_cert,
        issuing_cert: params.issuing_cert,
        node_cert: certificate,
        contacts,
    };
    identity.check_certificate(key, now_ms)?;
    Ok(identity)
}
