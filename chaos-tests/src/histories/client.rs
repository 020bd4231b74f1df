//! One client: asks nodes for operations on keys, and takes down what it was told and when.
//!
//! A key is a domain; its description holds the elements. An append reads and then sets what it read with
//! one element more, if the fabric is still at the revision of the read; this is how people append through
//! the API, so it is one operation from the first read to the last answer.

use std::{
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use selvedge_history::{Action, Element, Operation, Outcome, Revision};
use serde_json::Value;

use crate::lab::http::{self, Answer, Request, Server};

/// How long a client waits for an answer. Below the time after which a node answers that it does not know,
/// so that both kinds of ignorance come to pass.
const PATIENCE: Duration = Duration::from_secs(4);
/// Tries of an append whose base was not the present revision any more.
const APPEND_TRIES: u32 = 6;
/// Most elements of a key: they must fit a description (1,024 bytes).
pub(super) const MAX_ELEMENTS: usize = 90;

/// How reads are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// At least as new as every acknowledged write.
    Linearizable,
    /// What the node has, however old: what nodes answer when not asked otherwise.
    Local,
}

/// What all clients write into, under one clock.
#[derive(Debug)]
pub(super) struct Notes {
    began: Instant,
    taken: Mutex<Vec<Operation>>,
    elements: AtomicU32,
    /// Reads of appends and of compare-and-sets are operations as well.
    pub(super) reads: Reads,
}

impl Notes {
    pub(super) fn new(reads: Reads) -> Self {
        let (began, taken) = (Instant::now(), Mutex::new(Vec::new()));
        Self { began, taken, elements: AtomicU32::new(1), reads }
    }

    pub(super) fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    fn take(&self, operation: Operation) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).push(operation);
    }

    pub(super) fn into_history(self) -> Vec<Operation> {
        self.taken.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// An element that nobody has written.
    pub(super) fn element(&self) -> Element {
        self.elements.fetch_add(1, Ordering::Relaxed)
    }
}

/// A node to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) socket: PathBuf,
}

/// What a read saw.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    elements: Vec<Element>,
    revision: Option<Revision>,
}

/// One client at one node.
#[derive(Debug)]
pub(super) struct Client<'a> {
    pub(super) number: u32,
    pub(super) notes: &'a Notes,
    pub(super) target: &'a Target,
}

