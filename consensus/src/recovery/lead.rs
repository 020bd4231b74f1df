//! The processor that an operator asks: it finds out what there is, and hands out what was signed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::NodeName,
    key::{FabricId, PublicKey},
    policy::{Admission, PolicyState},
    statement::{Recovery, SignedRecovery},
};
use tokio::time::Instant;

use super::{
    FenceError, fence, lost,
    plan::{self, Candidate, Plan, PlanError, Position},
};
use crate::{
    core::Core,
    image,
    machine::AppliedState,
    replica::{Replica, Shared},
    wire::{Answer, Ask},
};

/// Time for a processor to say how far it is.
const SURVEY: Duration = Duration::from_secs(3);
/// Time for a processor to hand out or to take over the state.
const TRANSFER: Duration = Duration::from_secs(5);
/// Time for the new voters to elect a leader.
const ELECTION: Duration = Duration::from_secs(12);
/// Largest state that is handed out with the statement: one request of the transport holds it. Voters that
/// do not get it so, get it from the leader in chunks.
const MAX_IMAGE_BYTES: usize = (8 << 20) - 4_096;

/// Why there is no recovery.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// There is nothing to recover from.
    #[error(
        "there is a quorum: nothing is lost, and a recovery would only throw away what others have. Take single \
         nodes out by selvedge node remove"
    )]
    Quorum,
    /// This node has no policy.
    #[error("this node has no policy yet: ask a processor that ran before")]
    NoPolicy,
    /// No plan.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// This node does not believe the statement, or cannot carry it out.
    #[error(transparent)]
    Fence(#[from] FenceError),
    /// Nobody that is reached has the state that was signed.
    #[error(
        "no processor that can be reached has the state that was signed any more: ask again what there is to sign"
    )]
    NoState,
    /// The new voters do not come together.
    #[error(
        "fence epoch {epoch} has begun, and its voters have not elected a leader yet: {took_over} of {voters} have \
         taken it over. selvedge quorum status tells more; the same command can be given again"
    )]
    NoLeader {
        /// The new epoch.
        epoch: u64,
        /// How many voters have taken it over.
        took_over: usize,
        /// How many voters there are.
        voters: usize,
    },
    /// The local replica cannot say how far it is.
    #[error("this replica cannot be read: {0}")]
    Local(String),
}

/// A processor in a draft.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Party {
    /// Its name.
    pub name: NodeName,
    /// Its zone.
    pub zone: String,
    /// Whether it votes in the epoch that would end.
    pub voter: bool,
    /// How far it is; none when it was not reached.
    pub position: Option<Position>,
}

/// What there is to sign, and all that must be known to decide it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The fabric.
    pub fabric: FabricId,
    /// The public half of the key that has to sign.
    pub recovery_key: PublicKey,
    /// All processors of the policy.
    pub parties: Vec<Party>,
    /// With what and with whom the fabric would go on.
    pub plan: Plan,
}

/// A recovery that was carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The leader under the new epoch.
    pub leader: NodeName,
    /// New voters that have taken the epoch over.
    pub took_over: Vec<NodeName>,
    /// New voters that have not yet.
    pub missing: Vec<NodeName>,
    /// How long it took.
    pub took: Duration,
}

impl Replica {
    /// Asks every processor how far it is, and plans a recovery. Changes nothing.
    ///
    /// # Errors
    /// When there is a quorum, or nothing to go on with.
    pub async fn draft_recovery(
        &self,
        survivors: &BTreeSet<NodeName>,
        random: u32,
    ) -> Result<Draft, RecoverError> {
        let core = self.core();
        if self.status().borrow().quorum {
            return Err(RecoverError::Quorum);
        }
        let policy = core.policy.borrow().clone();
        let params = policy.params.as_ref().ok_or(RecoverError::NoPolicy)?;
        let positions = survey(&core, &policy).await?;
        let voters: BTreeSet<NodeName> = core.voters().into_values().map(|m| m.name).collect();
        let candidate = |(name, admission): (&NodeName, &Admission)| {
            let candidate = Candidate {
                key: admission.key,
                cloud: admission.zone.cloud().clone(),
                active: admission.state == AdmissionState::Active,
                voter: voters.contains(name),
                position: *positions.get(name)?,
            };
            Some((name.clone(), candidate))
        };
        let candidates: BTreeMap<_, _> = processors(&policy).filter_map(candidate).collect();
        let plan = plan::plan(&candidates, survivors, random)?;
        let party = |(name, admission): (&NodeName, &Admission)| Party {
            name: name.clone(),
            zone: admission.zone.to_string(),
            voter: voters.contains(name),
            position: positions.get(name).copied(),
        };
        let parties = processors(&policy).map(party).collect();
        Ok(Draft { fabric: params.id, recovery_key: params.recovery_key, parties, plan })
    }

