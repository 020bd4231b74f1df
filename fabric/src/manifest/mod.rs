//! Manifests: reading and writing documents of intent.
//!
//! A manifest is YAML, one or several documents, or JSON, one document or a list. Reading reports every
//! problem with line and column and, where there is one, a remedy. What can only be judged against the
//! whole fabric (whether a reference leads anywhere) is judged by [`crate::policy`];
//! [`Located::locate`] then finds the place in the text.
//!
//! * `tree`: text to positioned nodes, within bounds. `scalar`: YAML's idea of types. `json`: the one
//!   thing in which JSON is no YAML.
//! * `reader`: nodes to values, problem by problem. `specs`, `read`: the fields of each kind, documents.
//! * `write`: objects to YAML and JSON that read back as the same objects.
//! * `drills`: failure drills, which are written alike but are no intent.
//! * `schema`: the JSON Schema. `time`: durations and instants.

mod assertions;
mod drills;
mod json;
mod read;
mod reader;
mod scalar;
mod schema;
mod specs;
mod time;
mod tree;
mod write;

pub use assertions::{MAX_ASSERTIONS, parse_assertions};
pub use drills::parse_drill;
pub use read::{Located, parse, parse_bytes, parse_located};
pub use schema::{drill_schema, json_schema};
pub use time::{
    MAX_DURATION_MS, MAX_INSTANT_MS, format_duration, format_instant, parse_duration, parse_instant,
};
pub(crate) use time::{duration_opt, instant_opt};

pub use write::{to_json, to_value, to_yaml};

/// The `apiVersion` of every document.
pub const API_VERSION: &str = "selvedge/v1";
/// Longest manifest, in bytes. A larger graph goes into several files of one apply.
pub const MAX_MANIFEST_BYTES: usize = 1024 * 1024;
