//! Measurements beside other programs that people use for the same, in the same run and on the same ground,
//! each with its defaults.

pub mod etcd;
mod leader;
mod loss;
pub mod serf;

use std::{
    process::Child,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::ensure;

pub use leader::{Gaps, run as leader_loss};
pub use loss::{Losses, run as node_loss};

/// Time between two tries, of which the earlier may still go on.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// How many tries may go on at once.
const MAX_TRIES: usize = 200;

/// A process that ends with this value.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The time from `since` to the first try that succeeds, at any of several places. Tries begin one after the
/// other, whether earlier ones have ended or not: what is lost on the way does not hold up the next.
///
/// # Errors
/// When none succeeds within `limit`.
fn first_success(
    places: usize,
    since: Instant,
    limit: Duration,
    attempt: impl Fn(usize) -> bool + Sync,
) -> anyhow::Result<Duration> {
    let (done, tries) = (AtomicBool::new(false), AtomicUsize::new(0));
    let first = std::sync::Mutex::new(None);
    std::thread::scope(|scope| {
        let mut next = Instant::now();
        while !done.load(Ordering::Acquire) && since.elapsed() < limit {
            for place in (0..places).filter(|_| tries.load(Ordering::Acquire) < MAX_TRIES) {
                tries.fetch_add(1, Ordering::AcqRel);
                let (attempt, done, tries, first) = (&attempt, &done, &tries, &first);
                scope.spawn(move || {
                    if attempt(place) && !done.swap(true, Ordering::AcqRel) {
                        *first.lock().unwrap_or_else(std::sync::PoisonError::into_inner) =
                            Some(since.elapsed());
                    }
                    tries.fetch_sub(1, Ordering::AcqRel);
                });
            }
            next += TRY_EVERY;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    });
    let first = first.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    ensure!(first.is_some(), "nothing succeeds within {limit:?}");
    Ok(first.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_success_counts_and_a_try_that_hangs_holds_up_none() {
        let since = Instant::now();
        let works_at = since + Duration::from_millis(100);
        let attempt = |place| {
            if place == 1 {
                std::thread::sleep(Duration::from_millis(600));
                return false;
            }
            Instant::now() > works_at
        };
        let took = first_success(2, since, Duration::from_secs(30), attempt).expect("a success");
        assert!(took >= Duration::from_millis(100), "{took:?}");
        assert!(first_success(1, since, Duration::from_millis(50), |_| false).is_err());
    }
}
