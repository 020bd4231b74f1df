//! Watches over the daemon's own tasks.
//!
//! A task that panics ends silently in tokio, and the rest of the daemon would limp on without it. Here every
//! task that runs for as long as the daemon does has a name and is watched:
//!
//! * one that only carries snapshots is started again, after a pause that grows, [`MAX_RESTARTS`] times in a
//!   row ([`Watchdog::again`]);
//! * for any other, the daemon ends with an error ([`Watchdog::keep`], and [`vital`] in the subsystems): the
//!   gates in the kernel go on deciding packets by the last plan, and whoever runs the daemon starts it again;
//! * a loop that tells of its turns and stops turning is shown as stalled, and after [`HOPELESS_MS`] it is
//!   lost as well. A thread of its own looks, because a deadlock may hold every thread of the runtime.
//!
//! Tasks that serve one request or one connection are not watched: a panic costs that request.
//!
//! [`vital`]: selvedge_fabric::event::vital

mod watch;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use selvedge_fabric::event::{EventSink, Pulse, Severity};
use tokio::task::JoinError;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::watch::{
    Finding, HOPELESS_MS, MAX_RESTARTS, Remedy, Report, STALLED_MS, STEADY_MS, State, Watch,
};
use crate::events::Events;

/// Time for a daemon that lost a task to end by itself. One that hangs cannot.
const GRACE: Duration = Duration::from_secs(30);

/// Watches over the tasks of a daemon. Clones share it.
#[derive(Clone)]
pub struct Watchdog(Arc<Inner>);

struct Inner {
    events: Events,
    started: Instant,
    watch: Mutex<Watch>,
    lost: tokio::sync::watch::Sender<Option<String>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The thread that looks; it ends when this is dropped.
pub struct Looking(#[expect(dead_code, reason = "dropping it is what it is for")] Sender<()>);

impl Watchdog {
    /// Watches over what runs in `tasks` until `stop`.
    #[must_use]
    pub fn new(events: Events, tasks: TaskTracker, stop: CancellationToken) -> Self {
        let (lost, _) = tokio::sync::watch::channel(None);
        Self(Arc::new(Inner { events, started: Instant::now(), watch: Mutex::default(), lost, tasks, stop }))
    }

    /// Begins to look for loops that do not turn.
    ///
    /// # Errors
    /// When there can be no further thread.
    pub fn look(&self) -> std::io::Result<Looking> {
        let (end, ended) = channel::<()>();
        let this = self.clone();
        let interval = Duration::from_millis(watch::INTERVAL_MS);
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || {
            let mut lost_at: Option<Instant> = None;
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                this.look_once();
                if this.0.lost.borrow().is_some()
                    && lost_at.get_or_insert_with(Instant::now).elapsed() > GRACE
                {
                    // With a trace of what hangs, where the system keeps such.
                    std::process::abort();
                }
            }
        })?;
        Ok(Looking(end))
    }

    fn look_once(&self) {
        let findings = self.watch().observe(self.now_ms());
        for finding in findings {
            match finding {
                Finding::Stalled(task, ms) => self.0.events.emit(
                    Severity::Warning,
                    "task-stalled",
                    task,
                    format!("it has not turned for {} s; the rest goes on", ms / 1_000),
                ),
                Finding::Turns(task, ms) => self.0.events.emit(
                    Severity::Info,
                    "task-turns",
                    task,
                    format!("it turns again, after {} s", ms / 1_000),
                ),
                Finding::Hopeless(task, ms) => {
                    self.lose(task, &format!("it has not turned for {} s", ms / 1_000));
                }
            }
        }
    }

