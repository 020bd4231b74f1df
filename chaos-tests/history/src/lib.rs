//! Histories of concurrent operations on keys of a store, and whether some order explains them.
//!
//! ```text
//! clients ── Operation { start, end, action, outcome } ──► check ──► Linearizable | Violated | Undecided
//! ```
//!
//! * [`Operation`] is what one client asked of one key, when, and what it was told. Operations are writes,
//!   compare-and-set on a revision, appends and reads; see [`Action`] for what each may do.
//! * [`check`] takes a whole history. Keys are judged one by one, which is enough: a history of many objects
//!   is linearizable if that of each object is (Herlihy and Wing, 1990, theorem 1). What keys share is the
//!   revision, and that is judged over all of them together ([`revisions`]).
//! * [`search`] is the search within one key: that of Wing and Gong (1993) with the memory of Lowe
//!   ("Testing for linearizability", 2017) and his just-in-time order. It is bounded, and says
//!   [`Verdict::Undecided`] where the bound ends it: never "violated", never "linearizable".
//! * An operation whose outcome nobody told may take effect at any later time, or never. Values are written
//!   once each, so most of these can be settled before the search ([`unknown`]).
//! * A [`Violation`] shows the fewest operations that already contradict each other, as a small timeline.
//!
//! Everything here is pure: no clock, no IO, no randomness.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that fails should say where"))]

mod cell;
mod check;
mod operation;
pub mod revisions;
pub mod search;
mod timeline;
pub mod unknown;
mod violation;

pub use cell::Cell;
pub use check::{Report, Verdict, check, check_within};
pub use operation::{Action, Element, Malformed, Operation, Outcome, Revision, validate};
pub use search::{Bounds, MAX_CONFIGURATIONS, MAX_OPEN, MAX_STEPS};
pub use violation::{Kind, Violation};
