//! What is known of signatures: this replica's own statements, those of others over the revisions that
//! could be handed out next, and those that link each set of voters to the one before. Pure.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use selvedge_fabric::{
    Revision,
    key::{FabricId, PublicKey, Signer},
    policy::PolicyState,
    statement::{Claim, Signatures, Statement, Succession, VoterSet},
};

use crate::voters::VoterHistory;

/// Own statements that are kept.
const KEPT_STATEMENTS: usize = 1_024;
/// Checkpoints that are kept until a majority has signed one; each holds a whole policy.
const KEPT_CHECKPOINTS: usize = 4;

/// A state that the log has agreed on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Agreed {
    pub(crate) policy: Arc<PolicyState>,
    pub(crate) voters: Arc<VoterHistory>,
}

/// An agreed state and what there is to say of it.
#[derive(Debug, Clone)]
pub(crate) struct Stated {
    pub(crate) claim: Claim,
    pub(crate) policy: Arc<PolicyState>,
    pub(crate) set: VoterSet,
}

/// What became of a statement of another voter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It counts.
    Counted,
    /// It is of no use: of another time, another set, or not genuine.
    Ignored,
    /// A voter has another policy under the same revision. That must not happen.
    Diverged,
}

#[derive(Debug, Default)]
pub(crate) struct Book {
    latest: Option<Stated>,
    checkpoints: VecDeque<Stated>,
    own: BTreeMap<Revision, Statement>,
    gathered: BTreeMap<Claim, Signatures>,
    links: BTreeMap<u64, Signatures>,
}

impl Book {
    pub(crate) fn with_links(links: BTreeMap<u64, Signatures>) -> Self {
        Self { links, ..Self::default() }
    }

    /// Takes a state that could be handed out; `checkpoint` says that all replicas look at it.
    pub(crate) fn note(&mut self, stated: Stated, checkpoint: bool) {
        if checkpoint {
            if self.checkpoints.len() == KEPT_CHECKPOINTS {
                self.checkpoints.pop_front();
            }
            self.checkpoints.push_back(stated);
        } else {
            self.latest = Some(stated);
        }
        let live: BTreeSet<Claim> = self.candidates().map(|s| s.claim).collect();
        self.gathered.retain(|claim, _| live.contains(claim));
    }

    /// Keeps and counts a statement of this replica itself.
    pub(crate) fn keep(&mut self, statement: Statement) {
        self.own.insert(statement.claim.revision, statement);
        while self.own.len() > KEPT_STATEMENTS {
            self.own.pop_first();
        }
        self.take(&statement);
    }

    /// Counts a statement, when it is of a voter over a state that could be handed out.
    pub(crate) fn take(&mut self, statement: &Statement) -> Taken {
        let claim = statement.claim;
        let known =
            self.candidates().find(|s| s.claim.revision == claim.revision && s.claim.voters == claim.voters);
        let Some(known) = known.filter(|s| s.set.voters.contains(&statement.voter) && statement.is_genuine())
        else {
            return Taken::Ignored;
        };
        if known.claim != claim {
            return Taken::Diverged;
        }
        self.gathered.entry(claim).or_default().insert(statement.voter, statement.signature);
        Taken::Counted
    }

    /// Own statements over `wanted`.
    pub(crate) fn statements(&self, wanted: &[Revision]) -> Vec<Statement> {
        wanted.iter().filter_map(|revision| self.own.get(revision).copied()).collect()
    }

    /// Revisions that others are asked about.
    pub(crate) fn wanted(&self) -> Vec<Revision> {
        let revisions: BTreeSet<_> = self.candidates().map(|s| s.claim.revision).collect();
        revisions.into_iter().collect()
    }

    /// The newest state.
    pub(crate) fn latest(&self) -> Option<&Stated> {
        self.latest.as_ref()
    }

    /// The newest state that a majority of the present voters signed.
    pub(crate) fn agreed_by_majority(&self) -> Option<(&Stated, &Signatures)> {
        let present = &self.latest()?.set;
        let signed = self.candidates().filter(|s| s.set == *present).filter_map(|s| {
            let signatures = self.gathered.get(&s.claim)?;
            (signatures.len() >= s.set.majority()).then_some((s, signatures))
        });
        signed.max_by_key(|(s, _)| s.claim.revision)
    }

    fn candidates(&self) -> impl Iterator<Item = &Stated> {
        self.checkpoints.iter().chain(&self.latest)
    }

    /// Signs every succession in which this replica's set hands over. Returns whether any was new.
    pub(crate) fn sign_links(
        &mut self,
        history: &VoterHistory,
        fabric: &FabricId,
        signer: &dyn Signer,
    ) -> bool {
        let me = signer.public_key();
        let mut news = false;
        for (before, next) in history.successions().filter(|(before, _)| before.voters.contains(&me)) {
            let signatures = self.links.entry(next.sequence).or_default();
            if let std::collections::btree_map::Entry::Vacant(place) = signatures.entry(me) {
                place.insert(before.sign_successor(next, fabric, signer));
                news = true;
            }
        }
        news
    }

    /// Takes the signatures of a succession that are genuine. Returns whether any was new.
    pub(crate) fn take_link(&mut self, history: &VoterHistory, fabric: &FabricId, link: &Succession) -> bool {
        let Some((before, next)) =
            history.succession(link.set.sequence).filter(|(_, next)| **next == link.set)
        else {
            return false;
        };
        let known = self.links.entry(next.sequence).or_default();
        let count = known.len();
        for (voter, signature) in &link.signatures {
            if !known.contains_key(voter) && before.signed_successor(next, fabric, voter, signature) {
                known.insert(*voter, *signature);
            }
        }
        known.len() > count
    }

    /// Successions after `after` with the signatures known of them, at most `limit`.
    pub(crate) fn links(&self, history: &VoterHistory, after: u64, limit: usize) -> Vec<Succession> {
        let newer = history.successions().filter(|(_, next)| next.sequence > after);
        newer.take(limit).map(|(_, next)| self.link(next)).collect()
    }

    fn link(&self, next: &VoterSet) -> Succession {
        let signatures = self.links.get(&next.sequence).cloned().unwrap_or_default();
        Succession { set: next.clone(), signatures }
    }

    /// The first succession that lacks a majority, and who could sign those that do.
    pub(crate) fn unsigned(&self, history: &VoterHistory) -> Option<(u64, BTreeSet<PublicKey>)> {
        let lacking = history.successions().filter(|(before, next)| {
            self.links.get(&next.sequence).map_or(0, |s| s.len()) < before.majority()
        });
        let mut lacking = lacking.peekable();
        let first = lacking.peek()?.1.sequence;
        Some((first, lacking.flat_map(|(before, next)| before.voters.union(&next.voters)).copied().collect()))
    }

    /// The chain that leads from set `known` to set `to`; none while a signature is missing, or when
    /// `known` is older than what is kept.
    pub(crate) fn chain(&self, history: &VoterHistory, known: u64, to: u64) -> Option<Vec<Succession>> {
        (known + 1..=to)
            .map(|sequence| {
                let (before, next) = history.succession(sequence)?;
                let link = self.link(next);
                (link.signatures.len() >= before.majority()).then_some(link)
            })
            .collect()
    }

    /// All links, to be stored.
    pub(crate) fn all_links(&self) -> &BTreeMap<u64, Signatures> {
        &self.links
    }
}
