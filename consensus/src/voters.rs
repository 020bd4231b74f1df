//! The sets of voters that the log has agreed on, as part of the replicated state.
//!
//! Raft names its voters by id; whoever verifies a policy needs their keys and their order. Both follow
//! from the log alone: a uniform membership that was committed becomes the next set as soon as the
//! policy knows the keys of all its voters. So every replica has the same sets under the same numbers,
//! whether it applied the log or got a snapshot.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use selvedge_fabric::{
    Epoch,
    key::PublicKey,
    policy::PolicyState,
    statement::{MAX_SUCCESSIONS, VoterSet},
};
use serde::{Deserialize, Serialize};

use crate::types::Member;

/// Past sets, oldest first, and the present one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoterHistory {
    sets: VecDeque<VoterSet>,
    /// Committed voters whose keys the policy does not know yet. The very first membership precedes the
    /// command that admits the first node.
    pending: Option<BTreeSet<u64>>,
}

impl VoterHistory {
    /// Takes over the voters of a committed membership. While two sets must agree, the old one speaks.
    pub(crate) fn note(&mut self, membership: &openraft::Membership<u64, Member>) {
        if let [voters] = membership.get_joint_config().as_slice() {
            self.pending = Some(voters.clone());
        }
    }

    /// Whether committed voters wait for their keys.
    pub(crate) const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Makes pending voters the present set, when the policy knows all of them.
    pub(crate) fn resolve(&mut self, policy: &PolicyState, epoch: Epoch) {
        let Some(pending) = &self.pending else { return };
        let known: BTreeMap<u64, PublicKey> =
            policy.nodes.values().map(|admission| (admission.key.node_id().0, admission.key)).collect();
        let keys: Option<BTreeSet<PublicKey>> = pending.iter().map(|id| known.get(id).copied()).collect();
        let Some(voters) = keys.filter(|keys| !keys.is_empty()) else { return };
        self.pending = None;
        if self.present().is_some_and(|set| set.voters == voters && set.epoch == epoch) {
            return;
        }
        let sequence = self.present().map_or(0, |set| set.sequence) + 1;
        if self.sets.len() > MAX_SUCCESSIONS {
            self.sets.pop_front();
        }
        self.sets.push_back(VoterSet { epoch, sequence, voters });
    }

    /// Starts anew with the voters of a recovery: nobody can sign what led to them but the recovery key.
    pub(crate) fn recovered(set: VoterSet) -> Self {
        Self { sets: VecDeque::from([set]), pending: None }
    }

    /// The present set; none before the first command.
    pub(crate) fn present(&self) -> Option<&VoterSet> {
        self.sets.back()
    }

    /// Each set that follows another, oldest first, after the one that it follows.
    pub(crate) fn successions(&self) -> impl Iterator<Item = (&VoterSet, &VoterSet)> {
        self.sets.iter().zip(self.sets.iter().skip(1))
    }

    /// The sets around one succession, the older first.
    pub(crate) fn succession(&self, sequence: u64) -> Option<(&VoterSet, &VoterSet)> {
        let first = self.sets.front()?.sequence;
        let at = usize::try_from(sequence.checked_sub(first)?).ok()?;
        Some((self.sets.get(at.checked_sub(1)?)?, self.sets.get(at)?))
    }
}
