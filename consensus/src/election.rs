//! Elections with a pre-vote (Ongaro's thesis, section 9.6).
//!
//! openraft 0.9 has no pre-vote: a voter that was cut off raises its term again and again, and deposes a
//! healthy leader when it returns. So openraft's own elections are off. A voter that heard no leader
//! for a random time first asks whether it *would* be elected; the others say yes only if its log is
//! at least as new as theirs and they have not heard a leader themselves. Asking changes nothing
//! anywhere, so a voter that is cut off never raises its term.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    core::Core,
    timers::{ELECTION_PER_RTT, MAX_ELECTION, Timers},
    types::LogIndex,
    wire::{Answer, Ask},
};

/// How often the countdown is looked at.
const TICK: Duration = Duration::from_millis(25);

/// How long a voter hears no leader before it asks, in election timeouts. The spread keeps two voters
/// from asking at once; more of it only lengthens the gap after a leader's death.
const WAIT: std::ops::Range<f64> = 1.0..1.7;
/// A pre-vote is given up after this part of an election timeout, which holds three round trips at
/// least: the dead leader itself is among those asked, and must not hold up the next attempt.
const PRE_VOTES_PER_ELECTION: u32 = 3;
/// While too few answer and none says no, the next attempt is given twice the time: perhaps they are
/// farther away than is known yet. So often at most.
const MAX_STRAIN: u32 = 4;
/// Longest that a pre-vote is waited for: twice the longest round trip that elections are made for.
const MAX_PRE_VOTE: Duration =
    Duration::from_millis(2 * MAX_ELECTION.as_millis() as u64 / ELECTION_PER_RTT as u64);
/// Pause after a refused pre-vote, in election timeouts.
const RETRY: std::ops::Range<f64> = 0.1..0.3;

/// Whether to promise a vote to one whose newest log entry is `theirs`.
pub(crate) fn would_vote(
    mine: Option<LogIndex>,
    theirs: Option<LogIndex>,
    leader_silence: Duration,
    timers: &Timers,
) -> bool {
    theirs >= mine && leader_silence >= timers.election
}

/// Whether `granted` is a majority of every configuration (two, while membership changes).
pub(crate) fn is_majority(configurations: &[BTreeSet<u64>], granted: &BTreeSet<u64>) -> bool {
    !configurations.is_empty()
        && configurations.iter().all(|voters| voters.intersection(granted).count() * 2 > voters.len())
}

/// The random time until this voter asks for an election.
struct Countdown {
    random: StdRng,
    attempt: Instant,
    /// How long no leader must have been heard, in election timeouts.
    factor: f64,
    /// How long the last attempt must be over, in election timeouts.
    pause: f64,
    /// How often in a row the others were too far away to be heard in time.
    strain: u32,
}

impl Countdown {
    fn new(seed: u64, now: Instant) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let mut countdown = Self { random, attempt: now, factor: 1.0, pause: 1.0, strain: 0 };
        countdown.restart(now);
        countdown
    }

    /// After an election was started: it must have time to succeed.
    fn restart(&mut self, now: Instant) {
        self.attempt = now;
        self.factor = self.random.random_range(WAIT);
        self.pause = self.factor * f64::from(1 << self.strain);
    }

    /// After the others said no. Mostly they heard the leader a moment later than this voter did, so
    /// asking again soon finds them ready; and asking disturbs nobody.
    fn retry(&mut self, now: Instant) {
        self.attempt = now;
        self.pause = self.random.random_range(RETRY);
    }

    /// After too few said anything in time.
    fn retry_with_patience(&mut self, now: Instant) {
        self.strain = (self.strain + 1).min(MAX_STRAIN);
        self.retry(now);
    }

    /// A leader was heard: all is well.
    const fn relax(&mut self) {
        self.strain = 0;
    }

    /// How long the next pre-vote is waited for.
    fn patience(&self, timers: &Timers) -> Duration {
        let least = timers.election / PRE_VOTES_PER_ELECTION;
        least.saturating_mul(1 << self.strain).min(MAX_PRE_VOTE.max(least))
    }

    fn is_over(&self, now: Instant, leader_silence: Duration, timers: &Timers) -> bool {
        let pause = timers.election.mul_f64(self.pause);
        leader_silence >= timers.election.mul_f64(self.factor) && now.duration_since(self.attempt) >= pause
    }
}

/// Runs until the replica ends.
pub(crate) async fn run(core: Arc<Core>, seed: u64) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut countdown = Countdown::new(seed, Instant::now());
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let voters = core.voters();
        if core.leads() || !voters.contains_key(&core.id) {
            continue;
        }
        let timers = core.link.timers();
        if core.leader_silence() < timers.election {
            countdown.relax();
        }
        let alone = voters.len() == 1;
        if alone || countdown.is_over(Instant::now(), core.leader_silence(), &timers) {
            match campaign(&core, &timers, countdown.patience(&timers)).await {
                Campaign::Started => countdown.restart(Instant::now()),
                Campaign::Declined => countdown.retry(Instant::now()),
                Campaign::Unheard => countdown.retry_with_patience(Instant::now()),
            }
        }
        if alone {
            // Becoming leader takes a sync of the vote; asking again meanwhile only raises the term.
            tokio::time::sleep(timers.heartbeat).await;
        }
    }
}

