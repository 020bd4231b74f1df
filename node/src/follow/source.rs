//! Where a node has its policy from.

use std::{sync::Arc, time::Duration};

use selvedge_consensus::{ProposeError, QuorumStatus, Replica};
use selvedge_fabric::{Revision, policy::PolicyState};
use tokio::sync::watch;

use super::Follower;

/// A replica on processors, a follower on workload nodes.
#[derive(Clone)]
pub enum PolicySource {
    /// Takes part in agreeing on the policy.
    Replica(Replica),
    /// Is shown what was agreed.
    Follower(Arc<Follower>),
}

impl PolicySource {
    /// The newest policy, there from the first moment if this node ever had one.
    #[must_use]
    pub fn policy(&self) -> watch::Receiver<Arc<PolicyState>> {
        match self {
            Self::Replica(replica) => replica.policy(),
            Self::Follower(follower) => follower.policy(),
        }
    }

    /// How writes fare, as far as this node knows.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<Arc<QuorumStatus>> {
        match self {
            Self::Replica(replica) => replica.status(),
            Self::Follower(follower) => follower.status(),
        }
    }

    /// Waits until [`Self::policy`] is as new as every write that was acknowledged before the call.
    ///
    /// # Errors
    /// When that cannot be known now.
    pub async fn barrier(&self, timeout: Duration) -> Result<Revision, ProposeError> {
        match self {
            Self::Replica(replica) => replica.barrier(timeout).await,
            Self::Follower(follower) => follower.barrier(timeout).await,
        }
    }

    /// The replica, where there is one: writes need it.
    #[must_use]
    pub const fn replica(&self) -> Option<&Replica> {
        match self {
            Self::Replica(replica) => Some(replica),
            Self::Follower(_) => None,
        }
    }

    /// Stops what takes part in agreement; a follower stops with the node's tasks.
    pub async fn shutdown(&self) {
        if let Self::Replica(replica) = self {
            replica.shutdown().await;
        }
    }
}
