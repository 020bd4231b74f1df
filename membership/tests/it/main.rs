//! Real instances on loopback, and the core in a seeded simulation.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on should fail there")]

mod cluster;
mod fabric;
mod instance;
mod process;
mod simulation;
