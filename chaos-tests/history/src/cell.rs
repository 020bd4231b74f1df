//! What one key does: the sequential specification.

use std::sync::Arc;

use crate::operation::{Action, Element, Operation, Outcome, Revision};

/// The state of a key between two operations.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// What it holds.
    pub elements: Arc<[Element]>,
    /// The store has reached this revision, and the key was not changed at a later one. Other keys move the
    /// store's revision too, so this is what the operations on this key alone prove of it.
    pub revision: Revision,
}

impl Cell {
    /// The state after an operation took effect; none when it cannot have done so here with what its client
    /// was told.
    #[must_use]
    pub fn after(&self, operation: &Operation) -> Option<Self> {
        match (&operation.action, &operation.outcome) {
            (Action::Read, Outcome::Value { elements, revision }) => {
                let revision = revision.unwrap_or(self.revision);
                let seen = self.elements[..] == elements[..] && revision >= self.revision;
                seen.then(|| Self { elements: Arc::clone(&self.elements), revision })
            }
            (Action::CompareAndSet { base, .. }, Outcome::Conflict { present }) => {
                let other = present != base && *present >= self.revision;
                other.then(|| Self { elements: Arc::clone(&self.elements), revision: *present })
            }
            (Action::CompareAndSet { base, element }, outcome) => {
                // Nothing has changed since `base`, and this is the next change.
                let made = self.made(outcome)?;
                (self.revision <= *base && self.told(outcome).is_none_or(|r| r == base + 1))
                    .then(|| Self { elements: [*element].into(), revision: made.max(base + 1) })
            }
            (Action::Write(element), outcome) => {
                Some(Self { elements: [*element].into(), revision: self.made(outcome)? })
            }
            (Action::Append(element), outcome) => {
                let elements = self.elements.iter().copied().chain([*element]).collect();
                Some(Self { elements, revision: self.made(outcome)? })
            }
            (Action::Read, _) => None,
        }
    }

    /// The revision that a change made here: what was told, which must be a later one, or the next.
    fn made(&self, outcome: &Outcome) -> Option<Revision> {
        match outcome {
            Outcome::Done { revision } => (*revision > self.revision).then_some(*revision),
            Outcome::Unknown => Some(self.revision + 1),
            Outcome::Value { .. } | Outcome::Conflict { .. } | Outcome::Refused => None,
        }
    }

    const fn told(&self, outcome: &Outcome) -> Option<Revision> {
        match outcome {
            Outcome::Done { revision } => Some(*revision),
            _ => None,
        }
    }
}
