//! The deciding half of membership, without IO, clock or ambient randomness.
//!
//! * [`store`]: the records this node has, and their merge.
//! * [`holders`]: whether one key is used by two live machines.
//! * [`gossip`]: what to tell whom: rumors and anti-entropy; [`wire`] is how that looks in bytes.
//! * [`own`]: what this node says of itself.
//! * [`detector`]: SWIM among processors.
//! * [`watch`]: what this node sees of its peers with its own eyes.
//! * [`sights`]: what this node sees and what others report, gathered.
//! * [`judge`]: from the eyes of all to one verdict on each node and cloud.
//! * [`view`]: policy, records and verdicts joined to a [`selvedge_fabric::view::View`].

pub mod detector;
pub mod gossip;
pub mod holders;
#[cfg(test)]
#[path = "hostile_tests.rs"]
mod hostile;
pub mod judge;
pub mod outlook;
pub mod own;
pub mod rumors;
pub mod sights;
pub mod store;
#[cfg(test)]
mod testing;
pub mod view;
pub mod watch;
pub mod wire;

use selvedge_fabric::UnixMs;

/// Highest incarnation that is believed, of anybody. It leaves room for one per nanosecond for
/// decades, and keeps a hostile record from driving the counter to where it cannot grow any more.
pub const MAX_INCARNATION: u64 = 1 << 60;

/// The present, as the shell read it once for a whole step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Milliseconds of a clock that never runs backwards; every time-out is measured by it.
    pub mono_ms: u64,
    /// The wall clock, only for what people or certificates speak of.
    pub unix_ms: UnixMs,
}
