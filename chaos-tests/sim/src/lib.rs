//! The fabric under one seed and virtual time.
//!
//! A *world* holds nodes made of the product's own deterministic cores (records and their merge,
//! dissemination, failure detection, planner, DNS answers, packet verdicts), a network with weather and
//! cuts, and one queue of events. A *scenario* is what a seed chooses: sizes, faults and their times. It has
//! three phases: faults, during which nothing that is forbidden may be seen (safety); healing, after which
//! all must agree within a bound (liveness); and one more death in fair weather.
//!
//! *Invariants* look on, one file each. *Mutants* are planted bugs that show that they would see one.
//!
//! What is not here: sockets, disks, openraft and libp2p. The first three are tested for real by
//! `chaos-tests` and by `consensus`; of the carrier there is a model (`world/mesh.rs`), and of the replicated
//! log one around the real rules of elections, fencing and placement (`node/replica.rs`).
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on should fail there"))]

pub mod dissemination;
mod intent;
mod invariants;
mod mutant;
mod node;
mod scenario;
mod trace;
mod world;

pub use invariants::Violation;
pub use mutant::Mutant;
pub use scenario::{Outcome, Scenario, run};
