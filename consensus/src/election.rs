//! Elections with a pre-vote (Ongaro's thesis, section 9.6).
//!
//! openraft 0.9 has no pre-vote: a voter that was cut off raises its term again and again, and deposes a
//! healthy leader when it returns. So openraft's own elections are off. A voter that heard no leader
//! for a random time first asks whether it *would* be elected; the others say yes only if its log is
//! at least as new as theirs and they have not heard a leader themselves ([`crate::rules`]). Asking changes
//! nothing anywhere, so a voter that is cut off never raises its term.
//!
//! Failure detection knows of a killed leader before its silence tells (a closed port answers at once). So the
//! voters that hold it for dead need not wait for the time-out: two heartbeats of silence, and it is the turn of
//! the first of them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use selvedge_fabric::event::Pulse;
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    core::Core,
    rules::{Countdown, is_majority},
    timers::Timers,
    wire::{Answer, Ask},
};

/// How often the countdown is looked at.
const TICK: Duration = Duration::from_millis(25);

/// Runs until the replica ends.
pub(crate) async fn run(core: Arc<Core>, seed: u64) {
    let mut tick = tokio::time::interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let started = Instant::now();
    let mut countdown = Countdown::new(seed, Duration::ZERO);
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
        let leadership = core.leadership();
        if leadership.silence < timers.election {
            countdown.relax();
        }
        let alone = voters.len() == 1;
        let before = voters.range(..core.id).filter(|(id, _)| !core.is_gone(**id)).count();
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        if alone || countdown.is_over(started.elapsed(), leadership, before, &timers) {
            match campaign(&core, &timers, countdown.patience(timers.election)).await {
                Campaign::Started => countdown.restart(started.elapsed()),
                Campaign::Declined => countdown.retry(started.elapsed()),
                Campaign::Unheard => countdown.retry_with_patience(started.elapsed()),
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
    if !core.leadership().has_ended(timers) && voters.len() > 1 {
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
        core.events.pulse("raft heartbeats", Pulse::Turned);
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
        if core.link.is_paused() {
            continue;
        }
        if core.raft.trigger().heartbeat().await.is_err() {
            return;
        }
    }
}
