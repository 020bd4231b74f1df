//! How long things take.

/// Time-outs and intervals, in milliseconds. The defaults suit clouds up to about 300 ms apart: a killed
/// process is known within two seconds, a silent cut within six, and a pause of three seconds is no death.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timers {
    /// How often SWIM probes a random member. Must exceed `probe_rtt_ms`.
    pub probe_period_ms: u64,
    /// How long a direct answer may take before others are asked to try.
    pub probe_rtt_ms: u64,
    /// How long a suspect has to refute.
    pub suspicion_ms: u64,
    /// A watched peer that was not heard for so long is pinged.
    pub ping_ms: u64,
    /// A watched peer that was not heard for so long is poked.
    pub quiet_ms: u64,
    /// Time between pokes.
    pub poke_ms: u64,
    /// A watched peer that was not heard for so long is reported as silent. Longer than a pause of a few
    /// seconds: of a virtual machine that is moved, a process that is stopped, a busy host.
    pub silent_ms: u64,
    /// How long a node that sees nobody after its start waits before it says so.
    pub isolation_grace_ms: u64,
    /// How long one call of `vouch` holds.
    pub vouch_ms: u64,
    /// How long a workload node for which nobody vouches any more is still taken for alive: time to find
    /// another processor.
    pub vouch_grace_ms: u64,
    /// Time between rounds of anti-entropy.
    pub exchange_ms: u64,
    /// How often a node repeats that it lives. Failure detection does not need it: it is what lets a
    /// second holder of a key be seen, and how stale facts of a workload node are told.
    pub presence_ms: u64,
    /// Least time between two records of measured links.
    pub links_ms: u64,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            probe_period_ms: 700,
            probe_rtt_ms: 300,
            suspicion_ms: 4_200,
            ping_ms: 250,
            quiet_ms: 400,
            poke_ms: 120,
            silent_ms: 4_500,
            isolation_grace_ms: 3_000,
            vouch_ms: 3_000,
            vouch_grace_ms: 5_000,
            exchange_ms: 1_000,
            presence_ms: 20_000,
            links_ms: 10_000,
        }
    }
}
