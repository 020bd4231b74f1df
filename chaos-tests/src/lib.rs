//! Drills on real binaries.
//!
//! * [`lab`]: a fabric of real processes that a test can kill and start again, and look at from outside
//!   through its public interfaces only: the `selvedge` command line, DNS and HTTP.
//! * [`histories`]: what clients of such a fabric saw while it was ill-treated, judged for linearizability.
//! * [`scenario`]: the long drills, with their measurements. `cargo test` runs each of them briefly;
//!   `cargo run -p selvedge-chaos-tests --bin soak -- kill9 --count 200` runs one in full.
//!
//! Environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `SELVEDGE_BIN` | the binary under test; without it `cargo` builds the one of this workspace first |
//! | `SELVEDGE_STRICT_TIMES` | when `1`, the times of the acceptance are asserted; otherwise, as machines are busy, [`lab::SLACK`] times as much is allowed |
//! | `SELVEDGE_REQUIRE_KERNEL` | when `1`, a test that cannot run for want of a tool fails; otherwise it says that it was skipped |
//! | `SELVEDGE_CLOUD_LOSS_RUNS`, `SELVEDGE_KILL9_COUNT` | how often the tests repeat those drills |
//! | `SELVEDGE_HISTORY_SECONDS`, `SELVEDGE_VOTER_RETURNS` | how long and how often the tests do that |
//! | `SELVEDGE_MTU_ALL` | when `1`, every way over every underlay is measured with both families |
//!
//! The lab shares no code with what it tests, its DNS client included. Some tests lie to nodes with the keys of
//! another: they forge join tokens, policy and frames, and borrow formats and transport for that.
#![warn(missing_docs)]

pub mod histories;
pub mod lab;
pub mod scenario;
