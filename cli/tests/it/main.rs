//! The real program against fake nodes.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod client;
mod fake;
mod offline;
