//! The events of this node: numbered, kept in a bounded ring, and logged.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use selvedge_fabric::event::{Event, EventSink, Severity};
use tokio::sync::watch;

use crate::api::types;

/// Events kept for `/v1/events`; older ones are in the log.
const KEPT_EVENTS: usize = 2_048;

/// The events of this node.
#[derive(Clone)]
pub struct Events {
    inner: Arc<Inner>,
}

struct Inner {
    ring: Mutex<VecDeque<(u64, Event)>>,
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        let (newest, _) = watch::channel(0);
        Self { inner: Arc::new(Inner { ring: Mutex::new(VecDeque::new()), newest }) }
    }
}

impl Events {
    /// Kept events with a number above `since`, oldest first, at most `limit`.
    #[must_use]
    pub fn since(&self, since: u64, limit: usize) -> Vec<types::EventItem> {
        let ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.iter().filter(|(number, _)| *number > since).take(limit).map(item).collect()
    }

    /// Number of the newest event, 0 when there is none.
    #[must_use]
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.inner.newest.subscribe()
    }
}

fn item((sequence, event): &(u64, Event)) -> types::EventItem {
    types::EventItem {
        sequence: *sequence,
        time: types::rfc3339(event.at_ms),
        severity: severity_word(event.severity).to_owned(),
        code: event.code.clone(),
        subject: event.subject.clone(),
        message: event.message.clone(),
    }
}

const fn severity_word(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Security => "security",
    }
}

impl EventSink for Events {
    fn emit(&self, severity: Severity, code: &'static str, subject: &str, message: String) {
        match severity {
            Severity::Info => tracing::info!(code, subject, "{message}"),
            Severity::Warning | Severity::Security => tracing::warn!(code, subject, "{message}"),
        }
        let event = Event {
            at_ms: crate::clock::unix_ms(),
            severity,
            code: code.to_owned(),
            subject: subject.to_owned(),
            message,
        };
        let mut ring = self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() == KEPT_EVENTS {
            ring.pop_front();
        }
        let number = ring.back().map_or(0, |(n, _)| *n) + 1;
        ring.push_back((number, event));
        // Sent under the lock, so that the number never runs backwards.
        self.inner.newest.send_replace(number);
    }
}
