//! The checker judged: known histories, generated ones, and stores that are broken on purpose.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod brute;
mod generated;
mod known;
mod make;
mod mutants;
mod sizes;
