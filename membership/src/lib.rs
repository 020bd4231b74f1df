//! Failure detection, signed facts, their merge and dissemination.
//!
//! Facts (who lives, which endpoints exist and are healthy, round trips, the revision a node enforces)
//! change all the time and must never need a quorum. Each node signs its own; the newest of each node and
//! topic wins everywhere, so nodes that have heard the same agree, in whatever order they heard it.
//!
//! [`core`] decides and is deterministic: which record is newer, what to tell whom, who is down. Around it
//! one task (`service`) feeds it and does what it says: over libp2p (`carrier`) for facts, over the
//! node's QUIC transport for failure detection among processors (SWIM), over connected UDP sockets
//! (`poker`) for evidence that a process is gone, and to disk. What comes out is one `watch` of
//! [`View`](selvedge_fabric::view::View) snapshots, there from the first moment with what the disk knew.
//!
//! What never happens here: a record is believed or handed on unverified; anything from outside panics;
//! a queue grows without bound; a node that sees nobody declares others dead.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that cannot go on should fail there"))]

mod carrier;
mod clock;
pub mod core;
mod disk;
mod membership;
mod metrics;
mod poker;
mod probes;
mod reports;
mod service;
mod timers;

pub use carrier::CarrierError;
pub use disk::DiskError;
pub use membership::{Membership, Options, StartError};
pub use metrics::Metrics;
pub use timers::Timers;
