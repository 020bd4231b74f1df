//! Which tasks run, turn, have stalled, are started again or are lost: a machine that is told what happens
//! and the time, and does nothing itself.

use std::{collections::BTreeMap, time::Duration};

use selvedge_fabric::event::Pulse;

/// A loop that has told of its turns and not turned for so long has stalled. The slowest of them turns every
/// five seconds; planning the largest policy takes less than this on a busy machine.
pub const STALLED_MS: u64 = 30_000;
/// A loop that has not turned for so long never will: the daemon ends, and whoever runs it starts it again.
pub const HOPELESS_MS: u64 = 300_000;
/// Starts in a row of a task that fails, before the daemon ends.
pub const MAX_RESTARTS: u32 = 8;
/// A task that ran for so long is healthy: its next failure is the first of a row.
pub const STEADY_MS: u64 = 600_000;

/// How often [`Watch::observe`] is called.
pub(super) const INTERVAL_MS: u64 = 1_000;
/// Pause before the first start in a row; it doubles.
const FIRST_PAUSE_MS: u64 = 1_000;
/// Longest pause before a start.
const LONGEST_PAUSE_MS: u64 = 60_000;

/// How a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// It runs; if it tells of its turns, it turns.
    Running,
    /// It has not turned for [`STALLED_MS`].
    Stalled,
    /// It failed and is started again after a pause.
    Restarting,
    /// It did what it had to do.
    Ended,
    /// It failed for good.
    Lost,
}

impl State {
    /// A stable word for scripts.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Stalled => "stalled",
            Self::Restarting => "restarting",
            Self::Ended => "ended",
            Self::Lost => "lost",
        }
    }
}

/// Something that changed by the passing of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// A task has not turned for so many milliseconds.
    Stalled(&'static str, u64),
    /// A task that had stalled turns again, after so many milliseconds.
    Turns(&'static str, u64),
    /// A task will not turn any more.
    Hopeless(&'static str, u64),
}

/// What to do about a task that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Start it again after this pause.
    Restart(Duration),
    /// It fails whenever it is started.
    GiveUp,
}

/// One task, as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Its name.
    pub name: &'static str,
    /// How it is.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
    /// How long ago it was last started again.
    pub restarted_ms_ago: Option<u64>,
    /// How long ago it turned, when it tells.
    pub turned_ms_ago: Option<u64>,
}

#[derive(Debug)]
struct Task {
    state: State,
    /// Several may share a name: one for each socket.
    running: u32,
    started_ms: u64,
    turned_ms: Option<u64>,
    stalled_since_ms: Option<u64>,
    restarts: u32,
    in_a_row: u32,
}

/// All tasks that are watched over.
#[derive(Debug, Default)]
pub struct Watch {
    tasks: BTreeMap<&'static str, Task>,
    observed_ms: Option<u64>,
}

impl Watch {
    /// Takes what a task tells.
    pub fn handle_pulse(&mut self, name: &'static str, pulse: Pulse, now_ms: u64) {
        let task = self.tasks.entry(name).or_insert(Task {
            state: State::Ended,
            running: 0,
            started_ms: now_ms,
            turned_ms: None,
            stalled_since_ms: None,
            restarts: 0,
            in_a_row: 0,
        });
        match pulse {
            Pulse::Started => {
                task.running += 1;
                task.started_ms = now_ms;
                task.turned_ms = None;
                if task.state != State::Lost {
                    task.state = State::Running;
                }
            }
            Pulse::Turned => task.turned_ms = Some(now_ms),
            Pulse::Ended => {
                task.running = task.running.saturating_sub(1);
                if task.running == 0 && task.state != State::Lost {
                    task.state = State::Ended;
                }
            }
            Pulse::Panicked => {
                task.running = task.running.saturating_sub(1);
                task.state = State::Lost;
            }
        }
    }

    /// Takes the failure of a task that may be started again.
    pub fn handle_failure(&mut self, name: &'static str, now_ms: u64) -> Remedy {
        let Some(task) = self.tasks.get_mut(name) else { return Remedy::GiveUp };
        task.running = task.running.saturating_sub(1);
        if now_ms.saturating_sub(task.started_ms) >= STEADY_MS {
            task.in_a_row = 0;
        }
        if task.in_a_row >= MAX_RESTARTS {
            task.state = State::Lost;
            return Remedy::GiveUp;
        }
        let pause_ms = (FIRST_PAUSE_MS << task.in_a_row).min(LONGEST_PAUSE_MS);
        task.in_a_row += 1;
        task.restarts += 1;
        task.state = State::Restarting;
        Remedy::Restart(Duration::from_millis(pause_ms))
    }

