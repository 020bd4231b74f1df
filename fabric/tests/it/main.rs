//! Tests of the core against its public API.

mod drills;
mod hostile;
mod hostile_facts;
mod manifests;
mod model;
mod nodes;
mod objects;
mod properties;
mod rollouts;
mod samples;
mod snapshots;
mod support;