/// What came of asking.
enum Campaign {
    Started,
    Declined,
    /// Nobody said no, but too few said anything.
    Unheard,
}

/// Asks all voters, and starts an election if a majority would vote for this node `within` that time.
async fn campaign(core: &Core, timers: &Timers, within: Duration) -> Campaign {
    let last = match core.store.last_log_id() {
        Ok(last) => last,
        Err(error) => {
            tracing::error!(%error, "cannot read the log, so this voter does not stand for election");
            return Campaign::Declined;
        }
    };
    let configurations = core.metrics().membership_config.membership().get_joint_config().clone();
    let mut granted = BTreeSet::from([core.id]);
    let voters = core.voters();
    let asks = voters.iter().filter(|(id, _)| **id != core.id).map(|(id, member)| async move {
        let answer = core.link.call(Some(*id), &member.name, Ask::PreVote { last }, Some(within)).await;
        (*id, answer.ok())
    });
    let mut answers: FuturesUnordered<_> = asks.collect();
    let mut otherwise = Campaign::Unheard;
    while !is_majority(&configurations, &granted) {
        match answers.next().await {
            Some((voter, Some(Answer::PreVote { granted: true }))) => granted.extend([voter]),
            Some((_, Some(_))) => otherwise = Campaign::Declined,
            Some((_, None)) => {}
            None => return otherwise,
        }
    }
    if core.leader_silence() < timers.election && voters.len() > 1 {
        return Campaign::Declined;
    }
    tracing::info!(voters = granted.len(), "a majority would vote for this node: standing for election");
    if let Err(error) = core.raft.trigger().elect().await {
        tracing::error!(%error, "the replica has stopped");
    }
    Campaign::Started
}

/// Keeps followers from asking: sends heartbeats while this node leads, and measures.
pub(crate) async fn heartbeats(core: Arc<Core>) {
    loop {
        tokio::select! {
            () = core.stop.cancelled() => return,
            () = tokio::time::sleep(core.link.timers().heartbeat) => {}
        }
        if !core.leads() {
            core.link.set_quorum(false);
            continue;
        }
        let voters = core.voters();
        let others = voters.keys().copied().filter(|id| *id != core.id);
        // Until it has measured, a new leader keeps what the one before it said, unless its quorum cannot be
        // that near.
        let (known, quorum) = (core.link.rtt(), voters.len() / 2);
        let measured = core.link.contacts.rtt(others.clone());
        let at_least = || core.link.contacts.reach(others, quorum).filter(|reach| *reach > known);
        if let Some(rtt) = measured.or_else(at_least) {
            core.link.set_rtt(rtt);
        }
        core.link.set_quorum(core.quorum_is_fresh());
        if core.raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, LogId};

    use super::*;

    fn at(term: u64, index: u64) -> Option<LogIndex> {
        Some(LogId::new(CommittedLeaderId::new(term, 1), index))
    }

    #[test]
    fn a_vote_is_promised_to_newer_logs_when_no_leader_is_heard() {
        let timers = Timers::default();
        let silent = timers.election;
        assert!(would_vote(at(2, 5), at(2, 5), silent, &timers));
        assert!(would_vote(at(2, 5), at(3, 1), silent, &timers));
        assert!(would_vote(None, None, silent, &timers));
        assert!(!would_vote(at(2, 5), at(2, 4), silent, &timers), "an older log");
        assert!(!would_vote(at(2, 5), None, silent, &timers), "an empty log");
        assert!(!would_vote(at(2, 5), at(9, 9), silent / 2, &timers), "a leader lives");
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let both = [BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])];
        assert!(!is_majority(&both, &BTreeSet::from([1, 2, 3])));
        assert!(is_majority(&both, &BTreeSet::from([1, 3, 4])));
        assert!(!is_majority(&[], &BTreeSet::from([1])));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_grows_while_nobody_is_heard_and_is_bounded() {
        let timers = Timers::default();
        let mut countdown = Countdown::new(7, Instant::now());
        let least = countdown.patience(&timers);
        assert_eq!(least, timers.election / 3);
        countdown.retry_with_patience(Instant::now());
        assert_eq!(countdown.patience(&timers), least * 2);
        countdown.retry(Instant::now());
        assert_eq!(countdown.patience(&timers), least * 2, "somebody said no: that tells no distance");
        for _ in 0..100 {
            countdown.retry_with_patience(Instant::now());
        }
        assert_eq!(countdown.patience(&timers), MAX_PRE_VOTE);
        let far = timers.scaled(MAX_ELECTION);
        assert_eq!(countdown.patience(&far), far.election / 3, "never less than three to an election");
        countdown.relax();
        assert_eq!(countdown.patience(&timers), least);
    }

    #[tokio::test(start_paused = true)]
    async fn the_countdown_waits_at_least_one_election_timeout() {
        let timers = Timers::default();
        let start = Instant::now();
        let countdown = Countdown::new(7, start);
        assert!(!countdown.is_over(start + timers.election / 2, timers.election * 9, &timers));
        assert!(countdown.is_over(start + timers.election * 2, timers.election * 2, &timers));
        assert!(!countdown.is_over(start + timers.election * 2, Duration::ZERO, &timers));
    }
}
