//! The rules of elections and of fencing, as pure functions: what openraft leaves to its user.

use std::{collections::BTreeSet, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use selvedge_fabric::Epoch;

use crate::timers::{ELECTION_PER_RTT, MAX_ELECTION, Timers};

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
/// How many voters take their turn within an election timeout when the leader is known to be dead.
const TURNS_PER_ELECTION: u32 = 4;

/// Whether what a replica at fence epoch `theirs` says is refused by one at `mine`. Also a higher epoch is:
/// it counts only with the recovery key's statement, which is not a matter of Raft.
#[must_use]
pub const fn is_fenced(mine: Epoch, theirs: Epoch) -> bool {
    mine != theirs
}

/// What a voter knows of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leadership {
    /// How long no leader was heard.
    pub silence: Duration,
    /// Failure detection holds the last leader that was heard for dead, or it said that it leaves.
    pub is_gone: bool,
}

impl Leadership {
    /// What counts of a leader that was last heard `silence` ago, when this voter gave its vote to another `voted`
    /// ago. Whoever was given it has the time of a leader to be heard (the Raft paper, section 5.2): otherwise two far
    /// candidates depose each other.
    #[must_use]
    pub fn new(silence: Duration, voted: Option<Duration>, is_gone: bool) -> Self {
        match voted {
            Some(voted) if voted < silence => Self { silence: voted, is_gone: false },
            _ => Self { silence, is_gone },
        }
    }

    /// Whether it has ended: nobody leads for an election timeout, or for two heartbeats when the leader is
    /// gone. Failure detection may be wrong; a leader that lives is heard, and then nothing else counts.
    #[must_use]
    pub fn has_ended(&self, timers: &Timers) -> bool {
        self.silence >= if self.is_gone { timers.vote_lease() } else { timers.election }
    }
}

/// Whether to promise a vote to one whose newest log entry is `theirs`: its log is at least as new as
/// `mine`, and leadership has ended.
#[must_use]
pub fn would_vote<L: PartialOrd>(
    mine: Option<L>,
    theirs: Option<L>,
    leadership: Leadership,
    timers: &Timers,
) -> bool {
    theirs >= mine && leadership.has_ended(timers)
}

/// Whether `granted` is a majority of every configuration (two, while membership changes).
#[must_use]
pub fn is_majority(configurations: &[BTreeSet<u64>], granted: &BTreeSet<u64>) -> bool {
    !configurations.is_empty()
        && configurations.iter().all(|voters| voters.intersection(granted).count() * 2 > voters.len())
}

/// The random time until a voter asks for an election. Time counts from any start, always the same one.
#[derive(Debug)]
pub struct Countdown {
    random: StdRng,
    attempt: Duration,
    /// How long no leader must have been heard, in election timeouts.
    factor: f64,
    /// How long the last attempt must be over, in election timeouts.
    pause: f64,
    /// How often in a row the others were too far away to be heard in time.
    strain: u32,
    /// Since when the leader is known to be gone.
    gone: Option<Duration>,
}

impl Countdown {
    /// A countdown that begins now.
    #[must_use]
    pub fn new(seed: u64, now: Duration) -> Self {
        let random = StdRng::seed_from_u64(seed);
        let mut countdown = Self { random, attempt: now, factor: 1.0, pause: 1.0, strain: 0, gone: None };
        countdown.restart(now);
        countdown
    }

    /// After an election was started: it must have time to succeed.
    pub fn restart(&mut self, now: Duration) {
        self.attempt = now;
        self.factor = self.random.random_range(WAIT);
        self.pause = self.factor * f64::from(1 << self.strain);
    }

    /// After the others said no. Mostly they heard the leader a moment later than this voter did, so
    /// asking again soon finds them ready; and asking disturbs nobody.
    pub fn retry(&mut self, now: Duration) {
        self.attempt = now;
        self.pause = self.random.random_range(RETRY);
    }

    /// After too few said anything in time.
    pub fn retry_with_patience(&mut self, now: Duration) {
        self.strain = (self.strain + 1).min(MAX_STRAIN);
        self.retry(now);
    }

    /// A leader was heard: all is well.
    pub const fn relax(&mut self) {
        self.strain = 0;
    }

    /// How long the next pre-vote is waited for.
    #[must_use]
    pub fn patience(&self, election: Duration) -> Duration {
        let least = election / PRE_VOTES_PER_ELECTION;
        least.saturating_mul(1 << self.strain).min(MAX_PRE_VOTE.max(least))
    }

