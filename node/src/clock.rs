//! The one place where the node reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

use selvedge_fabric::UnixMs;

/// Milliseconds since the Unix epoch; 0 when the clock is set before it.
#[must_use]
pub fn unix_ms() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs::try_from(since.as_millis()).unwrap_or(UnixMs::MAX)
}
