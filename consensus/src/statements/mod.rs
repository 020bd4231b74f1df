//! Proof that a policy was agreed, for nodes that hold no replica.
//!
//! Every voter signs what it has applied ([`sign`]); every replica can gather the signatures of a
//! majority when somebody asks for a proof ([`gather`]) and hands out policy and proof as a
//! [`Bundle`]. Nothing here is on the way of a proposal: signing follows the published state in a task
//! of its own, and gathering happens only while there is demand.
//!
//! Replicas publish after each run of entries, so under a stream of writes two of them may never
//! publish the same revision. All of them look at the same *checkpoints*, though: the state machine
//! marks the first entry of each tenth of a second of the leader's time.

pub(crate) mod book;
mod gather;
mod sign;

#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use selvedge_fabric::{
    Epoch, Revision,
    event::vital,
    key::Signer,
    statement::{
        Bundle, Claim, MAX_BUNDLE_BYTES, MAX_SUCCESSIONS, Signatures, Statement, Succession, VoterSet,
    },
};
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

pub(crate) use self::book::Agreed;
use self::book::Book;
use crate::{
    core::Core,
    replica::{Generation, Replica, Shared},
    store::Store,
};

/// Checkpoints that wait to be signed; more are skipped, the next one comes soon.
pub(crate) const MAX_WAITING_CHECKPOINTS: usize = 8;
/// How long a voter lets a request wait for a revision that it has not signed yet.
const SERVE_PATIENCE: Duration = Duration::from_millis(300);
/// Most revisions that one request may ask about.
const MAX_WANTED: usize = 16;
/// Most successions in one answer.
const MAX_LINKS: usize = 512;
/// How often to look for a chain that is not complete yet.
const CHAIN_POLL: Duration = Duration::from_millis(50);
/// Demand ends when nobody asked for a bundle for so long.
const DEMAND: Duration = Duration::from_secs(60);

/// Why there is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoBundle {
    /// Some voters have not been heard yet.
    #[error("a majority of the voters has not signed this policy yet: ask again, or another processor")]
    NoMajority,
    /// The voters that the asker trusts cannot be linked to the present ones.
    #[error(
        "the voters of set {0} cannot be linked to the present ones here: ask another processor, or join again"
    )]
    NoChain(u64),
    /// Who asks is further than this replica.
    #[error("this processor is at fence epoch {present} and was left out of a recovery: ask one at {asked}")]
    Fenced {
        /// The epoch of who asks.
        asked: Epoch,
        /// The epoch of this replica.
        present: Epoch,
    },
    /// It does not fit into one answer.
    #[error(
        "the policy has {0} bytes with its proof, which is more than the {MAX_BUNDLE_BYTES} that nodes take"
    )]
    TooLarge(usize),
}

/// A policy with signatures of a majority, ready to be sent.
struct Proven {
    claim: Claim,
    signatures: Signatures,
    sequence: u64,
    policy: Vec<u8>,
}

/// Signatures, and who waits for them.
pub(crate) struct Statements {
    book: Mutex<Book>,
    agreed: watch::Receiver<Agreed>,
    /// The newest revision that this replica signed, or would sign if it were a voter.
    signed: watch::Sender<Revision>,
    proven: watch::Sender<Option<Arc<Proven>>>,
    demanded: Mutex<Option<Instant>>,
    /// Something to gather.
    wake: Notify,
}

impl Statements {
    pub(crate) fn new(store: &Store, agreed: watch::Receiver<Agreed>) -> Self {
        // Signatures that cannot be read are gathered again.
        let links: BTreeMap<u64, Signatures> = store.links().ok().flatten().unwrap_or_default();
        Self {
            book: Mutex::new(Book::with_links(links)),
            agreed,
            signed: watch::Sender::new(0),
            proven: watch::Sender::new(None),
            demanded: Mutex::default(),
            wake: Notify::new(),
        }
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn demand(&self) {
        *self.demanded.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.wake.notify_one();
    }

    fn is_demanded(&self) -> bool {
        let last = *self.demanded.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|at| at.elapsed() < DEMAND)
    }

    /// Answers another replica: own statements over the `wanted` revisions, and successions after
    /// `links_after`.
    pub(crate) async fn answer(
        &self,
        wanted: &[Revision],
        links_after: u64,
    ) -> (Vec<Statement>, Vec<Succession>) {
        let wanted = &wanted[..wanted.len().min(MAX_WANTED)];
        if let Some(newest) = wanted.iter().max() {
            let mut signed = self.signed.subscribe();
            // Later than that, what there is has to do.
            let _ = tokio::time::timeout(SERVE_PATIENCE, signed.wait_for(|at| at >= newest)).await;
        }
        let history = Arc::clone(&self.agreed.borrow().voters);
        let book = self.book();
        (book.statements(wanted), book.links(&history, links_after, MAX_LINKS))
    }

