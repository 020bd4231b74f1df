//! A replica enters another fence epoch, on the word of the recovery key.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
};

use openraft::Membership as RaftMembership;
use selvedge_fabric::{
    event::Severity,
    id::NodeName,
    key::{Hash, PublicKey},
    policy::PolicyState,
    statement::{RecoveryError, SignedRecovery, VoterSet},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::lost::{self, Lost, Replayed};
use crate::{
    core::Core,
    image,
    replica::{Shared, start_generation},
    store::{Store, StoreError, epoch::base_log_id, files},
    types::{Member, Membership, SnapshotMeta},
    voters::VoterHistory,
};

/// What this node last enforced, kept while its new replica knows nothing yet.
const LAST_POLICY: &str = "last-policy";

/// Why a recovery was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum FenceError {
    /// It does not count here.
    #[error(transparent)]
    Statement(#[from] RecoveryError),
    /// This node does not know its fabric's recovery key.
    #[error("this node has no policy yet, and cannot know the fabric's recovery key")]
    NoKey,
    /// This node is further already.
    #[error("fence epoch {offered} is not above {present}, which this node is at")]
    Lower {
        /// The epoch of the statement.
        offered: u64,
        /// The epoch of this node.
        present: u64,
    },
    /// The state that came with it is another one than was signed.
    #[error("the state that came with the recovery is not the one that was signed")]
    Image,
    /// The node is about to stop.
    #[error("the node is shutting down")]
    Stopping,
    /// The disk.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The new replica does not start.
    #[error("the replica does not start under the new fence epoch: {0}. Restart this node")]
    Start(String),
}

/// Takes over what other replicas show, until the node stops.
pub(crate) async fn run(
    shared: Weak<Shared>,
    mut shown: mpsc::Receiver<SignedRecovery>,
    stop: CancellationToken,
) {
    while let Some(Some(signed)) = stop.run_until_cancelled(shown.recv()).await {
        let Some(shared) = shared.upgrade() else { return };
        if let Err(error) = accept(&shared, signed, None).await {
            tracing::warn!(%error, "a recovery was shown and does not count");
        }
    }
}

/// Enters the epoch of `signed`, with the state of `image` if it is given. The same statement again is no
/// error and changes nothing.
pub(crate) async fn accept(
    shared: &Arc<Shared>,
    signed: SignedRecovery,
    image: Option<Vec<u8>>,
) -> Result<(), FenceError> {
    let _one_at_a_time = shared.changing.lock().await;
    if shared.stop.is_cancelled() {
        return Err(FenceError::Stopping);
    }
    let old = shared.generation();
    check(shared, &old.core, &signed)?;
    let present = old.core.link.epoch();
    if old.core.link.recovery.as_deref() == Some(&signed) {
        return Ok(());
    }
    if signed.epoch() <= present {
        return Err(FenceError::Lower { offered: signed.epoch(), present });
    }
    let policy_of_image = image.as_deref().map(|bytes| open_image(bytes, &signed)).transpose()?;
    tracing::warn!(epoch = signed.epoch(), before = present, "entering the fence epoch of a recovery");
    old.end().await;
    let (dir, gate) = (shared.dir.clone(), old.gate.clone());
    let engine = Arc::clone(&shared.engine);
    let statement = signed.clone();
    let work = move || -> Result<Lost, StoreError> {
        // From here on nothing of the old epoch is written any more.
        gate.close();
        enter(&Store::new(engine), &dir, &statement, policy_of_image)
    };
    let entered = tokio::task::spawn_blocking(work).await;
    let entered = entered.unwrap_or_else(|stopped| {
        Err(StoreError::Io {
            what: "enter a fence epoch in",
            path: shared.dir.clone(),
            source: std::io::Error::other(stopped),
        })
    })?;
    let generation = start_generation(shared).await.map_err(|e| FenceError::Start(e.to_string()))?;
    shared.replace(generation);
    tell(shared, &signed, &entered);
    Ok(())
}

/// Whether the recovery key of this fabric signed it.
fn check(shared: &Shared, core: &Core, signed: &SignedRecovery) -> Result<(), FenceError> {
    let policy = core.policy.borrow().clone();
    let anchor = policy.params.as_ref().map(|params| (params.id, params.recovery_key));
    let (fabric, key) = anchor.or(shared.anchor).ok_or(FenceError::NoKey)?;
    Ok(signed.verify(&fabric, &key)?)
}

fn open_image(bytes: &[u8], signed: &SignedRecovery) -> Result<PolicyState, FenceError> {
    if Hash::of(bytes) != signed.recovery.base.image {
        return Err(FenceError::Image);
    }
    image::decode(bytes).map(|(policy, _)| policy).map_err(|_| FenceError::Image)
}

/// Replaces everything in the store by the base, after what would be lost was saved.
fn enter(
    store: &Store,
    dir: &std::path::Path,
    signed: &SignedRecovery,
    given: Option<PolicyState>,
) -> Result<Lost, StoreError> {
    let Replayed { at_base, lost, newest } = lost::replay(store, &signed.recovery)?;
    if !lost.entries.is_empty() || lost.unlisted > 0 {
        lost::save(dir, &lost)?;
    }
    match given.map(Arc::new).or_else(|| at_base.map(|state| state.policy)) {
        Some(policy) => {
            let (meta, bytes) = base_snapshot(signed, &policy);
            store.enter_epoch(signed, Some((&meta, &bytes)))?;
        }
        None => {
            files::write_private(&dir.join(LAST_POLICY), &newest.policy.encode())?;
            store.enter_epoch(signed, None)?;
        }
    }
    Ok(lost)
}

/// What a node enforced before it was fenced: shown until its new replica has a policy of its own.
pub(crate) fn last_policy(dir: &std::path::Path) -> Option<PolicyState> {
    PolicyState::decode(&files::read_optional(&dir.join(LAST_POLICY)).ok()??).ok()
}

/// The base as a snapshot. It is the same on every node: members' addresses are left out, for each node knows
/// others; the leader fills them in by its first change.
fn base_snapshot(signed: &SignedRecovery, policy: &PolicyState) -> (SnapshotMeta, Vec<u8>) {
    let voters = &signed.recovery.voters;
    let members = members(policy, voters);
    let ids: BTreeSet<u64> = members.keys().copied().collect();
    let log_id = base_log_id(signed);
    let meta = SnapshotMeta {
        last_log_id: Some(log_id),
        last_membership: Membership::new(Some(log_id), RaftMembership::new(vec![ids], members)),
        snapshot_id: format!("recovery-{}", voters.epoch),
    };
    (meta, image::encode(policy, &VoterHistory::recovered(voters.clone())))
}

fn members(policy: &PolicyState, voters: &VoterSet) -> BTreeMap<u64, Member> {
    let name = |key: &PublicKey| -> Option<&NodeName> {
        policy.nodes.iter().find(|(_, admission)| admission.key == *key).map(|(name, _)| name)
    };
    let member = |key: &PublicKey| {
        let name = name(key).cloned().unwrap_or_else(|| Member::default().name);
        (key.node_id().0, Member { name, addrs: Vec::new() })
    };
    voters.voters.iter().map(member).collect()
}

fn tell(shared: &Shared, signed: &SignedRecovery, lost: &Lost) {
    let epoch = signed.epoch();
    let revision = signed.recovery.base.revision;
    let message = match lost.entries.len() + lost.unlisted {
        0 => format!("the recovery key began fence epoch {epoch}, which goes on from revision {revision}"),
        count => format!(
            "the recovery key began fence epoch {epoch}, which goes on from revision {revision} without {count} \
             changes that this node had: they are saved below {} and listed by selvedge quorum lost",
            shared.dir.display()
        ),
    };
    shared.events.emit(Severity::Security, "recovered", shared.me.as_str(), message);
}
