//! Tests of the core against its public API.

mod hostile;
mod manifests;
mod nodes;
mod objects;
mod properties;
mod samples;
mod snapshots;
mod support;
