//! Proof that an endpoint is of the service it claims.

use super::ServiceProof;
use crate::{
    UnixMs,
    cga::CgaParams,
    id::{EndpointId, ServiceRef},
    key::{FabricId, PublicKey, Signer, TokenId},
};

/// Sets apart what token keys sign here from everything else they sign.
const PROOF_CONTEXT: &[u8] = b"selvedge-service-proof-v1";

/// What a service token vouches for: that this endpoint of this node is of this service.
///
/// The proof names the node's key and the parameters of the endpoint's address, so it is worthless on
/// any other node, for another endpoint, and, by way of the CGA, at another address of the node. The
/// token's scope is not in it: that is intent, and every receiver holds it against the node's zone.
#[derive(Debug, Clone, Copy)]
pub struct ProofClaim<'a> {
    /// The fabric.
    pub fabric: &'a FabricId,
    /// The service.
    pub service: &'a ServiceRef,
    /// The node's key.
    pub node: &'a PublicKey,
    /// The endpoint.
    pub endpoint: &'a EndpointId,
    /// Parameters of the endpoint's address.
    pub cga: &'a CgaParams,
    /// When the proof ends.
    pub not_after_ms: UnixMs,
}

impl ProofClaim<'_> {
    /// The bytes that are signed. Names are preceded by their lengths and everything else is of fixed
    /// size, so no two claims have the same bytes.
    #[must_use]
    pub fn message(&self) -> Vec<u8> {
        let mut message = PROOF_CONTEXT.to_vec();
        message.extend_from_slice(&self.fabric.0);
        message.extend_from_slice(&self.node.0);
        message.extend_from_slice(&self.not_after_ms.to_be_bytes());
        message.extend_from_slice(&self.cga.modifier);
        message.push(self.cga.collision_count);
        for name in [&self.service.name, &self.service.domain, self.endpoint] {
            message.push(name.as_str().len() as u8); // A name has at most 63 bytes.
            message.extend_from_slice(name.as_str().as_bytes());
        }
        message
    }

    /// Signs the claim with a service token's key.
    #[must_use]
    pub fn sign(&self, token: TokenId, signer: &dyn Signer) -> ServiceProof {
        ServiceProof { token, not_after_ms: self.not_after_ms, signature: signer.sign(&self.message()) }
    }
}

/// The message that a service token signs to prove that an endpoint of `node` is of `service`.
#[must_use]
pub fn proof_message(
    fabric: &FabricId,
    service: &ServiceRef,
    node: &PublicKey,
    endpoint: &EndpointId,
    cga: &CgaParams,
    not_after_ms: UnixMs,
) -> Vec<u8> {
    ProofClaim { fabric, service, node, endpoint, cga, not_after_ms }.message()
}
