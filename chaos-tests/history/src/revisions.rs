//! The revision of the store, which all keys share.
//!
//! Every change makes a revision of its own, every read tells one at which it was true. So the revisions
//! *are* an order, and there is nothing to search: it must agree with time. Of two operations one after the
//! other, the later must not be at a lower revision; and a change not at the same.
//!
//! Revisions that nobody tells of are made by what is not recorded: tokens, nodes, unknown outcomes.

use crate::operation::{Action, Operation, Outcome, Revision};

/// Two operations whose revisions contradict each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction<'a> {
    /// The one that was over first.
    pub earlier: &'a Operation,
    /// The one that followed.
    pub later: &'a Operation,
    /// What is wrong.
    pub what: &'static str,
}

/// The revision at which an operation took place.
const fn at(operation: &Operation) -> Option<Revision> {
    match operation.outcome {
        Outcome::Done { revision } => Some(revision),
        Outcome::Value { revision, .. } => revision,
        Outcome::Conflict { present } => Some(present),
        Outcome::Refused | Outcome::Unknown => None,
    }
}

/// Looks for operations whose revisions do not agree with time, or with each other.
#[must_use]
pub fn contradiction(history: &[Operation]) -> Option<Contradiction<'_>> {
    shared(history).or_else(|| backwards(history)).or_else(|| skipped(history))
}

/// Two changes at one revision.
fn shared(history: &[Operation]) -> Option<Contradiction<'_>> {
    let mut changes: Vec<_> = history.iter().filter(|o| o.changed()).collect();
    changes.sort_by_key(|o| (at(o), o.start_us));
    let twice = changes.windows(2).find(|pair| at(pair[0]) == at(pair[1]))?;
    Some(Contradiction { earlier: twice[0], later: twice[1], what: "both made this revision" })
}

/// An operation at a lower revision than one that was over before it began.
fn backwards(history: &[Operation]) -> Option<Contradiction<'_>> {
    let told: Vec<_> = history.iter().filter(|o| at(o).is_some()).collect();
    let (mut starts, mut ends) = (told.clone(), told);
    starts.sort_by_key(|o| o.start_us);
    ends.sort_by_key(|o| o.end_us);
    let mut over = ends.into_iter().peekable();
    let mut newest: Option<&Operation> = None;
    for later in starts {
        while let Some(ended) = over.next_if(|o| o.end_us < later.start_us) {
            newest = newest.filter(|n| at(n) >= at(ended)).or(Some(ended));
        }
        let Some(earlier) = newest else { continue };
        if at(later) < at(earlier) {
            let what = "the later is at a lower revision";
            return Some(Contradiction { earlier, later, what });
        }
        if later.changed() && at(later) == at(earlier) {
            let what = "the later made a revision that was there already";
            return Some(Contradiction { earlier, later, what });
        }
    }
    None
}

/// A compare-and-set that did not make the revision after its base, or that refused its own base.
fn skipped(history: &[Operation]) -> Option<Contradiction<'_>> {
    history.iter().find_map(|operation| {
        let Action::CompareAndSet { base, .. } = operation.action else { return None };
        let what = match operation.outcome {
            Outcome::Done { revision } if revision != base + 1 => "something changed between base and change",
            Outcome::Conflict { present } if present == base => "it was at the base, and refused for that",
            _ => return None,
        };
        Some(Contradiction { earlier: operation, later: operation, what })
    })
}
