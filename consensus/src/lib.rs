//! The Raft replica of the policy store.
//!
//! Every processor holds one. *Intent* is agreed here and nowhere else; nothing on the packet or query
//! path ever waits for it. [`Replica`] is the face of the crate; behind it:
//!
//! * `store`: the log, the vote and snapshots on sled, durable before anything is acknowledged;
//! * `machine`: [`selvedge_fabric::policy::PolicyState`] as openraft's state machine;
//! * `network`, `serve`, `wire`: what replicas say to each other, fenced by the epoch;
//! * `election`: pre-vote and timers that follow the measured round trips;
//! * [`rules`]: who would vote for whom, what a majority is, which epoch is refused, as pure functions;
//! * `batch`, `propose`: many commands in one log entry, forwarded from any processor;
//! * `voters`, `statements`: who may vote, and the signatures by which nodes without a replica are shown that
//!   a policy was agreed;
//! * [`recovery`]: how the fabric goes on when a majority is lost for good;
//! * [`placement`], [`survival`]: where voters belong and what that survives, as pure functions.
//!
//! openraft is the consensus; what it leaves to its user is here. Its own clocks are off.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails should say where"))]

mod batch;
mod carrier;
mod chunks;
mod contacts;
mod core;
mod election;
#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile;
mod image;
mod machine;
mod network;
pub mod placement;
mod placer;
mod propose;
pub mod recovery;
mod replica;
mod rpc;
pub mod rules;
mod runtime;
mod serve;
mod statements;
mod status;
mod store;
pub mod survival;
#[cfg(test)]
mod testing;
mod timers;
mod transfer;
mod types;
mod voters;
mod wire;

pub use crate::core::{Peer, Peers};
pub use carrier::Options;
pub use propose::{NO_LEADER_PATIENCE, ProposeError};
pub use replica::{BootstrapError, OpenError, Replica, Settings};
pub use rpc::{Rpc, RpcError};
pub use statements::NoBundle;
pub use status::{LostMajority, QuorumStatus, Replicant, Silent};
pub use store::StoreError;
pub use timers::{ELECTION_PER_RTT, MAX_ELECTION, MIN_ELECTION, Timers};
pub use transfer::TransferError;
pub use types::Proposal;
