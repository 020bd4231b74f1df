//! What happened, for people and for comparing two runs.

use std::{
    collections::VecDeque,
    fmt,
    hash::{DefaultHasher, Hash, Hasher},
};

/// Lines that a report shows.
const KEPT: usize = 60;

/// The last lines, and a digest of everything.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    lines: VecDeque<String>,
    digest: DefaultHasher,
    events: u64,
}

impl Trace {
    /// Something that a person would want to read.
    pub(crate) fn tell(&mut self, now_ms: u64, what: &fmt::Arguments<'_>) {
        let line = format!("{:>9.3}s  {what}", now_ms as f64 / 1_000.0);
        line.hash(&mut self.digest);
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    /// An event too small to tell; it counts in the digest all the same.
    pub(crate) fn note(&mut self, event: impl Hash) {
        event.hash(&mut self.digest);
        self.events += 1;
    }

    pub(crate) fn digest(&self) -> u64 {
        self.digest.finish()
    }

    pub(crate) const fn events(&self) -> u64 {
        self.events
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.iter().cloned().collect()
    }
}
