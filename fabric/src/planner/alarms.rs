//! What people should know, each with what to do about it. Messages hold instants and no durations, so
//! that a plan does not change by the passing of time alone.

use super::{Prepared, alarm};
use crate::{
    UnixMs,
    compile::graph,
    id::NodeName,
    manifest::format_instant,
    plan::Alarm,
    policy::PolicyState,
    rollout::Stage,
    view::{Liveness, View},
};

/// How long before its end a contract is announced as ending.
pub const CONTRACT_EXPIRING_MS: UnixMs = 60 * 60 * 1000;

/// Names listed in one alarm; the rest are counted.
const MAX_NAMES: usize = 8;

/// The alarms, and when the passing of time will raise another one.
pub(super) fn raise(
    policy: &PolicyState,
    view: &View,
    prepared: &Prepared,
    now_ms: UnixMs,
) -> (Vec<Alarm>, Option<UnixMs>) {
    let mut alarms = Vec::new();
    connectivity(policy, view, &mut alarms);
    staleness(policy, view, &mut alarms);
    quarantine(view, &mut alarms);
    for domain in &prepared.suspended {
        alarms.push(alarm(
            "policy-too-old",
            format!(
                "contracts of domain {domain} are suspended: this node's policy is older than the domain's \
                 maxPolicyAge; restore its connection to a processor that has a quorum"
            ),
        ));
    }
    for problem in &prepared.verdicts.problems {
        alarms.push(alarm("policy-not-compiled", problem.clone()));
    }
    for (contract, rollout) in &policy.rollouts {
        let code = if matches!(rollout.stage, Stage::Halted(_)) { "rollout-halted" } else { "rollout" };
        alarms.push(alarm(code, rollout.message(contract)));
    }
    let next_ms = expiring(policy, now_ms, &mut alarms);
    (alarms, next_ms)
}

fn connectivity(policy: &PolicyState, view: &View, alarms: &mut Vec<Alarm>) {
    if view.isolated {
        let message = "this node reaches no other node; it goes on with what it knows. Check its network and \
                       its seeds";
        alarms.push(alarm("isolated", message.to_owned()));
    }
    for (cloud, since_ms) in &view.clouds_down {
        let nodes = policy.nodes.values().filter(|a| a.zone.cloud() == cloud).count();
        alarms.push(alarm(
            "cloud-down",
            format!(
                "cloud {cloud} with {nodes} nodes is down since {}; its endpoints are not named until it returns",
                format_instant(*since_ms)
            ),
        ));
    }
}

fn staleness(policy: &PolicyState, view: &View, alarms: &mut Vec<Alarm>) {
    let stale: Vec<_> = view
        .nodes
        .iter()
        .filter(|(name, node)| {
            policy.nodes.contains_key(*name)
                && Some(*name) != view.me.as_ref()
                && node.state == Liveness::Unknown
                && !node.endpoints.is_empty()
        })
        .collect();
    let Some(oldest_ms) = stale.iter().map(|(_, node)| node.heard_ms.unwrap_or(0)).min() else { return };
    alarms.push(alarm(
        "stale-facts",
        format!(
            "not heard of since this node started, and still served: {}; the oldest fact is of {}",
            listed(stale.iter().map(|(name, _)| *name)),
            format_instant(oldest_ms)
        ),
    ));
}

fn quarantine(view: &View, alarms: &mut Vec<Alarm>) {
    for (name, _) in view.nodes.iter().filter(|(_, node)| node.quarantined) {
        alarms.push(alarm(
            "quarantine",
            format!(
                "two machines use the key of node {name}, and none of its facts are believed: stop the copy, \
                 then revoke {name} and let it join again"
            ),
        ));
    }
}

fn expiring(policy: &PolicyState, now_ms: UnixMs, alarms: &mut Vec<Alarm>) -> Option<UnixMs> {
    let mut next_ms: Option<UnixMs> = None;
    for (name, contract) in graph::contracts(policy).filter(|(_, contract)| graph::holds(contract, now_ms)) {
        let Some(end_ms) = contract.expires_at else { continue };
        let told_from_ms = end_ms.saturating_sub(CONTRACT_EXPIRING_MS);
        if told_from_ms > now_ms {
            next_ms = Some(next_ms.map_or(told_from_ms, |next| next.min(told_from_ms)));
            continue;
        }
        alarms.push(alarm(
            "contract-expiring",
            format!("contract {name} ends at {}; apply it again to keep it", format_instant(end_ms)),
        ));
    }
    next_ms
}

fn listed<'a>(names: impl ExactSizeIterator<Item = &'a NodeName>) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let text: Vec<_> = names.take(MAX_NAMES).map(ToString::to_string).collect();
    let text = text.join(", ");
    if more > 0 { format!("{text} and {more} more") } else { text }
}
