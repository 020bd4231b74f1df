//! A majority is lost for good: the fabric goes on with what is left, under a new fence epoch.
//!
//! Raft cannot do this, for it cannot tell a lost majority from one behind a cut. The recovery key decides
//! ([`selvedge_fabric::statement::Recovery`]); this module carries it out, in three parts:
//!
//! * [`plan`]: from what the reachable processors say, the state to go on with and the new voters. Pure.
//! * `lead`: the processor that was asked puts the question to the others, and hands out what was signed
//!   together with the state.
//! * `fence`: every processor that is shown the statement stops its replica, saves what it has and the base has
//!   not (`lost`), replaces its log by the base, and starts anew under the new epoch.
//!
//! A processor takes part in one epoch only. Requests of another are refused, those of a lower one with the
//! statement that ended it; so whoever was away is fenced at the first contact, whichever side makes it.

pub(crate) mod fence;
pub(crate) mod lead;
pub(crate) mod lost;
pub mod plan;

pub use fence::FenceError;
pub use lead::{Draft, Party, RecoverError, Recovered};
pub use lost::{Lost, LostEntry};