    /// Looks at who turned. To be called every second; time in which nobody looked is time in which the
    /// whole process stood still, and says nothing of its tasks.
    pub fn observe(&mut self, now_ms: u64) -> Vec<Finding> {
        let since_ms = now_ms.saturating_sub(self.observed_ms.replace(now_ms).unwrap_or(now_ms));
        let stood_still_ms = if since_ms > 3 * INTERVAL_MS { since_ms } else { 0 };
        let mut findings = Vec::new();
        for (name, task) in &mut self.tasks {
            let Some(turned_ms) = task.turned_ms.as_mut().filter(|_| task.running > 0) else { continue };
            *turned_ms = turned_ms.saturating_add(stood_still_ms).min(now_ms);
            let (age_ms, turned_ms) = (now_ms - *turned_ms, *turned_ms);
            match (task.state, age_ms) {
                (State::Running, STALLED_MS..) => {
                    task.state = State::Stalled;
                    task.stalled_since_ms = Some(turned_ms);
                    findings.push(Finding::Stalled(name, age_ms));
                }
                (State::Stalled, HOPELESS_MS..) => {
                    task.state = State::Lost;
                    findings.push(Finding::Hopeless(name, age_ms));
                }
                (State::Stalled, ..STALLED_MS) => {
                    task.state = State::Running;
                    let since_ms = task.stalled_since_ms.take().unwrap_or(now_ms);
                    findings.push(Finding::Turns(name, turned_ms.saturating_sub(since_ms)));
                }
                _ => {}
            }
        }
        findings
    }

    /// Every task, by name.
    #[must_use]
    pub fn report(&self, now_ms: u64) -> Vec<Report> {
        let report = |(name, task): (&&'static str, &Task)| Report {
            name,
            state: task.state,
            restarts: task.restarts,
            restarted_ms_ago: (task.restarts > 0).then(|| now_ms.saturating_sub(task.started_ms)),
            turned_ms_ago: task.turned_ms.map(|at_ms| now_ms.saturating_sub(at_ms)),
        };
        self.tasks.iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A loop that turned at 0 and is looked at every second until `until_ms`.
    fn silent_until(until_ms: u64) -> (Watch, Vec<Finding>) {
        let mut watch = Watch::default();
        watch.handle_pulse("plan", Pulse::Started, 0);
        watch.handle_pulse("plan", Pulse::Turned, 0);
        watch.handle_pulse("quiet", Pulse::Started, 0);
        let findings = (0..=until_ms / 1_000).flat_map(|s| watch.observe(s * 1_000)).collect();
        (watch, findings)
    }

    #[test]
    fn a_loop_that_does_not_turn_is_told_once_and_at_last_given_up() {
        assert_eq!(silent_until(STALLED_MS - 1_000).1, []);
        assert_eq!(silent_until(HOPELESS_MS - 1_000).1, [Finding::Stalled("plan", STALLED_MS)]);
        let (watch, findings) = silent_until(HOPELESS_MS + 60_000);
        assert_eq!(findings[1..], [Finding::Hopeless("plan", HOPELESS_MS)]);
        let states: Vec<_> = watch.report(HOPELESS_MS).into_iter().map(|r| (r.name, r.state)).collect();
        assert_eq!(states, [("plan", State::Lost), ("quiet", State::Running)], "only loops that tell");
    }

    #[test]
    fn one_that_turns_again_is_well() {
        let (mut watch, _) = silent_until(40_000);
        watch.handle_pulse("plan", Pulse::Turned, 41_500);
        assert_eq!(watch.observe(42_000), [Finding::Turns("plan", 41_500)]);
        assert_eq!(watch.observe(43_000), []);
    }

    #[test]
    fn a_process_that_was_stopped_has_no_stalled_tasks() {
        let (mut watch, _) = silent_until(10_000);
        assert_eq!(watch.observe(10_000 + HOPELESS_MS), [], "nobody looked meanwhile");
        let later: Vec<_> = (311..=330).flat_map(|s| watch.observe(s * 1_000)).collect();
        assert_eq!(later, [Finding::Stalled("plan", STALLED_MS)], "and from then on time counts again");
    }

    #[test]
    fn restarts_are_bounded_unless_a_task_runs_for_long() {
        let mut watch = Watch::default();
        let mut fail = |ran_ms: u64, now_ms: u64| {
            watch.handle_pulse("carrier", Pulse::Started, now_ms);
            watch.handle_failure("carrier", now_ms + ran_ms)
        };
        let pauses: Vec<_> = (0..9).map(|n| fail(5, n * 100_000)).collect();
        let seconds = |n| Remedy::Restart(Duration::from_secs(n));
        let expected = [1, 2, 4, 8, 16, 32, 60, 60].map(seconds);
        assert_eq!(pauses[..8], expected);
        assert_eq!(pauses[8], Remedy::GiveUp);
        assert_eq!(fail(STEADY_MS, 2_000_000), seconds(1));
    }

    #[test]
    fn tasks_of_one_name_are_counted_and_a_panic_is_not_forgotten() {
        let mut watch = Watch::default();
        for pulse in [Pulse::Started, Pulse::Started, Pulse::Ended] {
            watch.handle_pulse("dns", pulse, 0);
        }
        assert_eq!(watch.report(0)[0].state, State::Running);
        for (pulse, state) in [
            (Pulse::Ended, State::Ended),
            (Pulse::Started, State::Running),
            (Pulse::Panicked, State::Lost),
            (Pulse::Ended, State::Lost),
        ] {
            watch.handle_pulse("dns", pulse, 0);
            assert_eq!(watch.report(0)[0].state, state);
        }
    }
}
