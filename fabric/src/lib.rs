//! The core of Selvedge: ids, documents, the service graph, the policy state machine, the view of
//! the fabric, and the planner that turns the two into a plan.
//!
//! Everything here is synchronous and deterministic. There is no IO, no clock and no source of
//! randomness: the time and every nonce are arguments, so the same inputs give the same outputs on
//! every node and in the simulator.
//!
//! * [`object`], [`manifest`]: what people write.
//! * [`command`], [`policy`]: what the log carries and what it builds (*intent*).
//! * [`record`], [`view`]: what nodes gossip and what one node makes of it (*facts*).
//! * [`statement`]: how a policy proves that it was agreed, whoever carries it.
//! * [`drill`]: rehearsals of failures, written like manifests; [`isolation`]: how a node takes part in one.
//! * [`compile`], [`planner`], [`plan`]: `plan(policy, view, now) -> Plan`.
#![warn(missing_docs)]

pub mod address;
pub mod cga;
pub mod command;
pub mod compile;
pub mod drill;
pub mod event;
pub mod id;
pub mod isolation;
pub mod key;
pub mod manifest;
pub mod object;
pub mod plan;
pub mod planner;
pub mod policy;
pub mod query;
pub mod record;
pub mod rollout;
pub mod statement;
pub mod suggest;
#[cfg(test)]
mod testing;
pub mod token;
pub mod view;

pub use selvedge_abi as abi;

/// Milliseconds since the Unix epoch, UTC. Always an argument, never read inside this crate.
pub type UnixMs = u64;
/// Number of a state of intent; it grows by one with every command that changed something.
pub type Revision = u64;
/// Fence epoch: grows only when an operator recovers a fabric that lost its quorum for good.
pub type Epoch = u64;
