//! The Selvedge daemon: composition root, identity and enrollment, reconcile, API.
//!
//! * [`daemon`] starts everything and stops it again; nothing else knows all subsystems.
//! * [`mod@init`] makes a fabric, [`enroll`] lets nodes into it, [`renew`] keeps their certificates fresh.
//! * [`follow`] gives nodes without a replica the policy, verified.
//! * [`revocations`] refuses keys on the word of the recovery key, until the policy does.
//! * [`isolation`] keeps a node from others for a drill, for as long as that is renewed.
//! * [`reconcile`] turns intent and facts into the plan that everything else applies.
//! * [`watchdog`] watches over the daemon's own tasks.
//! * [`backend`] answers the [`api`] from published snapshots.
#![warn(missing_docs)]

pub mod api;
pub mod attach;
pub mod backend;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod endpoints;
pub mod enroll;
pub mod events;
mod files;
pub mod flows;
pub mod follow;
pub mod gate;
pub mod gateway;
pub mod identity;
pub mod init;
pub mod isolation;
pub mod issuer;
pub mod net;
pub mod packets;
pub mod pki;
pub mod reconcile;
pub mod renew;
pub mod revocations;
pub mod watchdog;

pub use config::NodeConfig;
pub use daemon::run;
pub use init::{InitError, InitOptions, InitReport, init};
pub use selvedge_transport::Leaf;
