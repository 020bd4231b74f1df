//! Tests of the core against its public API.

mod manifests;
mod samples;
mod support;
