//! Gives the addresses of removed nodes free again, once nobody routes to them any more.

use std::{sync::Arc, time::Duration};

use selvedge_consensus::{Proposal, Replica};
use selvedge_fabric::{
    Epoch,
    command::{AdmissionState, Command},
    id::NodeName,
    key::CommandId,
    policy::PolicyState,
    view::View,
};
use tokio::sync::watch;

/// How often the leader looks. Nobody waits for a free block while the pool has others.
const INTERVAL: Duration = Duration::from_secs(10);
/// Time for the command to be committed; if it is not, the next look tries again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Proposes the release of blocks whose withdrawal every node enforces. Only the leader does.
pub(super) async fn run(replica: Replica, view: watch::Receiver<Arc<View>>, me: NodeName) {
    let mut tick = tokio::time::interval(INTERVAL);
    loop {
        tick.tick().await;
        if replica.status().borrow().leader.as_ref() != Some(&me) {
            continue;
        }
        let epoch = replica.status().borrow().fence_epoch;
        let blocks = releasable(&replica.policy().borrow().clone(), &view.borrow().clone(), epoch, &me);
        if blocks.is_empty() {
            continue;
        }
        let command = Command::ReleaseBlocks { blocks };
        let proposal = Proposal { id: CommandId(rand::random()), actor: format!("node:{me}"), command };
        if let Err(error) = replica.propose(proposal, TIMEOUT).await {
            tracing::debug!(%error, "blocks of removed nodes are not released yet");
        }
    }
}

/// Blocks of nodes whose removal every admitted node enforces. A node that is not heard of holds them
/// back: it may still send to the old owner. So does one that enforces a policy of another fence epoch.
fn releasable(policy: &PolicyState, view: &View, epoch: Epoch, me: &NodeName) -> Vec<u32> {
    let serving = policy.nodes.iter().filter(|(name, a)| a.state != AdmissionState::Revoked && *name != me);
    let said = |name| view.nodes.get(name).and_then(|n| n.enforced).filter(|e| e.epoch == epoch);
    let enforced = serving.map(|(name, _)| said(name).map_or(0, |e| e.revision));
    let everywhere = enforced.min().unwrap_or(policy.revision);
    let done = policy.removed.values().filter(|removed| removed.revision <= everywhere);
    done.filter_map(|removed| removed.block).collect()
}

#[cfg(test)]
mod tests {
    use selvedge_fabric::{
        command::Role,
        key::{Hash, PublicKey},
        policy::{Admission, Removed},
        record::Enforced,
        view::{Liveness, NodeView},
    };

    use super::*;

    #[test]
    fn a_block_waits_for_the_last_node() {
        let name = |n: &str| NodeName::new(n).expect("a name");
        let mut policy = PolicyState { revision: 9, ..PolicyState::default() };
        let admission = Admission {
            key: PublicKey([1; 32]),
            sealing_key: PublicKey([2; 32]),
            role: Role::Processor,
            zone: "aws".parse().expect("a zone"),
            state: AdmissionState::Active,
            block: 1,
            token: None,
            admitted_ms: 0,
        };
        policy.nodes.insert(name("a"), admission.clone());
        policy.nodes.insert(name("b"), admission);
        let removed = Removed { name: name("c"), revision: 7, block: Some(3) };
        policy.removed.insert(PublicKey([3; 32]).node_id(), removed);
        let mut view = View::default();
        assert!(releasable(&policy, &view, 0, &name("a")).is_empty(), "b was not heard of");
        for (revision, blocks) in [(6, vec![]), (7, vec![3])] {
            let enforced = Some(Enforced { epoch: 0, revision, hash: Hash([0; 32]) });
            view.nodes.insert(name("b"), seen(enforced));
            assert_eq!(releasable(&policy, &view, 0, &name("a")), blocks);
        }
    }

    fn seen(enforced: Option<Enforced>) -> NodeView {
        NodeView {
            key: PublicKey([1; 32]),
            state: Liveness::Alive,
            incarnation: 1,
            addresses: Vec::new(),
            gossip: Vec::new(),
            api: Vec::new(),
            rtt_us: None,
            enforced,
            load: None,
            links: Vec::new(),
            heard_ms: None,
            quarantined: false,
            endpoints: std::collections::BTreeMap::new(),
        }
    }
}
