//! Things that happened and that people may have to know, refusals above all, and signs of life of the
//! tasks that a node cannot go without.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::UnixMs;

/// Something that happened on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When.
    pub at_ms: UnixMs,
    /// How much it matters.
    pub severity: Severity,
    /// A stable word for scripts, for instance `peer-refused` or `record-refused`.
    pub code: String,
    /// Who or what it is about: a node, an address, a token id.
    pub subject: String,
    /// What happened, and what to do if something must be done. Never holds a secret.
    pub message: String,
}

/// How much an event matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Part of normal life: a node joined, a leader changed.
    Info,
    /// Something is not as it should be, and the fabric copes.
    Warning,
    /// Somebody was refused: wrong key, token, record.
    Security,
}

/// Where events go. Must not block: implementations count and drop when they are full.
pub trait EventSink: Send + Sync {
    /// Takes an event; the sink stamps the time.
    fn emit(&self, severity: Severity, code: &'static str, subject: &str, message: String);

    /// Takes a sign of life of a task, or of its end. A sink that watches over nothing lets it fall.
    fn pulse(&self, task: &'static str, pulse: Pulse) {
        let _ = (task, pulse);
    }
}

/// What a task that is watched over tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pulse {
    /// It runs from here on.
    Started,
    /// Its loop went round once more. From the first of these on, more are expected.
    Turned,
    /// It came to its end, or was told to stop.
    Ended,
    /// It panicked: what it did is no longer done.
    Panicked,
}

/// Runs a task that its subsystem cannot go without. A panic would end it silently, and the rest would limp
/// on; so it is told.
pub async fn vital<F: Future>(events: Arc<dyn EventSink>, task: &'static str, work: F) -> F::Output {
    events.pulse(task, Pulse::Started);
    let _told = Told { events, task };
    work.await
}

/// Tells of the end of a task, however it comes.
struct Told {
    events: Arc<dyn EventSink>,
    task: &'static str,
}

impl Drop for Told {
    fn drop(&mut self) {
        let pulse = if std::thread::panicking() { Pulse::Panicked } else { Pulse::Ended };
        self.events.pulse(self.task, pulse);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        pin::pin,
        sync::{Mutex, PoisonError},
        task::{Context, Poll, Waker},
    };

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<(&'static str, Pulse)>>);

    impl EventSink for Heard {
        fn emit(&self, _: Severity, _: &'static str, _: &str, _: String) {}

        fn pulse(&self, task: &'static str, pulse: Pulse) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((task, pulse));
        }
    }

    #[test]
    fn every_end_of_a_task_is_told() {
        let heard = Arc::new(Heard::default());
        let mut context = Context::from_waker(Waker::noop());
        assert_eq!(pin!(vital(heard.clone(), "good", async { 7 })).poll(&mut context), Poll::Ready(7));
        let mut bad = Box::pin(vital(heard.clone(), "bad", async { panic!("on purpose") }));
        assert!(catch_unwind(AssertUnwindSafe(|| bad.as_mut().poll(&mut context))).is_err());
        drop(bad);
        let told = heard.0.lock().expect("nobody panics with it").clone();
        let expected = [
            ("good", Pulse::Started),
            ("good", Pulse::Ended),
            ("bad", Pulse::Started),
            ("bad", Pulse::Panicked),
        ];
        assert_eq!(told, expected);
    }
}
