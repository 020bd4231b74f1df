//! `node revoke --recovery-key`: revocation without a quorum.

use std::path::Path;

use selvedge_fabric::{
    id::NodeName,
    key::Signer,
    statement::{Revocation, SignedRevocation},
};
use selvedge_node::{
    api::types::{RevocationDraft, RevocationReply, RevocationStatement},
    clock,
    pki::{NodeKey, read_recovery_key},
};

use super::DONE;
use crate::{
    args::Global,
    client::Ask,
    failure::{Failure, Outcome},
};

/// Signs the revocation of a node here, and hands what was signed to the node that is asked. The key stays
/// in this process.
pub(crate) async fn revoke(global: &Global, node: &NodeName, file: &Path) -> Outcome {
    let key = read_recovery_key(file).map_err(|error| {
        Failure::usage(format!("recovery key: {error}"))
            .remedy("give the file that `selvedge fabric init` made, mode 0600 (recovery-FABRIC.key)")
    })?;
    let client = global.client()?;
    let draft: RevocationDraft = client.ask(Ask::get(format!("/v1/nodes/{node}/revocation"))).await?;
    let signed = sign(&draft, node, &key, file)?;
    let reply: RevocationReply = client.ask(Ask::post("/v1/revocations").json(&statement(&signed))?).await?;
    global.printer().show(&reply, |_| text(&reply))?;
    DONE
}

fn sign(draft: &RevocationDraft, node: &NodeName, key: &NodeKey, file: &Path) -> Outcome<SignedRevocation> {
    if draft.recovery_key != key.public_key().to_string() {
        let what = format!("{} does not hold the recovery key of this fabric", file.display());
        return Err(Failure::new(what).remedy(format!(
            "the fabric's recovery key has the public half {}; each fabric has its own",
            draft.recovery_key
        )));
    }
    // The name that was asked for is signed, not the one that came back.
    let odd = |what: &str| Failure::new(format!("the node's answer is not understood: {what}"));
    let revocation = Revocation {
        fabric: draft.fabric_id.parse().map_err(|_| odd("fabric_id"))?,
        epoch: draft.fence_epoch,
        node: node.clone(),
        key: draft.key.parse().map_err(|_| odd("key"))?,
        at_ms: clock::unix_ms(),
    };
    Ok(revocation.sign(key))
}

fn statement(signed: &SignedRevocation) -> RevocationStatement {
    let revocation = &signed.revocation;
    RevocationStatement {
        fabric_id: revocation.fabric.to_string(),
        fence_epoch: revocation.epoch,
        node: revocation.node.to_string(),
        key: revocation.key.to_string(),
        at_ms: revocation.at_ms,
        signature: signed.signature.to_string(),
    }
}

fn text(reply: &RevocationReply) -> String {
    let node = &reply.node;
    match (reply.agreed, reply.quorum) {
        (true, _) => format!("{node} is out already: the policy says so\n"),
        (false, true) => {
            format!("{node} is revoked from now on; there is a quorum, which makes policy of it\n")
        }
        (false, false) => format!(
            "{node} is revoked from now on, by every node that this one reaches\nit becomes policy when there \
             is a quorum; until then `selvedge status` shows it\n"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft(recovery_key: String) -> RevocationDraft {
        let key = |n| selvedge_fabric::key::PublicKey([n; 32]).to_string();
        let fabric_id = selvedge_fabric::key::FabricId([1; 16]).to_string();
        RevocationDraft { fabric_id, fence_epoch: 3, node: "aws-9".into(), key: key(7), recovery_key }
    }

    #[test]
    fn only_the_fabrics_own_recovery_key_signs() {
        let key = NodeKey::generate().expect("a key");
        let (node, file) = (NodeName::new("aws-2").expect("a name"), Path::new("r.key"));
        let signed = sign(&draft(key.public_key().to_string()), &node, &key, file).expect("signed");
        let revocation = &signed.revocation;
        assert_eq!((&revocation.node, revocation.epoch, revocation.key.0), (&node, 3, [7; 32]));
        assert!(key.public_key().verifies(&revocation.signed_bytes(), &signed.signature));
        let other = draft(selvedge_fabric::key::PublicKey([9; 32]).to_string());
        let refused = sign(&other, &node, &key, file).expect_err("another key");
        assert!(refused.to_string().contains("does not hold the recovery key"), "{refused}");
    }
}