    /// Carries a signed recovery out: hands it to the new voters with the state, enters the epoch here, and
    /// waits for a leader.
    ///
    /// # Errors
    /// Why it could not be carried out, or not be completed.
    pub async fn recover(&self, signed: SignedRecovery) -> Result<Recovered, RecoverError> {
        let started = Instant::now();
        let core = self.core();
        if self.status().borrow().quorum && core.link.epoch() < signed.epoch() {
            return Err(RecoverError::Quorum);
        }
        let image = match core.link.recovery.as_deref() == Some(&signed) {
            true => None,
            false => Some(find_image(&core, &signed.recovery).await?),
        };
        let policy = core.policy.borrow().clone();
        let voters = &signed.recovery.voters.voters;
        let names: Vec<NodeName> =
            policy.nodes.iter().filter(|(_, a)| voters.contains(&a.key)).map(|(n, _)| n.clone()).collect();
        // This node first: it checks the statement, and from then on it can show it to whoever asks.
        fence::accept(&self.shared, signed.clone(), image.clone()).await?;
        let core = self.core();
        let mut took_over = hand_out(&core, &signed, image, &names).await;
        if names.contains(&core.me) {
            took_over.push(core.me.clone());
            took_over.sort_unstable();
        }
        let missing = names.iter().filter(|name| !took_over.contains(name)).cloned().collect();
        let leader = self.wait_for_leader(&signed).await.ok_or(RecoverError::NoLeader {
            epoch: signed.epoch(),
            took_over: took_over.len(),
            voters: names.len(),
        })?;
        Ok(Recovered { leader, took_over, missing, took: started.elapsed() })
    }

    async fn wait_for_leader(&self, signed: &SignedRecovery) -> Option<NodeName> {
        let mut status = self.status();
        let elected = status.wait_for(|s| s.fence_epoch == signed.epoch() && s.quorum && s.leader.is_some());
        let status = tokio::time::timeout(ELECTION, elected).await.ok()?.ok()?;
        status.leader.clone()
    }

    /// What recoveries left behind: on this node and on every other processor that answers. Each entry comes
    /// with the nodes that had it.
    pub async fn lost(&self) -> Vec<(NodeName, lost::Lost)> {
        let core = self.core();
        let mut all: Vec<_> =
            load_here(&self.shared).await.into_iter().map(|lost| (core.me.clone(), lost)).collect();
        let policy = core.policy.borrow().clone();
        let others = others(&core, &policy);
        let mut asks: FuturesUnordered<_> = others
            .map(|name| async { (name.clone(), core.link.call(None, name, Ask::Lost, Some(SURVEY)).await) })
            .collect();
        while let Some((name, answer)) = asks.next().await {
            if let Ok(Answer::Lost { json }) = answer
                && let Ok(lists) = serde_json::from_slice::<Vec<lost::Lost>>(&json)
            {
                all.extend(lists.into_iter().map(|lost| (name.clone(), lost)));
            }
        }
        all.sort_by(|a, b| (a.1.began, &a.0).cmp(&(b.1.began, &b.0)));
        all
    }
}

/// The lists of this node, without the policy that is saved with them.
pub(crate) async fn load_here(shared: &Shared) -> Vec<lost::Lost> {
    let dir = shared.dir.clone();
    let mut all = tokio::task::spawn_blocking(move || lost::load(&dir)).await.unwrap_or_default();
    for lost in &mut all {
        lost.policy = None;
    }
    all
}

/// Processors that the policy admits and that are not revoked.
fn processors(policy: &PolicyState) -> impl Iterator<Item = (&NodeName, &Admission)> {
    policy.nodes.iter().filter(|(_, a)| a.role == Role::Processor && a.state != AdmissionState::Revoked)
}

fn others<'a>(core: &'a Core, policy: &'a PolicyState) -> impl Iterator<Item = &'a NodeName> {
    processors(policy).map(|(name, _)| name).filter(|name| **name != core.me)
}

async fn survey(core: &Core, policy: &PolicyState) -> Result<BTreeMap<NodeName, Position>, RecoverError> {
    let mine = position(core).await.map_err(RecoverError::Local)?;
    let mut positions = BTreeMap::from([(core.me.clone(), mine)]);
    let mut asks: FuturesUnordered<_> = others(core, policy)
        .map(|name| async move { (name, core.link.call(None, name, Ask::Position, Some(SURVEY)).await) })
        .collect();
    while let Some((name, answer)) = asks.next().await {
        match answer {
            Ok(Answer::Position(position)) => drop(positions.insert(name.clone(), position)),
            Ok(_) => tracing::warn!(%name, "answered something else than how far it is"),
            Err(error) => tracing::info!(%name, %error, "does not say how far it is"),
        }
    }
    Ok(positions)
}

