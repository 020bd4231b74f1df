//! Integration tests of the node: one binary, so that they link once.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod api;
mod drills;
mod follow;
mod join;
mod rollouts;
mod start;
mod whole;
mod wiring;
mod workload;
