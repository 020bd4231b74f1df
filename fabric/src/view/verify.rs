//! Whether an endpoint is what its node says it is.
//!
//! A record's signature says who announces. What is announced is checked here, by every receiver for
//! itself: the service by a proof that only a holder of the service's token can make, the addresses by
//! arithmetic and by hash over the announcing node's key. A node, a processor included, that is taken
//! over can therefore claim no service whose token it was never given, and no address of another node.

use crate::{
    UnixMs, address, cga,
    command::{AdmissionState, ServiceToken, TokenScope},
    id::{NodeName, ZoneName},
    policy::{Admission, FabricParams, PolicyState},
    record::{EndpointFact, ProofClaim},
};

/// Why an endpoint of a genuine record is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// The node is not admitted, or not in service.
    #[error("node is not admitted")]
    NotAdmitted,
    /// The token is not known for that service, expired, or out of its scope.
    #[error("service proof: {0}")]
    Proof(String),
    /// An address that does not belong to the node.
    #[error("address: {0}")]
    Address(String),
}

/// Checks that an endpoint may be of the service it claims and has addresses of its node.
///
/// # Errors
/// Why it is not believed.
pub fn verify_endpoint(
    policy: &PolicyState,
    node: &NodeName,
    endpoint: &EndpointFact,
    now_ms: UnixMs,
) -> Result<(), EndpointError> {
    let (params, admission, token) = check_claims(policy, node, endpoint, now_ms)?;
    check_ipv4(params, admission, endpoint)?;
    check_ipv6(params, admission, endpoint)?;
    let claim = ProofClaim {
        fabric: &params.id,
        service: &endpoint.service,
        node: &admission.key,
        endpoint: &endpoint.id,
        cga: &endpoint.cga,
        not_after_ms: endpoint.proof.not_after_ms,
    };
    if token.key.verifies(&claim.message(), &endpoint.proof.signature) {
        Ok(())
    } else {
        Err(EndpointError::Proof(format!("the signature is not of token {}", token.id)))
    }
}

/// The part of [`verify_endpoint`] that time and policy can change under an endpoint that was verified
/// once, cheap enough for every plan. The node's key, and with it its addresses, cannot change: a node
/// with another key is another node.
pub(crate) fn still_stands(
    policy: &PolicyState,
    node: &NodeName,
    endpoint: &EndpointFact,
    now_ms: UnixMs,
) -> bool {
    check_claims(policy, node, endpoint, now_ms).is_ok()
}

fn check_claims<'a>(
    policy: &'a PolicyState,
    node: &NodeName,
    endpoint: &EndpointFact,
    now_ms: UnixMs,
) -> Result<(&'a FabricParams, &'a Admission, &'a ServiceToken), EndpointError> {
    let params = policy.params.as_ref().ok_or(EndpointError::NotAdmitted)?;
    let admission = policy.nodes.get(node).ok_or(EndpointError::NotAdmitted)?;
    if admission.state == AdmissionState::Revoked {
        return Err(EndpointError::NotAdmitted);
    }
    let token = check_token(policy, endpoint, now_ms)?;
    if !in_scope(&token.scope, node, &admission.zone) {
        return Err(EndpointError::Proof(format!(
            "token {} may not be used on node {node} in zone {}",
            token.id, admission.zone
        )));
    }
    Ok((params, admission, token))
}

fn check_token<'a>(
    policy: &'a PolicyState,
    endpoint: &EndpointFact,
    now_ms: UnixMs,
) -> Result<&'a ServiceToken, EndpointError> {
    let id = &endpoint.proof.token;
    let refuse = |why: String| Err(EndpointError::Proof(why));
    let Some(token) = policy.service_tokens.get(id) else {
        return refuse(format!("token {id} is not known here, or was revoked"));
    };
    if token.service != endpoint.service {
        return refuse(format!("token {id} is of {}, not of {}", token.service, endpoint.service));
    }
    if token.not_after_ms <= now_ms {
        return refuse(format!("token {id} has expired"));
    }
    if endpoint.proof.not_after_ms <= now_ms {
        return refuse("the proof has expired; register the endpoint again".to_owned());
    }
    Ok(token)
}

fn in_scope(scope: &TokenScope, node: &NodeName, zone: &ZoneName) -> bool {
    let anywhere = scope.nodes.is_empty() && scope.zones.is_empty();
    anywhere || scope.nodes.contains(node) || scope.zones.iter().any(|allowed| contains_zone(allowed, zone))
}

/// A zone without a region stands for its whole cloud.
fn contains_zone(outer: &ZoneName, zone: &ZoneName) -> bool {
    outer == zone || (outer.region().is_none() && outer.cloud() == zone.cloud())
}

fn check_ipv4(
    params: &FabricParams,
    admission: &Admission,
    endpoint: &EndpointFact,
) -> Result<(), EndpointError> {
    let Some(address) = endpoint.ipv4 else { return Ok(()) };
    let Some(block) = address::block_of(params, admission) else {
        return Err(EndpointError::Address("the node has no IPv4 block in the fabric's pool".to_owned()));
    };
    if block.is_for_endpoint(address) {
        Ok(())
    } else {
        Err(EndpointError::Address(format!(
            "{address} is not one of {block} that an endpoint of the node may have"
        )))
    }
}

fn check_ipv6(
    params: &FabricParams,
    admission: &Admission,
    endpoint: &EndpointFact,
) -> Result<(), EndpointError> {
    let Some(address) = endpoint.ipv6 else { return Ok(()) };
    if address == address::node_ipv6(params, &admission.zone, &admission.key) {
        return Err(EndpointError::Address(format!("{address} is the node's own")));
    }
    let prefix = address::zone_prefix(params, &admission.zone);
    match cga::verify(address, prefix, &admission.key.spki_der(), &endpoint.cga) {
        Ok(_sec) => Ok(()),
        Err(error) => Err(EndpointError::Address(error.to_string())),
    }
}