    /// Whether it is time to ask. When the leader is gone nobody waits for a random time: the voters that
    /// live ask in turn, this one after `before` others, so that two do not share the votes.
    #[must_use]
    pub fn is_over(&mut self, now: Duration, leadership: Leadership, before: u32, timers: &Timers) -> bool {
        let gone = leadership.is_gone && leadership.has_ended(timers);
        self.gone = gone.then(|| self.gone.unwrap_or(now));
        let turn = (timers.election / TURNS_PER_ELECTION).saturating_mul(before);
        let my_turn = self.gone.is_some_and(|since| now.saturating_sub(since) >= turn);
        let waited = my_turn || leadership.silence >= timers.election.mul_f64(self.factor);
        waited && now.saturating_sub(self.attempt) >= timers.election.mul_f64(self.pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELECTION: Duration = Timers::DEFAULT.election;

    const fn alive(silence: Duration) -> Leadership {
        Leadership { silence, is_gone: false }
    }

    const fn gone(silence: Duration) -> Leadership {
        Leadership { silence, is_gone: true }
    }

    #[test]
    fn a_vote_is_promised_to_newer_logs_when_no_leader_is_heard() {
        let timers = Timers::default();
        let vote = |mine, theirs, silence| would_vote(mine, theirs, alive(silence), &timers);
        let at = |term: u64, index: u64| Some((term, index));
        assert!(vote(at(2, 5), at(2, 5), ELECTION));
        assert!(vote(at(2, 5), at(3, 1), ELECTION));
        assert!(vote(None, None, ELECTION));
        assert!(!vote(at(2, 5), at(2, 4), ELECTION), "an older log");
        assert!(!vote(at(2, 5), None, ELECTION), "an empty log");
        assert!(!vote(at(2, 5), at(9, 9), ELECTION / 2), "a leader lives");
    }

    #[test]
    fn a_joint_configuration_needs_both_majorities() {
        let both = [BTreeSet::from([1, 2, 3]), BTreeSet::from([3, 4, 5])];
        assert!(!is_majority(&both, &BTreeSet::from([1, 2, 3])));
        assert!(is_majority(&both, &BTreeSet::from([1, 3, 4])));
        assert!(!is_majority(&[], &BTreeSet::from([1])));
    }

    #[test]
    fn the_countdown_waits_at_least_one_election_timeout() {
        let start = Duration::from_secs(9);
        let (mut countdown, timers) = (Countdown::new(7, start), Timers::default());
        assert!(!countdown.is_over(start + ELECTION / 2, alive(ELECTION * 9), 0, &timers));
        assert!(countdown.is_over(start + ELECTION * 2, alive(ELECTION * 2), 0, &timers));
        assert!(!countdown.is_over(start + ELECTION * 2, alive(Duration::ZERO), 0, &timers));
    }

    #[test]
    fn a_dead_leader_is_replaced_in_turn_and_one_that_is_heard_is_not() {
        let (now, timers) = (ELECTION * 9, Timers::default());
        let (mut first, mut second) = (Countdown::new(1, ELECTION), Countdown::new(2, ELECTION));
        let (heard, quiet) = (gone(timers.heartbeat), gone(timers.vote_lease()));
        assert!(!first.is_over(now, heard, 0, &timers), "it is heard, whatever is said of it");
        assert!(!would_vote(Some(1), Some(1), heard, &timers));
        assert!(would_vote(Some(1), Some(1), quiet, &timers));
        assert!(first.is_over(now, quiet, 0, &timers));
        first.restart(now);
        assert!(!first.is_over(now, quiet, 0, &timers), "its election has time to succeed");
        assert!(!second.is_over(now, quiet, 1, &timers), "it is the first one's turn");
        assert!(second.is_over(now + ELECTION / 4, quiet, 1, &timers));
        assert!(!second.is_over(now + ELECTION, alive(ELECTION / 2), 1, &timers), "a new leader");
        assert!(!second.is_over(now + ELECTION * 2, quiet, 1, &timers), "its turn is counted anew");
    }

    #[test]
    fn patience_grows_while_nobody_is_heard_and_is_bounded() {
        let now = Duration::ZERO;
        let mut countdown = Countdown::new(7, now);
        let least = countdown.patience(ELECTION);
        assert_eq!(least, ELECTION / 3);
        countdown.retry_with_patience(now);
        assert_eq!(countdown.patience(ELECTION), least * 2);
        countdown.retry(now);
        assert_eq!(countdown.patience(ELECTION), least * 2, "somebody said no: that tells no distance");
        for _ in 0..100 {
            countdown.retry_with_patience(now);
        }
        assert_eq!(countdown.patience(ELECTION), MAX_PRE_VOTE);
        assert_eq!(
            countdown.patience(MAX_ELECTION),
            MAX_ELECTION / 3,
            "never less than three to an election"
        );
        countdown.relax();
        assert_eq!(countdown.patience(ELECTION), least);
    }

    #[test]
    fn any_other_epoch_is_fenced() {
        assert!(is_fenced(2, 1) && is_fenced(1, 2) && !is_fenced(2, 2));
    }
}
