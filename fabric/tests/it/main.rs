//! Tests of the core against its public API.

mod samples;
mod support;
