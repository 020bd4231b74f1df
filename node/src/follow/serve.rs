//! The processor's side: bundles for whoever is admitted, and vouching for workload nodes.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use selvedge_consensus::Replica;
use selvedge_fabric::command::Role;
use selvedge_membership::Membership;
use selvedge_transport::{Handler, PeerIdentity};

use super::{Answer, Ask, QuorumWord, decode, encode, poll::LONG_POLL};
use crate::gate::PolicyGate;

/// Longest time a node may have a linearizable read wait.
const MAX_BARRIER: Duration = Duration::from_secs(10);

/// Answers workload nodes.
pub struct FabricHandler {
    /// Where the policy and its proof come from.
    pub replica: Replica,
    /// Through whom the others learn that a workload node lives.
    pub membership: Membership,
    /// Who is what.
    pub gate: Arc<PolicyGate>,
}

#[async_trait]
impl Handler for FabricHandler {
    async fn request(&self, peer: Option<PeerIdentity>, _: SocketAddr, body: Bytes) -> Result<Bytes, String> {
        let peer = peer.ok_or("a certificate is needed here")?;
        let answer = match decode(&body)? {
            Ask::Policy { have, voters, wait_ms } => self.policy(0, have, voters, wait_ms).await?,
            Ask::PolicyOf { epoch, have, voters, wait_ms } => {
                self.policy(epoch, have, voters, wait_ms).await?
            }
            Ask::Alive { incarnation } => self.vouch(&peer, incarnation)?,
            Ask::Barrier { within_ms } => self.barrier(within_ms).await?,
        };
        Ok(encode(&answer).into())
    }
}

impl FabricHandler {
    async fn policy(&self, epoch: u64, have: u64, voters: u64, wait_ms: u64) -> Result<Answer, String> {
        let wait = Duration::from_millis(wait_ms).min(LONG_POLL);
        let bundle = self.replica.bundle(epoch, have, voters, wait).await.map_err(|e| e.to_string())?;
        Ok(Answer::Policy { bundle: bundle.map(|b| b.encode()), quorum: self.quorum() })
    }

    fn quorum(&self) -> QuorumWord {
        let status = self.replica.status().borrow().clone();
        QuorumWord {
            leader: status.leader.clone(),
            term: status.term,
            quorum: status.quorum,
            missing: status.voters.iter().filter(|v| !v.live).map(|v| v.name.clone()).collect(),
            survives: status.survives.clone(),
        }
    }

    /// Only for workload nodes: processors are watched by each other.
    fn vouch(&self, peer: &PeerIdentity, incarnation: u64) -> Result<Answer, String> {
        match self.gate.role(peer)? {
            Role::Workload => self.membership.vouch(&peer.node, incarnation),
            Role::Processor => {
                return Err(format!("{} is a processor and needs nobody to vouch for it", peer.node));
            }
        }
        Ok(Answer::Vouched)
    }

    async fn barrier(&self, within_ms: u64) -> Result<Answer, String> {
        let within = Duration::from_millis(within_ms).min(MAX_BARRIER);
        self.replica.barrier(within).await.map(Answer::Barrier).map_err(|e| e.to_string())
    }
}
