//! What a recovery goes on with: a pure function of what the reachable processors say of themselves.
//!
//! * The newest log wins, by term and then index: whatever a majority acknowledged and any of those asked has
//!   seen, the one with the newest log has (the Raft paper, section 5.4.1). Nobody else's entries are mixed in.
//! * The voters are processors that were reached, as many as placement would choose of them: an odd number, of
//!   as many clouds as possible. Two stay two, so that an acknowledged write is never on one disk only.
//! * Whatever a lower fence epoch says does not count: it was left behind by an earlier recovery.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{
    Epoch, Revision,
    id::{Name, NodeName},
    key::{Hash, PublicKey},
    statement::{Base, VoterSet, next_epoch},
};
use serde::{Deserialize, Serialize};

use crate::placement::MAX_VOTERS;

/// How far a replica is, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Its fence epoch.
    pub epoch: Epoch,
    /// Term of its newest log entry.
    pub term: u64,
    /// Index of its newest log entry.
    pub index: u64,
    /// Up to which index it knows entries to be committed.
    pub committed: u64,
    /// The revision after its newest entry.
    pub revision: Revision,
    /// Time of the newest command, by the clock of the leader of then, in milliseconds since 1970.
    pub clock_ms: u64,
    /// Hash of the whole state after its newest entry.
    pub image: Hash,
    /// Sequence of the voter set after its newest entry.
    pub sequence: u64,
}

/// A processor that was reached and may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its key.
    pub key: PublicKey,
    /// Its cloud.
    pub cloud: Name,
    /// Admitted and not draining.
    pub active: bool,
    /// Whether it voted in the epoch that ends.
    pub voter: bool,
    /// How far it is.
    pub position: Position,
}

/// With what and with whom to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose state is taken over.
    pub source: NodeName,
    /// That state.
    pub base: Base,
    /// The new voters, with the epoch that begins.
    pub voters: VoterSet,
    /// Their names.
    pub names: BTreeSet<NodeName>,
}

/// Why no recovery can be planned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Nobody is there to go on with.
    #[error("no processor with a policy can be reached: start one that ran before, with its data directory")]
    Nobody,
    /// A chosen survivor was not reached, is no processor, or is not in service.
    #[error("{0} cannot be a voter: it was not reached, or is no processor in service")]
    NotThere(NodeName),
    /// More than may vote were chosen.
    #[error("{0} survivors were chosen, and at most {MAX_VOTERS} can vote")]
    TooMany(usize),
}

/// Plans a recovery. `chosen` names the voters; when it is empty they are chosen here. `random` goes into the
/// new epoch, see [`next_epoch`].
///
/// # Errors
/// Why there is nothing to go on with.
pub fn plan(
    candidates: &BTreeMap<NodeName, Candidate>,
    chosen: &BTreeSet<NodeName>,
    random: u32,
) -> Result<Plan, PlanError> {
    let epoch = candidates.values().map(|c| c.position.epoch).max().ok_or(PlanError::Nobody)?;
    let current = || candidates.iter().filter(move |(_, c)| c.position.epoch == epoch);
    let has_policy = current().filter(|(_, c)| c.position.revision > 0);
    let newest = has_policy.max_by_key(|(name, c)| {
        let Position { term, index, .. } = c.position;
        (term, index, c.voter, std::cmp::Reverse((*name).clone()))
    });
    let (source, newest) = newest.ok_or(PlanError::Nobody)?;
    let may_vote = |name: &NodeName| candidates.get(name).is_some_and(|c| c.active);
    if let Some(absent) = chosen.iter().find(|name| !may_vote(name)) {
        return Err(PlanError::NotThere(absent.clone()));
    }
    if chosen.len() > MAX_VOTERS {
        return Err(PlanError::TooMany(chosen.len()));
    }
    let names = if chosen.is_empty() { choose(candidates, source) } else { chosen.clone() };
    let voters: BTreeSet<PublicKey> =
        names.iter().filter_map(|name| candidates.get(name)).map(|c| c.key).collect();
    if voters.is_empty() {
        return Err(PlanError::Nobody);
    }
    let Position { term, index, revision, image, sequence, .. } = newest.position;
    Ok(Plan {
        source: source.clone(),
        base: Base { term, index, revision, image },
        voters: VoterSet { epoch: next_epoch(epoch, random), sequence: sequence.saturating_add(1), voters },
        names,
    })
}

