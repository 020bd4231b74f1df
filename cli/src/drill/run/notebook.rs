//! Where the parts of a running drill write down what they do and see.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use crate::{
    drill::record::{Attempt, Condition, End, Event, Place, Record, What},
    playground::progress::Progress,
};

/// Most attempts that are kept: an hour of a hundred in every second, and more.
const MAX_ATTEMPTS: usize = 500_000;
/// Most events that are kept; a drill has at most a thousand steps.
const MAX_EVENTS: usize = 20_000;

/// A record in the making. Its clock begins with it.
#[derive(Debug)]
pub(super) struct Notebook {
    start: Instant,
    pages: Mutex<Pages>,
    progress: Progress,
}

#[derive(Debug, Default)]
struct Pages {
    events: Vec<Event>,
    attempts: Vec<Attempt>,
    conditions: BTreeMap<String, Condition>,
    leader: Option<String>,
    dropped: u64,
}

impl Notebook {
    pub(super) fn new<'a>(nodes: impl Iterator<Item = &'a str>, progress: Progress) -> Self {
        let conditions = nodes.map(|name| (name.to_owned(), Condition::Alive)).collect();
        let pages = Pages { conditions, ..Pages::default() };
        Self { start: Instant::now(), pages: Mutex::new(pages), progress }
    }

    /// Milliseconds since the drill began.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn pages(&self) -> MutexGuard<'_, Pages> {
        // Nothing panics while it holds the lock; if it did, what is written is still true.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down what happens now.
    pub(super) fn note(&self, what: What) {
        if let What::Step(text) = &what {
            self.progress.done(text);
        }
        let at_ms = self.now_ms();
        let mut pages = self.pages();
        match &what {
            What::Node { name, condition } => {
                pages.conditions.insert(name.clone(), *condition);
            }
            What::Leader(leader) if pages.leader == *leader => return,
            What::Leader(leader) => pages.leader.clone_from(leader),
            _ => {}
        }
        if pages.events.len() < MAX_EVENTS {
            pages.events.push(Event { at_ms, what });
        }
    }

    /// Says it to people without writing it down.
    pub(super) fn say(&self, what: &str) {
        self.progress.done(what);
    }

    pub(super) fn attempt(&self, attempt: Attempt) {
        let mut pages = self.pages();
        if pages.attempts.len() < MAX_ATTEMPTS {
            pages.attempts.push(attempt);
        } else {
            pages.dropped += 1;
        }
    }

    pub(super) fn condition(&self, node: &str) -> Option<Condition> {
        self.pages().conditions.get(node).copied()
    }

    pub(super) fn is_alive(&self, node: &str) -> bool {
        self.condition(node) == Some(Condition::Alive)
    }

    pub(super) fn leader(&self) -> Option<String> {
        self.pages().leader.clone()
    }

    /// What was written, up to now. A drill of which something had to be left out has failed.
    pub(super) fn record(&self, nodes: Vec<Place>, end: End) -> Record {
        let pages = self.pages();
        let end = match (pages.dropped, end) {
            (0, end) => end,
            (dropped, _) => {
                End::Failed(format!("{dropped} attempts too many: let the probes ask less often"))
            }
        };
        let (events, attempts) = (pages.events.clone(), pages.attempts.clone());
        Record { nodes, events, attempts, length_ms: self.now_ms(), end }
    }
}
