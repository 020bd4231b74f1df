//! Refusals as events, so that somebody sees them, and bounded, so that nobody can drown the log.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use selvedge_fabric::event::{EventSink, Severity};

use crate::limits::{EVENT_INTERVAL, MAX_EVENT_SUBJECTS};

/// Emits at most one event per subject and reason in [`EVENT_INTERVAL`].
pub(crate) struct Refusals {
    events: Arc<dyn EventSink>,
    seen: Mutex<BTreeMap<(String, &'static str), Seen>>,
}

/// The last event of a subject and reason, and how many like it were not sent since.
struct Seen {
    sent: Instant,
    suppressed: u64,
}

impl Refusals {
    pub(crate) fn new(events: Arc<dyn EventSink>) -> Self {
        Self { events, seen: Mutex::default() }
    }

    /// Tells of a refused peer. `subject` is its name when a certificate of ours says it, otherwise
    /// its IP address (without the port, which the peer picks).
    pub(crate) fn refused(&self, subject: &str, reason: &'static str, message: &str) {
        if let Some(suppressed) = self.admit(subject, reason, Instant::now()) {
            let more = match suppressed {
                0 => String::new(),
                n => format!(" ({n} like this before were not shown)"),
            };
            let text = format!("{reason}: {message}{more}");
            self.events.emit(Severity::Security, "peer-refused", subject, text);
        }
    }

    /// The number of events suppressed before this one, or `None` when this one is, too.
    fn admit(&self, subject: &str, reason: &'static str, now: Instant) -> Option<u64> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MAX_EVENT_SUBJECTS {
            seen.retain(|_, entry| now.duration_since(entry.sent) < EVENT_INTERVAL);
        }
        let full = seen.len() >= MAX_EVENT_SUBJECTS;
        match seen.get_mut(&(subject.to_owned(), reason)) {
            Some(entry) if now.duration_since(entry.sent) < EVENT_INTERVAL => {
                entry.suppressed += 1;
                None
            }
            Some(entry) => {
                entry.sent = now;
                Some(std::mem::take(&mut entry.suppressed))
            }
            None if full => None,
            None => {
                seen.insert((subject.to_owned(), reason), Seen { sent: now, suppressed: 0 });
                Some(0)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;
    impl EventSink for Nowhere {
        fn emit(&self, _: Severity, _: &'static str, _: &str, _: String) {}
    }

    #[test]
    fn repeated_refusals_are_counted_and_told_later() {
        let refusals = Refusals::new(Arc::new(Nowhere));
        let start = Instant::now();
        assert_eq!(refusals.admit("10.0.0.1", "expired", start), Some(0));
        assert_eq!(refusals.admit("10.0.0.1", "expired", start), None);
        assert_eq!(refusals.admit("10.0.0.1", "wrong-fabric", start), Some(0));
        assert_eq!(refusals.admit("10.0.0.1", "expired", start + EVENT_INTERVAL), Some(1));
    }

    #[test]
    fn many_sources_do_not_grow_the_memory() {
        let refusals = Refusals::new(Arc::new(Nowhere));
        let start = Instant::now();
        for i in 0..3 * MAX_EVENT_SUBJECTS {
            refusals.admit(&i.to_string(), "expired", start);
        }
        assert_eq!(refusals.seen.lock().unwrap().len(), MAX_EVENT_SUBJECTS);
        assert_eq!(refusals.admit("later", "expired", start + EVENT_INTERVAL), Some(0));
    }
}
