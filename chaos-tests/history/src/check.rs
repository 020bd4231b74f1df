//! The judgement of a whole history.

use std::collections::BTreeMap;

use crate::{
    operation::{Malformed, Operation, validate},
    revisions,
    search::{Bounds, Found, search},
    unknown::settle,
    violation::Violation,
};

/// What a history is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// There is an order of all operations that agrees with time and with what every client was told.
    Linearizable,
    /// There is none.
    Violated(Box<Violation>),
    /// A bound ended the search before it was known.
    Undecided {
        /// Of which key.
        key: String,
        /// Which bound.
        why: &'static str,
    },
}

/// What was judged, and the judgement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Operations whose outcome tells something: all but refusals and reads without an answer.
    pub checked: usize,
    /// Operations whose outcome nobody told, and that may have changed something.
    pub unknown: usize,
    /// Keys.
    pub keys: usize,
    /// The judgement. A violation goes before what is undecided.
    pub verdict: Verdict,
}

/// Judges a history within the ordinary [`Bounds`].
///
/// # Errors
/// When the history makes no sense: see [`Malformed`].
pub fn check(history: &[Operation]) -> Result<Report, Malformed> {
    check_within(history, Bounds::default())
}

/// Judges a history; each key is searched within these bounds.
///
/// # Errors
/// When the history makes no sense: see [`Malformed`].
pub fn check_within(history: &[Operation], bounds: Bounds) -> Result<Report, Malformed> {
    validate(history)?;
    let mut keys: BTreeMap<&str, Vec<&Operation>> = BTreeMap::new();
    for operation in history {
        keys.entry(&operation.key).or_default().push(operation);
    }
    let counted = history.iter().filter(|operation| operation.counts());
    let unknown = history.iter().filter(|o| o.counts() && o.outcome == crate::Outcome::Unknown).count();
    let verdict = verdict(history, &keys, bounds);
    Ok(Report { checked: counted.count(), unknown, keys: keys.len(), verdict })
}

fn verdict(history: &[Operation], keys: &BTreeMap<&str, Vec<&Operation>>, bounds: Bounds) -> Verdict {
    let mut undecided = None;
    for (key, operations) in keys {
        let spans = settle(operations);
        match search(&spans, bounds) {
            Found::Order => {}
            Found::NoOrder { .. } => {
                return Verdict::Violated(Box::new(Violation::of_key(operations, bounds)));
            }
            Found::GaveUp { why } => {
                undecided.get_or_insert(Verdict::Undecided { key: (*key).to_owned(), why });
            }
        }
    }
    if let Some(contradiction) = revisions::contradiction(history) {
        return Verdict::Violated(Box::new(Violation::of_revisions(&contradiction)));
    }
    undecided.unwrap_or(Verdict::Linearizable)
}