/// How far the replica of this node is, its whole log counted.
pub(crate) async fn position(core: &Core) -> Result<Position, String> {
    let (state, last) = whole(core).await?;
    let committed = core.store.committed().map_err(|e| e.to_string())?;
    Ok(Position {
        epoch: core.link.epoch(),
        term: last.map_or(0, |id| id.leader_id.term),
        index: last.map_or(0, |id| id.index),
        committed: committed.map_or(0, |id| id.index),
        revision: state.policy.revision,
        clock_ms: state.policy.clock_ms,
        image: image::hash(&state.policy, &state.voters),
        sequence: state.voters.present().map_or(0, |set| set.sequence),
    })
}

/// The state after the whole log of this node, as bytes, when it is the one of `recovery`.
pub(crate) async fn image_for(core: &Core, recovery: &Recovery) -> Result<Option<Vec<u8>>, String> {
    let (state, _) = whole(core).await?;
    let bytes = image::encode(&state.policy, &state.voters);
    Ok((selvedge_fabric::key::Hash::of(&bytes) == recovery.base.image).then_some(bytes))
}

type Whole = (AppliedState, Option<crate::types::LogIndex>);

/// What the state is after every entry of the log, the uncommitted ones included: a survivor cannot know
/// which of them the lost majority acknowledged.
async fn whole(core: &Core) -> Result<Whole, String> {
    let (mut state, store, epoch) = (core.machine.now(), core.store.clone(), core.link.epoch());
    let replay = move || -> Result<Whole, String> {
        let from = state.last.map_or(0, |id| id.index + 1);
        let end = store.log_end().map_err(|e| e.to_string())?;
        let mut last = state.last.max(store.purged().map_err(|e| e.to_string())?);
        for entry in store.entries(from, end, usize::MAX).map_err(|e| e.to_string())? {
            if entry.log_id.index != last.map_or(0, |id| id.index + 1) {
                return Err("its log has changed meanwhile: ask again".to_owned());
            }
            last = Some(entry.log_id);
            state.step(entry, epoch).map_err(|e| e.to_string())?;
        }
        Ok((state, last))
    };
    tokio::task::spawn_blocking(replay).await.map_err(|e| e.to_string())?
}

async fn find_image(core: &Core, recovery: &Recovery) -> Result<Vec<u8>, RecoverError> {
    if let Some(image) = image_for(core, recovery).await.map_err(RecoverError::Local)? {
        return Ok(image);
    }
    let policy = core.policy.borrow().clone();
    let ask = Ask::Base { recovery: recovery.clone() };
    let mut asks: FuturesUnordered<_> = others(core, &policy)
        .map(|name| {
            let ask = ask.clone();
            async move { core.link.call(None, name, ask, Some(TRANSFER)).await }
        })
        .collect();
    while let Some(answer) = asks.next().await {
        if let Ok(Answer::Base { image: Some(image) }) = answer
            && selvedge_fabric::key::Hash::of(&image) == recovery.base.image
        {
            return Ok(image);
        }
    }
    Err(RecoverError::NoState)
}

/// Shows the statement to the new voters; returns those that took it over.
async fn hand_out(
    core: &Core,
    signed: &SignedRecovery,
    image: Option<Vec<u8>>,
    names: &[NodeName],
) -> Vec<NodeName> {
    let image = image.filter(|image| image.len() <= MAX_IMAGE_BYTES);
    let ask = Ask::Recover { signed: Box::new(signed.clone()), image };
    let mut asks: FuturesUnordered<_> = names
        .iter()
        .filter(|name| **name != core.me)
        .map(|name| {
            let ask = ask.clone();
            async move { (name, core.link.call(None, name, ask, Some(TRANSFER)).await) }
        })
        .collect();
    let mut took_over = Vec::new();
    while let Some((name, answer)) = asks.next().await {
        match answer {
            Ok(Answer::Recovered { refusal: None }) => took_over.push(name.clone()),
            Ok(Answer::Recovered { refusal: Some(why) }) => {
                tracing::warn!(%name, why, "does not take the recovery over");
            }
            Ok(_) => tracing::warn!(%name, "answered something else than was asked"),
            Err(error) => tracing::warn!(%name, %error, "was not reached with the recovery"),
        }
    }
    took_over
}

/// Answers what has to do with recovery, whatever the epoch of who asks.
pub(crate) async fn answer(shared: &Arc<Shared>, core: &Core, ask: Ask) -> Answer {
    let stopped = |why: String| Answer::Stopped { why };
    match ask {
        Ask::Position => position(core).await.map_or_else(stopped, Answer::Position),
        Ask::Base { recovery } => {
            image_for(core, &recovery).await.map_or_else(stopped, |image| Answer::Base { image })
        }
        Ask::Recover { signed, image } => {
            let taken = fence::accept(shared, *signed, image).await;
            Answer::Recovered { refusal: taken.err().map(|e| e.to_string()) }
        }
        Ask::Lost => {
            let lists = load_here(shared).await;
            Answer::Lost { json: serde_json::to_vec(&lost::for_wire(lists)).unwrap_or_default() }
        }
        _ => stopped("this is no question about a recovery".to_owned()),
    }
}
