//! Elections and heartbeats follow the measured round trips between voters.

use std::time::Duration;

/// Shortest election timeout, whatever was measured: below it, a pause of the scheduler or a slow
/// fdatasync looks like a dead leader.
pub const MIN_ELECTION: Duration = Duration::from_millis(600);
/// Longest election timeout: beyond it nobody would call the fabric live.
pub const MAX_ELECTION: Duration = Duration::from_secs(10);
/// How many round trips an election timeout must hold (the Raft paper, section 5.6, asks for an order
/// of magnitude between broadcast time and election timeout).
pub const ELECTION_PER_RTT: u32 = 10;
/// How many heartbeats may be lost before a follower asks for an election.
const HEARTBEATS_PER_ELECTION: u32 = 4;

/// The times a replica works with. The defaults suit one data centre; [`Timers::scaled`] stretches
/// them to what was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// Between heartbeats of the leader.
    pub heartbeat: Duration,
    /// A voter that heard no leader for a random time between this and 1.7 times as long asks for an
    /// election; one that heard a leader within this time refuses to help. Of a leader that is known to be dead,
    /// two silent heartbeats are enough.
    pub election: Duration,
    /// A voter that is down for longer is replaced, where placement allows it.
    pub dead_voter: Duration,
    /// Log entries after which a snapshot is taken.
    pub snapshot_entries: u64,
    /// Entries kept behind a snapshot, so that a replica that was away for a moment needs no snapshot.
    pub keep_entries: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Timers {
    pub(crate) const DEFAULT: Self = Self {
        heartbeat: Duration::from_millis(150),
        election: MIN_ELECTION,
        dead_voter: Duration::from_secs(10),
        snapshot_entries: 2_048,
        keep_entries: 512,
    };

    /// These timers for voters that are `rtt` (the 99th percentile) apart; never shorter than `self`.
    #[must_use]
    pub fn scaled(&self, rtt: Duration) -> Self {
        let election = (rtt * ELECTION_PER_RTT).clamp(self.election, MAX_ELECTION.max(self.election));
        let heartbeat = (election / HEARTBEATS_PER_ELECTION).max(self.heartbeat).min(election / 2);
        let heartbeat = if election == self.election { self.heartbeat } else { heartbeat };
        Self { heartbeat, election, ..*self }
    }

    /// The longest a voter waits before it asks for an election, and a little more.
    #[must_use]
    pub fn election_max(&self) -> Duration {
        self.election * 2
    }

    /// No voter helps to replace a leader that it heard within this time, two heartbeats, whatever it is told of
    /// that leader.
    #[must_use]
    pub fn vote_lease(&self) -> Duration {
        self.heartbeat * 2
    }

    /// A leader whose quorum answered longer ago than this does not append: two heartbeats went
    /// unanswered.
    #[must_use]
    pub fn quorum_fresh(&self) -> Duration {
        self.heartbeat * 2 + self.heartbeat / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elections_take_ten_round_trips_within_bounds() {
        let lan = Timers::default();
        assert_eq!(lan.scaled(Duration::from_millis(1)), lan);
        let wide = lan.scaled(Duration::from_millis(120));
        assert_eq!(wide.election, Duration::from_millis(1200));
        assert_eq!(wide.heartbeat, Duration::from_millis(300));
        assert_eq!(lan.scaled(Duration::from_secs(60)).election, MAX_ELECTION);
    }
}
