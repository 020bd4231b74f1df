//! Moves rollouts on, or stops them, while this node leads.

use std::{sync::Arc, time::Duration};

use selvedge_consensus::{Proposal, Replica};
use selvedge_fabric::{
    command::Command,
    event::{EventSink, Severity},
    id::NodeName,
    key::CommandId,
    policy::PolicyState,
    rollout::{self, Step},
    view::View,
};
use tokio::sync::watch;

use crate::clock;

/// How often the leader looks.
const INTERVAL: Duration = Duration::from_millis(500);
/// Time for the command to be committed; if it is not, the next look tries again.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Judges every rollout for as long as this node leads.
pub(super) async fn run(
    replica: Replica,
    view: watch::Receiver<Arc<View>>,
    me: NodeName,
    events: Arc<dyn EventSink>,
) {
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if replica.status().borrow().leader.as_ref() != Some(&me) {
            continue;
        }
        let (policy, seen) = (replica.policy().borrow().clone(), view.borrow().clone());
        for command in due(&policy, &seen, clock::unix_ms()) {
            if let Command::StepRollout { contract, step: Step::Halt(why), .. } = &command {
                let text = format!("its rollout is stopped: {why}");
                events.emit(Severity::Warning, "rollout-halted", &contract.to_string(), text);
            }
            let proposal = Proposal { id: CommandId(rand::random()), actor: format!("node:{me}"), command };
            if let Err(error) = replica.propose(proposal, TIMEOUT).await {
                tracing::debug!(%error, "a rollout is not moved on yet");
            }
        }
    }
}

/// What is to be done about the rollouts of a policy.
fn due(policy: &PolicyState, view: &View, now_ms: u64) -> Vec<Command> {
    let due = policy.rollouts.iter().filter_map(|(contract, rollout)| {
        let soak_ms = policy.contract(contract)?.soak_ms();
        let step = rollout::judge(policy, rollout, soak_ms, view, now_ms)?;
        let (revision, since_ms) = (rollout.revision, rollout.since_ms);
        Some(Command::StepRollout { contract: contract.clone(), revision, since_ms, step })
    });
    due.collect()
}
