//! What clients did, as they saw it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

/// The number of a state of the whole store. Every change makes the next one.
pub type Revision = u64;
/// What is written. Each element is written by one operation only, so a read tells whose write it saw.
pub type Element = u32;

/// What one client asked of one key, and what it was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Who asked.
    pub client: u32,
    /// Whom: the node that was asked.
    pub node: String,
    /// The key.
    pub key: String,
    /// When it was asked, microseconds on the one clock of all clients.
    pub start_us: u64,
    /// When the answer was there, on the same clock; meaningless where the outcome is unknown.
    pub end_us: u64,
    /// What was asked.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
}

/// What can be asked of a key. A key holds a list of elements, empty at first; one that holds a single
/// value is a list of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// What does it hold?
    Read,
    /// From now on it holds this element alone.
    Write(Element),
    /// From now on it holds this element alone, if the store is still at this revision.
    CompareAndSet {
        /// The revision.
        base: Revision,
        /// What is written.
        element: Element,
    },
    /// This element is added at the end.
    Append(Element),
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A read: this is there.
    Value {
        /// What the key holds.
        elements: Vec<Element>,
        /// The revision at which it was read; none where there was no such object.
        revision: Option<Revision>,
    },
    /// A change: done.
    Done {
        /// The revision that it made.
        revision: Revision,
    },
    /// A compare-and-set: the store is at another revision.
    Conflict {
        /// At which.
        present: Revision,
    },
    /// Refused, with the promise that nothing was changed.
    Refused,
    /// Nobody said what came of it.
    Unknown,
}

impl Action {
    /// The element that it writes.
    #[must_use]
    pub const fn element(&self) -> Option<Element> {
        match self {
            Self::Read => None,
            Self::Write(element) | Self::Append(element) | Self::CompareAndSet { element, .. } => {
                Some(*element)
            }
        }
    }
}

impl Operation {
    /// The elements that it saw.
    #[must_use]
    pub fn saw(&self) -> &[Element] {
        match &self.outcome {
            Outcome::Value { elements, .. } => elements,
            Outcome::Done { .. } | Outcome::Conflict { .. } | Outcome::Refused | Outcome::Unknown => &[],
        }
    }

    /// Whether it tells something: a refusal changed nothing and saw nothing, and a read without an answer
    /// neither.
    #[must_use]
    pub const fn counts(&self) -> bool {
        match self.outcome {
            Outcome::Value { .. } | Outcome::Done { .. } | Outcome::Conflict { .. } => true,
            Outcome::Refused => false,
            Outcome::Unknown => self.action.element().is_some(),
        }
    }

    /// Whether it is known to have changed the key.
    #[must_use]
    pub const fn changed(&self) -> bool {
        matches!(self.outcome, Outcome::Done { .. })
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.action {
            Action::Read => write!(f, "read")?,
            Action::Write(element) => write!(f, "write {element}")?,
            Action::CompareAndSet { base, element } => write!(f, "write {element} if at r{base}")?,
            Action::Append(element) => write!(f, "append {element}")?,
        }
        match &self.outcome {
            Outcome::Value { elements, revision: Some(revision) } => {
                write!(f, " → {elements:?} at r{revision}")
            }
            Outcome::Value { elements, revision: None } => write!(f, " → {elements:?}"),
            Outcome::Done { revision } => write!(f, " → r{revision}"),
            Outcome::Conflict { present } => write!(f, " → no: at r{present}"),
            Outcome::Refused => write!(f, " → refused"),
            Outcome::Unknown => write!(f, " → ?"),
        }
    }
}

/// Why a history cannot be judged: a fault of whoever recorded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Two operations write the same element to one key.
    Repeated(String, Element),
    /// The answer was there before the question.
    Backwards(Box<Operation>),
    /// The outcome is none of this action, for instance a value of a write.
    Outlandish(Box<Operation>),
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Repeated(key, element) => write!(f, "{element} is written twice to {key}"),
            Self::Backwards(operation) => write!(f, "ends before it starts: {operation:?}"),
            Self::Outlandish(operation) => write!(f, "cannot have this outcome: {operation:?}"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Whether a history can be judged.
///
/// # Errors
/// The first operation that makes no sense.
pub fn validate(history: &[Operation]) -> Result<(), Malformed> {
    let mut written: BTreeMap<&str, BTreeSet<Element>> = BTreeMap::new();
    for operation in history {
        if operation.outcome != Outcome::Unknown && operation.end_us < operation.start_us {
            return Err(Malformed::Backwards(Box::new(operation.clone())));
        }
        let fits = match (&operation.action, &operation.outcome) {
            (_, Outcome::Refused | Outcome::Unknown)
            | (Action::Read, Outcome::Value { .. })
            | (Action::CompareAndSet { .. }, Outcome::Done { .. } | Outcome::Conflict { .. })
            | (Action::Write(_) | Action::Append(_), Outcome::Done { .. }) => true,
            (Action::Read, Outcome::Done { .. } | Outcome::Conflict { .. })
            | (Action::Write(_) | Action::Append(_), Outcome::Conflict { .. } | Outcome::Value { .. })
            | (Action::CompareAndSet { .. }, Outcome::Value { .. }) => false,
        };
        if !fits {
            return Err(Malformed::Outlandish(Box::new(operation.clone())));
        }
        if let Some(element) = operation.action.element()
            && !written.entry(&operation.key).or_default().insert(element)
        {
            return Err(Malformed::Repeated(operation.key.clone(), element));
        }
    }
    Ok(())
}