    /// Runs a task that the daemon cannot go without. It may end only when the daemon does.
    pub fn keep<T: Send + 'static>(
        &self,
        task: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) {
        self.run(task, work, false);
    }

    /// The same for one that may come to its end.
    pub fn keep_to_end<T: Send + 'static>(
        &self,
        task: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) {
        self.run(task, work, true);
    }

    fn run<T: Send + 'static>(
        &self,
        task: &'static str,
        work: impl Future<Output = T> + Send + 'static,
        may_end: bool,
    ) {
        self.pulse(task, Pulse::Started);
        let running = self.0.tasks.spawn(work);
        let this = self.clone();
        self.0.tasks.spawn(async move {
            match running.await {
                Ok(_) if may_end || this.0.stop.is_cancelled() => this.pulse(task, Pulse::Ended),
                ended => this.lose(task, &why(ended.err())),
            }
        });
    }

    /// Runs a task until the daemon stops, and starts it again when it fails. Only for one that begins from
    /// the newest snapshots and holds nothing that others wait for.
    pub fn again<F>(&self, task: &'static str, make: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let this = self.clone();
        self.0.tasks.spawn(async move {
            loop {
                this.pulse(task, Pulse::Started);
                let running = this.0.stop.clone().run_until_cancelled_owned(make());
                let ended = this.0.tasks.spawn(running).await;
                if this.0.stop.is_cancelled() {
                    return this.pulse(task, Pulse::Ended);
                }
                let why = why(ended.err());
                let remedy = this.watch().handle_failure(task, this.now_ms());
                let Remedy::Restart(pause) = remedy else { return this.lose(task, &why) };
                let text = format!("{why}; it is started again in {} s", pause.as_secs());
                this.0.events.emit(Severity::Warning, "task-restarted", task, text);
                this.0.stop.run_until_cancelled(tokio::time::sleep(pause)).await;
            }
        });
    }

    /// Waits until a task is lost, and says which and why.
    pub async fn lost(&self) -> String {
        let mut lost = self.0.lost.subscribe();
        let why = lost.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            // It cannot be closed: the sender is in here.
            None => std::future::pending().await,
        }
    }

    /// Every task, by name.
    #[must_use]
    pub fn report(&self) -> Vec<Report> {
        self.watch().report(self.now_ms())
    }

    fn lose(&self, task: &'static str, why: &str) {
        self.watch().handle_pulse(task, Pulse::Panicked, self.now_ms());
        let text = format!("{why}: the daemon ends; gates in the kernel go on by the last plan");
        self.0.events.emit(Severity::Warning, "task-lost", task, text);
        self.0.lost.send_if_modified(|lost| {
            let first = lost.is_none();
            lost.get_or_insert_with(|| format!("task {task:?} of this node is lost: {why}"));
            first
        });
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn watch(&self) -> MutexGuard<'_, Watch> {
        self.0.watch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a task ended that should not have.
fn why(error: Option<JoinError>) -> String {
    error.map_or_else(|| "it ended by itself".to_owned(), |error| error.to_string())
}

/// What the subsystems are given: their events go on, their signs of life are taken.
impl EventSink for Watchdog {
    fn emit(&self, severity: Severity, code: &'static str, subject: &str, message: String) {
        self.0.events.emit(severity, code, subject, message);
    }

    fn pulse(&self, task: &'static str, pulse: Pulse) {
        match pulse {
            Pulse::Panicked => self.lose(task, "it panicked"),
            Pulse::Started | Pulse::Turned | Pulse::Ended => {
                self.watch().handle_pulse(task, pulse, self.now_ms());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use selvedge_fabric::event::vital;
    use tokio::sync::Notify;

    use super::*;

    /// Generous: tests do not measure speed.
    const DEADLINE: Duration = Duration::from_secs(30);

    fn watchdog() -> (Watchdog, Events, CancellationToken) {
        let (events, stop) = (Events::default(), CancellationToken::new());
        (Watchdog::new(events.clone(), TaskTracker::new(), stop.clone()), events, stop)
    }

    async fn lost(watchdog: &Watchdog) -> String {
        tokio::time::timeout(DEADLINE, watchdog.lost()).await.expect("the loss is noticed")
    }

    #[tokio::test]
    async fn a_panic_in_a_task_that_is_needed_is_a_loss_with_a_name() {
        let (watchdog, events, _stop) = watchdog();
        watchdog.keep("plan", async { panic!("on purpose") });
        let why = lost(&watchdog).await;
        assert!(why.contains("\"plan\"") && why.contains("on purpose"), "{why}");
        assert_eq!(watchdog.report()[0].state, State::Lost);
        let told = events.since(0, 10);
        assert_eq!((told[0].code.as_str(), told[0].subject.as_str()), ("task-lost", "plan"));
    }

    #[tokio::test]
    async fn so_is_an_end_that_nobody_asked_for_and_a_panic_within_a_subsystem() {
        let (watchdog, ..) = watchdog();
        watchdog.keep("server", async {});
        assert!(lost(&watchdog).await.contains("ended by itself"));

        let (watchdog, ..) = self::watchdog();
        let tasks = TaskTracker::new();
        let sink: Arc<dyn EventSink> = Arc::new(watchdog.clone());
        tasks.spawn(vital(sink, "log", async { panic!("on purpose") }));
        assert!(lost(&watchdog).await.contains("\"log\""));
    }

    #[tokio::test]
    async fn what_ends_with_the_daemon_or_may_end_is_none() {
        let (watchdog, events, stop) = watchdog();
        watchdog.keep_to_end("starter", async {});
        let stopped = stop.clone();
        watchdog.keep("server", async move { stopped.cancelled().await });
        watchdog.again("carrier", std::future::pending);
        stop.cancel();
        watchdog.0.tasks.close();
        tokio::time::timeout(DEADLINE, watchdog.0.tasks.wait()).await.expect("all end");
        assert!(watchdog.0.lost.borrow().is_none());
        assert_eq!(events.since(0, 10), []);
        assert!(watchdog.report().iter().all(|r| r.state == State::Ended));
    }

    #[tokio::test]
    async fn a_carrier_is_started_again() {
        let (watchdog, events, _stop) = watchdog();
        let (runs, told) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let (counted, tell) = (runs.clone(), told.clone());
        watchdog.again("carrier", move || {
            let (run, tell) = (counted.fetch_add(1, Ordering::SeqCst), tell.clone());
            async move {
                assert!(run > 0, "on purpose");
                tell.notify_one();
                std::future::pending().await
            }
        });
        tokio::time::timeout(DEADLINE, told.notified()).await.expect("it runs again");
        let event = &events.since(0, 10)[0];
        assert_eq!(event.code, "task-restarted");
        assert!(event.message.contains("on purpose") && event.message.contains("again in 1 s"), "{event:?}");
        let report = watchdog.report()[0];
        assert_eq!((report.state, report.restarts), (State::Running, 1));
        assert!(watchdog.0.lost.borrow().is_none());
    }
}