    fn bundle(&self, proven: &Proven, known: u64) -> Result<Bundle, NoBundle> {
        let history = Arc::clone(&self.agreed.borrow().voters);
        let links = proven.sequence.saturating_sub(known);
        let chain =
            (links <= MAX_SUCCESSIONS as u64).then(|| self.book().chain(&history, known, proven.sequence));
        let chain = chain.flatten().ok_or(NoBundle::NoChain(known))?;
        let (claim, signatures, policy) = (proven.claim, proven.signatures.clone(), proven.policy.clone());
        let bundle = Bundle { claim, signatures, chain, policy, recovery: None };
        match bundle.encode().len() {
            bytes if bytes > MAX_BUNDLE_BYTES => Err(NoBundle::TooLarge(bytes)),
            _ => Ok(bundle),
        }
    }
}

impl Shared {
    /// Starts what signs and gathers for the present epoch, once there is a signer.
    pub(crate) fn attest(&self) {
        let Some(signer) = self.signer.get() else { return };
        let Generation { core, tasks, .. } = self.generation();
        let Some(checkpoints) = core.checkpoints.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            return;
        };
        let events = || Arc::clone(&core.events);
        let signing = sign::run(Arc::clone(&core), Arc::clone(signer), checkpoints);
        tasks.spawn(vital(events(), "statements signed", signing));
        tasks.spawn(vital(events(), "statements gathered", gather::run(Arc::clone(&core))));
        tasks.spawn(vital(events(), "voter sets gathered", gather::run_links(Arc::clone(&core))));
    }
}

impl Replica {
    /// Signs what this replica agrees to, when it is a voter, and gathers the signatures of others, so
    /// that [`Self::bundle`] has something to give. Called once.
    pub fn attest(&self, signer: Arc<dyn Signer>) {
        // Said once, by whoever opens the replica; it holds for every fence epoch.
        let _ = self.shared.signer.set(signer);
        self.shared.attest();
    }

    /// The present voters; none before the first command.
    #[must_use]
    pub fn voters(&self) -> Option<VoterSet> {
        self.core().statements.agreed.borrow().voters.present().cloned()
    }

    /// The newest policy with its proof, for a node that has revision `have` and trusts voter set
    /// `known` under fence epoch `epoch`. Waits for at most `patience` for one that is newer in any; `None`
    /// when there is none.
    ///
    /// # Errors
    /// Why there is no proof now.
    pub async fn bundle(
        &self,
        epoch: Epoch,
        have: Revision,
        known: u64,
        patience: Duration,
    ) -> Result<Option<Bundle>, NoBundle> {
        let core = self.core();
        let present = core.link.epoch();
        // Whoever is of an epoch before follows from the recovery: its own revision and voters ended with it.
        let (have, known, recovery) = match core.link.recovery.as_deref().filter(|_| epoch < present) {
            Some(signed) => (0, signed.recovery.voters.sequence, Some(signed.clone())),
            None if epoch == present => (have, known, None),
            None => return Err(NoBundle::Fenced { asked: epoch, present }),
        };
        let found = newest_bundle(&core, have, known, patience).await?;
        Ok(found.map(|bundle| Bundle { recovery: recovery.map(Box::new), ..bundle }))
    }
}

/// The newest proven policy, and the voters from set `known` on.
async fn newest_bundle(
    core: &Core,
    have: Revision,
    known: u64,
    patience: Duration,
) -> Result<Option<Bundle>, NoBundle> {
    let statements = &core.statements;
    let mut proven = statements.proven.subscribe();
    statements.demand();
    let newer = |proven: &Option<Arc<Proven>>| {
        let news = |p: &Arc<Proven>| p.claim.revision > have || p.sequence > known;
        proven.as_ref().is_some_and(|p| news(p) && p.claim.revision >= have && p.sequence >= known)
    };
    let deadline = Instant::now() + patience;
    loop {
        let found = tokio::time::timeout_at(deadline, proven.wait_for(newer)).await;
        let found = found.ok().and_then(Result::ok).and_then(|proven| proven.clone());
        let Some(found) = found else { break };
        match statements.bundle(&found, known) {
            // Voters changed a moment ago and their predecessors are being asked to sign that.
            Err(NoBundle::NoChain(_)) if Instant::now() + CHAIN_POLL < deadline => {
                tokio::time::sleep(CHAIN_POLL).await;
            }
            outcome => return outcome.map(Some),
        }
    }
    if core.policy.borrow().revision > have { Err(NoBundle::NoMajority) } else { Ok(None) }
}

/// Where the checkpoints of the state machine arrive, until [`Replica::attest`] takes them.
pub(crate) type Checkpoints = Mutex<Option<mpsc::Receiver<Agreed>>>;

impl Core {
    /// Writes the signatures of successions, for the time when their makers are gone.
    fn store_links(&self) {
        let links = self.statements.book().all_links().clone();
        if let Err(error) = self.store.set_links(&links) {
            tracing::warn!(%error, "signatures of voters could not be stored; they are gathered again after a restart");
        }
    }
}
