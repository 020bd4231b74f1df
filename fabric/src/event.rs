//! Things that happened and that people may have to know: refusals above all.

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
}
