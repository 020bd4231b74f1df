//! Emergency revocation by the recovery key.

use selvedge_fabric::{
    id::NodeName,
    key::PublicKey,
    statement::{Revocation, RevocationError, SignedRevocation, Taken},
};

use super::{Node, Result};
use crate::api::{ApiError, Caller, Code, types};

/// Most nodes named in the alarm; the rest are counted.
const MAX_NAMED: usize = 8;

impl Node {
    /// What there is to sign, so that whoever holds the recovery key need not know it by heart.
    pub(super) fn draft_revocation(&self, node: &NodeName) -> Result<types::RevocationDraft> {
        let policy = self.policy();
        let Some(params) = &policy.params else {
            return Err(ApiError::new(Code::Unavailable, RevocationError::NoPolicy.to_string()));
        };
        let admission = policy.nodes.get(node).ok_or_else(|| {
            ApiError::not_found(format!("there is no node {node}")).remedy("selvedge members")
        })?;
        Ok(types::RevocationDraft {
            fabric_id: params.id.to_string(),
            fence_epoch: self.quorum().fence_epoch,
            node: node.to_string(),
            key: admission.key.to_string(),
            recovery_key: params.recovery_key.to_string(),
        })
    }

    pub(super) fn take_revocation(
        &self,
        caller: &Caller,
        statement: &types::RevocationStatement,
    ) -> Result<types::RevocationReply> {
        caller.require_admin("revoke nodes")?;
        let signed = parse(statement)?;
        let node = signed.revocation.node.clone();
        self.check_target(&node, &signed.revocation.key)?;
        let taken = self.revocations.take(signed).map_err(|error| {
            let code = match error {
                RevocationError::NoPolicy => Code::Unavailable,
                RevocationError::Full => Code::Limit,
                RevocationError::Fabric(_) | RevocationError::Signature(_) => Code::Refused,
            };
            ApiError::new(code, error.to_string())
        })?;
        Ok(types::RevocationReply {
            node: node.to_string(),
            agreed: taken == Taken::Settled,
            quorum: self.quorum().quorum,
        })
    }

    /// A mistaken key would be refused for good while its node goes on. Other nodes take the statement
    /// as it is: their policy may be older.
    fn check_target(&self, node: &NodeName, key: &PublicKey) -> Result<()> {
        match self.policy().nodes.get(node) {
            Some(admission) if admission.key == *key => Ok(()),
            Some(_) => Err(ApiError::new(Code::Conflict, format!("{node} is admitted under another key"))
                .remedy("ask again for what there is to sign")),
            None => Err(ApiError::not_found(format!("there is no node {node}")).remedy("selvedge members")),
        }
    }

    pub(super) fn revocation_alarm(&self) -> Option<types::Alarm> {
        let known = self.revocations.known().borrow().clone();
        let names: Vec<_> = known.iter().take(MAX_NAMED).map(|s| s.revocation.node.to_string()).collect();
        let more = match known.iter().len().saturating_sub(MAX_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        (!known.is_empty()).then(|| types::Alarm {
            code: "emergency-revocation".to_owned(),
            message: format!(
                "revoked by the recovery key, and not by policy yet: {}{more}; that follows by itself when \
                 there is a quorum",
                names.join(", ")
            ),
        })
    }
}

fn parse(statement: &types::RevocationStatement) -> Result<SignedRevocation> {
    let bad = |what: &str, why: &dyn std::fmt::Display| ApiError::bad_request(format!("{what}: {why}"));
    let revocation = Revocation {
        fabric: statement.fabric_id.parse().map_err(|e| bad("fabric_id", &e))?,
        epoch: statement.fence_epoch,
        node: NodeName::new(&statement.node).map_err(|e| bad("node", &e))?,
        key: statement.key.parse().map_err(|e| bad("key", &e))?,
        at_ms: statement.at_ms,
    };
    let signature = statement.signature.parse().map_err(|e| bad("signature", &e))?;
    Ok(SignedRevocation { revocation, signature })
}
