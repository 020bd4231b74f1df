//! The signed form of records: what is signed, and the checks on what comes from others.

use std::collections::BTreeSet;

use serde::de::DeserializeOwned;

use super::{
    Body, EndpointFact, MAX_ADDRESSES, MAX_ENDPOINT_PORTS, MAX_ENDPOINTS, MAX_LINKS, MAX_OBSERVATIONS,
    MAX_RECORD_BYTES, MAX_SOFTWARE_BYTES, MAX_WEIGHT, Record, RecordError, Topic, Version,
};
use crate::key::{FabricId, Signature, Signer};

/// Upper bound of an encoded record less its body: key, topic, three numbers, nonce, signature, and
/// the lengths of what has one.
pub(super) const MAX_ENVELOPE_BYTES: usize = 33 + 1 + 3 * 10 + 10 + 65 + 3;

/// Sets apart what node keys sign here from everything else they sign.
const RECORD_CONTEXT: &[u8] = b"selvedge-record-v1";

impl Topic {
    /// Its number in signed bytes; never changes.
    const fn code(self) -> u8 {
        match self {
            Self::Presence => 0,
            Self::Endpoints => 1,
            Self::Observations => 2,
            Self::Links => 3,
            Self::Enforced => 4,
            Self::Load => 5,
        }
    }
}

impl Body {
    /// The topic it belongs to.
    #[must_use]
    pub const fn topic(&self) -> Topic {
        match self {
            Self::Presence(_) => Topic::Presence,
            Self::Endpoints(_) => Topic::Endpoints,
            Self::Observations(_) => Topic::Observations,
            Self::Links(_) => Topic::Links,
            Self::Enforced(_) => Topic::Enforced,
            Self::Load(_) => Topic::Load,
        }
    }

    /// Checks every bound. Receivers do so too: a genuine signature makes a node no less buggy.
    fn check(&self) -> Result<(), RecordError> {
        match self {
            Self::Presence(presence) => {
                bound("fabric addresses", presence.addresses.len(), MAX_ADDRESSES)?;
                bound("gossip addresses", presence.gossip.len(), MAX_ADDRESSES)?;
                bound("API addresses", presence.api.len(), MAX_ADDRESSES)?;
                bound("bytes of software version", presence.software.len(), MAX_SOFTWARE_BYTES)
            }
            Self::Endpoints(endpoints) => check_endpoints(endpoints),
            Self::Observations(seen) => bound("observations", seen.len(), MAX_OBSERVATIONS),
            Self::Links(links) => bound("links", links.len(), MAX_LINKS),
            Self::Enforced(_) | Self::Load(_) => Ok(()),
        }
    }
}

fn check_endpoints(endpoints: &[EndpointFact]) -> Result<(), RecordError> {
    bound("endpoints", endpoints.len(), MAX_ENDPOINTS)?;
    let mut ids = BTreeSet::new();
    for endpoint in endpoints {
        bound("ports of an endpoint", endpoint.ports.len(), MAX_ENDPOINT_PORTS)?;
        bound("weight of an endpoint", usize::from(endpoint.weight), usize::from(MAX_WEIGHT))?;
        if !ids.insert(&endpoint.id) {
            return Err(RecordError::Malformed(format!("endpoint {} is there twice", endpoint.id)));
        }
    }
    Ok(())
}

const fn bound(what: &'static str, count: usize, limit: usize) -> Result<(), RecordError> {
    if count > limit { Err(RecordError::Bound { what, count, limit }) } else { Ok(()) }
}

impl Record {
    /// Encodes and signs a body.
    ///
    /// # Errors
    /// When the body exceeds its bounds.
    pub fn sign(
        fabric: &FabricId,
        signer: &dyn Signer,
        version: Version,
        boot_nonce: u64,
        body: &Body,
    ) -> Result<Self, RecordError> {
        body.check()?;
        let mut record = Self {
            node: signer.public_key(),
            topic: body.topic(),
            version,
            boot_nonce,
            body: postcard::to_stdvec(body).map_err(malformed)?,
            signature: Signature([0; 64]),
        };
        record.check_size()?;
        record.signature = signer.sign(&record.signed_bytes(fabric));
        Ok(record)
    }

    /// Checks signature and bounds and decodes the body. Says nothing on whether the node is admitted;
    /// [`crate::view`] decides on that.
    ///
    /// # Errors
    /// What is wrong with the record.
    pub fn open(&self, fabric: &FabricId) -> Result<Body, RecordError> {
        self.check_size()?;
        if !self.node.verifies(&self.signed_bytes(fabric), &self.signature) {
            return Err(RecordError::Signature);
        }
        let body: Body = decode_all(&self.body)?;
        if body.topic() != self.topic {
            return Err(RecordError::Malformed(format!(
                "a body on {:?} under the topic {:?}",
                body.topic(),
                self.topic
            )));
        }
        body.check()?;
        Ok(body)
    }

    /// The form in which a record is carried and stored.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default() // Cannot fail: it is bytes and integers only.
    }

    /// Reads what [`Record::encode`] wrote. Signature and body are not looked at yet.
    ///
    /// # Errors
    /// When the bytes are too many or no record.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        bound("bytes of a record", bytes.len(), MAX_RECORD_BYTES)?;
        decode_all(bytes)
    }

    fn check_size(&self) -> Result<(), RecordError> {
        bound("bytes of a record", self.body.len().saturating_add(MAX_ENVELOPE_BYTES), MAX_RECORD_BYTES)
    }

    /// Everything but the body has a fixed size, and the body comes last, so no two records have the
    /// same bytes.
    pub(super) fn signed_bytes(&self, fabric: &FabricId) -> Vec<u8> {
        let mut message = RECORD_CONTEXT.to_vec();
        message.extend_from_slice(&fabric.0);
        message.extend_from_slice(&self.node.0);
        message.push(self.topic.code());
        let Version { epoch, incarnation, sequence } = self.version;
        for number in [epoch, incarnation, sequence, self.boot_nonce] {
            message.extend_from_slice(&number.to_be_bytes());
        }
        message.extend_from_slice(&self.body);
        message
    }
}

/// Bytes after the value would be a second meaning of the same record: refused.
fn decode_all<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    match postcard::take_from_bytes(bytes).map_err(malformed)? {
        (value, []) => Ok(value),
        (_, rest) => Err(RecordError::Malformed(format!("{} bytes too many", rest.len()))),
    }
}

fn malformed(error: postcard::Error) -> RecordError {
    RecordError::Malformed(error.to_string())
}
