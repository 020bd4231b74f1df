//! The one place where this crate reads clocks.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::core::Now;

/// Most that the clock advances between two readings. The task reads it many times a second; a longer
/// gap means that this process was stopped, and then the silence was its own.
const MAX_STEP_MS: u64 = 500;

/// A clock that does not count the time in which this process did not run: a node that was paused must
/// not wake up believing that all others fell silent.
#[derive(Debug)]
pub(crate) struct Clock {
    read: Instant,
    mono_ms: u64,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { read: Instant::now(), mono_ms: 0 }
    }

    pub(crate) fn now(&mut self) -> Now {
        let elapsed_ms = u64::try_from(self.read.elapsed().as_millis()).unwrap_or(u64::MAX);
        if elapsed_ms > 0 {
            // What is less than a millisecond is left for the next reading.
            self.read += std::time::Duration::from_millis(elapsed_ms);
            self.mono_ms += elapsed_ms.min(MAX_STEP_MS);
        }
        Now { mono_ms: self.mono_ms, unix_ms: unix_ms() }
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