impl Client<'_> {
    /// Reads a key. None when there was no answer.
    pub(super) fn read(&self, key: &str) -> Option<Seen> {
        self.read_as(key, self.notes.reads)
    }

    pub(super) fn read_as(&self, key: &str, reads: Reads) -> Option<Seen> {
        let start_us = self.notes.now_us();
        let seen = self.ask_for(key, reads);
        let outcome = match &seen {
            Some(Seen { elements, revision }) => {
                Outcome::Value { elements: elements.clone(), revision: *revision }
            }
            None => Outcome::Unknown,
        };
        self.note(key, start_us, Action::Read, outcome);
        seen
    }

    /// Writes a key, whatever it holds. Whether that was answered.
    pub(super) fn write(&self, key: &str) -> bool {
        let (start_us, element) = (self.notes.now_us(), self.notes.element());
        let outcome = self.set(key, &[element], None);
        let answered = outcome != Outcome::Unknown && outcome != Outcome::Refused;
        self.note(key, start_us, Action::Write(element), outcome);
        answered
    }

    /// Reads a key, and writes it if the fabric is still at that revision. Whether that was answered.
    pub(super) fn compare_and_set(&self, key: &str) -> bool {
        let Some(Seen { revision: Some(base), .. }) = self.read(key) else { return false };
        self.compare_and_set_at(key, base)
    }

    pub(super) fn compare_and_set_at(&self, key: &str, base: Revision) -> bool {
        let (start_us, element) = (self.notes.now_us(), self.notes.element());
        let outcome = self.set(key, &[element], Some(base));
        let answered = outcome != Outcome::Unknown && outcome != Outcome::Refused;
        self.note(key, start_us, Action::CompareAndSet { base, element }, outcome);
        answered
    }

    /// Adds an element to what a key holds. Whether that was answered.
    pub(super) fn append(&self, key: &str) -> bool {
        let (start_us, element) = (self.notes.now_us(), self.notes.element());
        let outcome = self.try_append(key, element);
        let answered = outcome != Outcome::Unknown;
        self.note(key, start_us, Action::Append(element), outcome);
        answered
    }

    fn try_append(&self, key: &str, element: Element) -> Outcome {
        for _ in 0..APPEND_TRIES {
            // Whatever fails before a write was sent has changed nothing.
            let Some(Seen { mut elements, revision: Some(base) }) = self.read(key) else { break };
            if elements.len() >= MAX_ELEMENTS {
                break;
            }
            elements.push(element);
            match self.set(key, &elements, Some(base)) {
                Outcome::Conflict { .. } => {}
                outcome => return outcome,
            }
        }
        Outcome::Refused
    }

    fn note(&self, key: &str, start_us: u64, action: Action, outcome: Outcome) {
        let (client, node, key) = (self.number, self.target.name.clone(), key.to_owned());
        let end_us = self.notes.now_us();
        self.notes.take(Operation { client, node, key, start_us, end_us, action, outcome });
    }

    fn ask_for(&self, key: &str, reads: Reads) -> Option<Seen> {
        let path = format!("/v1/describe/domain/{key}");
        let headers = match reads {
            Reads::Linearizable => "selvedge-read: linearizable\r\n",
            Reads::Local => "",
        };
        let request = Request { method: "GET", path: &path, headers, body: "" };
        match http::ask(Server::Socket(&self.target.socket), request, PATIENCE) {
            Answer::Said(200, body) => {
                let text = body["object"]["spec"]["description"].as_str().unwrap_or_default();
                let elements = text.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
                Some(Seen { elements, revision: Some(body["revision"].as_u64()?) })
            }
            // This is an answer of the policy, not of a path that is not there.
            Answer::Said(404, body) if body["code"] == "not-found" => {
                Some(Seen { elements: Vec::new(), revision: None })
            }
            Answer::Said(..) | Answer::NotSent | Answer::Lost => None,
        }
    }

    fn set(&self, key: &str, elements: &[Element], base: Option<Revision>) -> Outcome {
        let words: Vec<_> = elements.iter().map(ToString::to_string).collect();
        let body = format!(
            r#"{{"apiVersion":"selvedge/v1","kind":"Domain","metadata":{{"name":"{key}"}},"spec":{{"description":"{}"}}}}"#,
            words.join(" ")
        );
        let path = base.map_or("/v1/apply".to_owned(), |base| format!("/v1/apply?if_revision={base}"));
        let request = Request { method: "POST", path: &path, headers: "", body: &body };
        match http::ask(Server::Socket(&self.target.socket), request, PATIENCE) {
            Answer::Said(status, body) => told(status, &body),
            Answer::NotSent => Outcome::Refused,
            Answer::Lost => Outcome::Unknown,
        }
    }
}

/// What an answer to a write says.
fn told(status: u16, body: &Value) -> Outcome {
    match (status, body["code"].as_str()) {
        (200, _) => match body["revision"].as_u64() {
            Some(revision) => Outcome::Done { revision },
            None => Outcome::Unknown,
        },
        (409, Some("conflict")) => match body["detail"].as_str().and_then(present) {
            Some(present) => Outcome::Conflict { present },
            None => Outcome::Refused,
        },
        // Everything else that has a code promises that nothing was written.
        (_, Some(code)) if code != "outcome-unknown" && code != "internal" => Outcome::Refused,
        _ => Outcome::Unknown,
    }
}

/// The present revision that a conflict names.
fn present(detail: &str) -> Option<Revision> {
    let (_, rest) = detail.split_once("is at revision ")?;
    rest.split(',').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn answers_are_what_they_promise() {
        assert_eq!(told(200, &json!({"revision": 7})), Outcome::Done { revision: 7 });
        let detail = "the fabric is at revision 9, not 8: look at the changes since";
        let conflict = json!({"code": "conflict", "detail": detail});
        assert_eq!(told(409, &conflict), Outcome::Conflict { present: 9 });
        assert_eq!(told(503, &json!({"code": "no-quorum"})), Outcome::Refused);
        assert_eq!(told(504, &json!({"code": "outcome-unknown"})), Outcome::Unknown);
        assert_eq!(told(500, &json!({"code": "internal"})), Outcome::Unknown);
        assert_eq!(told(502, &Value::Null), Outcome::Unknown);
    }
}
