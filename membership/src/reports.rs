//! Events, so few that somebody who sends rubbish cannot flood whoever reads them.

use std::{collections::BTreeMap, sync::Arc};

use selvedge_fabric::event::{EventSink, Severity};

/// The same code about the same subject is told at most this often.
const REPEAT_MS: u64 = 10_000;
/// Subjects remembered; when there are more, all are forgotten but the new one.
const MAX_SUBJECTS: usize = 1_024;

/// Tells events, not too often.
pub(crate) struct Reports {
    sink: Arc<dyn EventSink>,
    told: BTreeMap<(&'static str, String), u64>,
}

impl Reports {
    pub(crate) fn new(sink: Arc<dyn EventSink>) -> Self {
        Self { sink, told: BTreeMap::new() }
    }

    /// Tells something that happens rarely by its nature.
    pub(crate) fn tell(&self, severity: Severity, code: &'static str, subject: &str, message: String) {
        self.sink.emit(severity, code, subject, message);
    }

    /// Tells something that others can make happen as often as they like.
    pub(crate) fn tell_once(
        &mut self,
        now_ms: u64,
        severity: Severity,
        code: &'static str,
        subject: &str,
        message: String,
    ) {
        let key = (code, subject.to_owned());
        if self.told.get(&key).is_some_and(|at| now_ms.saturating_sub(*at) < REPEAT_MS) {
            return;
        }
        if self.told.len() >= MAX_SUBJECTS {
            self.told.clear();
        }
        self.told.insert(key, now_ms);
        self.sink.emit(severity, code, subject, message);
    }
}