/// The active ones, one cloud after the other, former voters first; the source always.
fn choose(candidates: &BTreeMap<NodeName, Candidate>, source: &NodeName) -> BTreeSet<NodeName> {
    let mut clouds: BTreeMap<&Name, Vec<(bool, bool, &NodeName)>> = BTreeMap::new();
    for (name, candidate) in candidates.iter().filter(|(_, c)| c.active) {
        clouds.entry(&candidate.cloud).or_default().push((name != source, !candidate.voter, name));
    }
    for queue in clouds.values_mut() {
        queue.sort_unstable();
    }
    let longest = clouds.values().map(Vec::len).max().unwrap_or(0);
    // The first of every cloud, then the second of every cloud, and so on.
    let mut ranked: Vec<(usize, (bool, bool, &NodeName))> = (0..longest)
        .flat_map(|turn| clouds.values().filter_map(move |queue| queue.get(turn).map(|c| (turn, *c))))
        .collect();
    ranked.sort_unstable();
    let seats = match ranked.len() {
        n @ (0..=2) => n,
        n if n.is_multiple_of(2) => n - 1,
        n => n,
    };
    ranked.into_iter().take(seats.min(MAX_VOTERS)).map(|(_, (_, _, name))| name.clone()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> NodeName {
        Name::new(text).expect("a name")
    }

    fn candidate(n: u8, cloud: &str, term: u64, index: u64) -> Candidate {
        let position = Position {
            epoch: 0,
            term,
            index,
            committed: index,
            revision: index,
            clock_ms: 0,
            image: Hash([n; 32]),
            sequence: 4,
        };
        Candidate { key: PublicKey([n; 32]), cloud: name(cloud), active: true, voter: n < 6, position }
    }

    fn named(all: &[(&str, Candidate)]) -> BTreeMap<NodeName, Candidate> {
        all.iter().map(|(n, c)| (name(n), c.clone())).collect()
    }

    #[test]
    fn the_newest_log_wins_by_term_and_then_index() {
        let all = named(&[
            ("a", candidate(1, "aws", 3, 90)),
            ("b", candidate(2, "aws", 4, 12)),
            ("c", candidate(9, "azr", 4, 15)),
        ]);
        let plan = plan(&all, &BTreeSet::new(), 1).expect("a plan");
        assert_eq!(plan.source, name("c"), "a learner's log counts as well");
        assert_eq!((plan.base.term, plan.base.index, plan.base.image), (4, 15, Hash([9; 32])));
        assert_eq!(plan.voters.sequence, 5);
        assert_eq!(plan.names.len(), 3);
    }

    #[test]
    fn an_earlier_epoch_does_not_count_however_new_its_log_is() {
        let mut left_behind = candidate(1, "aws", 99, 99);
        let mut present = candidate(2, "azr", 3, 7);
        present.position.epoch = next_epoch(0, 5);
        left_behind.position.epoch = 0;
        let plan = plan(&named(&[("a", left_behind), ("b", present)]), &BTreeSet::new(), 0).expect("a plan");
        assert_eq!(plan.source, name("b"));
        assert!(plan.voters.epoch > next_epoch(0, 5));
    }

    #[test]
    fn survivors_can_be_chosen_and_must_be_there() {
        let mut drained = candidate(3, "gcp", 1, 1);
        drained.active = false;
        let all =
            named(&[("a", candidate(1, "aws", 1, 9)), ("b", candidate(2, "azr", 1, 8)), ("c", drained)]);
        let only = |n: &str| BTreeSet::from([name(n)]);
        let planned = plan(&all, &only("b"), 0).expect("a plan");
        assert_eq!((planned.source, planned.names), (name("a"), only("b")), "its state, and its seat not");
        assert_eq!(plan(&all, &only("c"), 0), Err(PlanError::NotThere(name("c"))));
        assert_eq!(plan(&all, &only("x"), 0), Err(PlanError::NotThere(name("x"))));
        assert_eq!(plan(&BTreeMap::new(), &BTreeSet::new(), 0), Err(PlanError::Nobody));
    }

    proptest! {
        #[test]
        fn nothing_that_was_seen_is_lost_and_the_voters_are_sound(
            seen in prop::collection::vec((0_u64..5, 1_u64..50, 0_usize..3, any::<bool>()), 1..12),
            random: u32,
        ) {
            let clouds = ["aws", "azr", "gcp"];
            let all: BTreeMap<NodeName, Candidate> = seen.iter().enumerate().map(|(n, s)| {
                let mut c = candidate(u8::try_from(n).expect("few"), clouds[s.2], s.0, s.1);
                c.active = s.3;
                (name(&format!("n{n}")), c)
            }).collect();
            let planned = plan(&all, &BTreeSet::new(), random);
            if !all.values().any(|c| c.active) {
                prop_assert_eq!(planned, Err(PlanError::Nobody));
                return Ok(());
            }
            let planned = planned.expect("a plan");
            let newest = all.values().map(|c| (c.position.term, c.position.index)).max();
            prop_assert_eq!(Some((planned.base.term, planned.base.index)), newest);
            let active = all.values().filter(|c| c.active).count();
            let voters = planned.voters.voters.len();
            prop_assert!(voters <= MAX_VOTERS && voters == planned.names.len());
            prop_assert!(voters % 2 == 1 || voters == 2);
            prop_assert!(voters + 1 >= active.min(MAX_VOTERS));
            prop_assert!(planned.names.iter().all(|n| all[n].active));
            // As many clouds as there can be.
            let of = |names: &BTreeSet<NodeName>| names.iter().map(|n| all[n].cloud.clone()).collect::<BTreeSet<_>>().len();
            let every: BTreeSet<NodeName> = all.iter().filter(|(_, c)| c.active).map(|(n, _)| n.clone()).collect();
            prop_assert!(of(&planned.names) == of(&every));
        }
    }
}
