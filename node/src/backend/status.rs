//! Health of fabric and node, readable at a glance.

use std::collections::{BTreeMap, BTreeSet};

use selvedge_fabric::{
    command::{AdmissionState, Role},
    id::Name,
    record::Health,
    view::{Liveness, NodeView, View},
};

use super::Node;
use crate::{
    api::{Caller, types},
    clock,
    watchdog::{self, Report, State},
};

/// A fact older than this is stale: living nodes renew theirs far more often.
const STALE_MS: u64 = 30_000;

impl Node {
    pub(super) fn report_status(&self) -> types::Status {
        let (policy, view, plan, quorum) = (self.policy(), self.view(), self.plan(), self.quorum());
        let me = &self.identity;
        let now = clock::unix_ms();
        let stale = stale_nodes(&view, me.node.as_str(), now);
        let alarms =
            plan.alarms.iter().map(|a| types::Alarm { code: a.code.to_owned(), message: a.message.clone() });
        let mut alarms: Vec<_> = alarms.collect();
        if let Some(message) = quorum.stopped.clone() {
            alarms.push(types::Alarm { code: "replica-stopped".to_owned(), message });
        } else if !quorum.quorum {
            alarms.push(types::Alarm { code: "no-quorum".to_owned(), message: self.quorum_alarm() });
        }
        alarms.extend(self.lost_majority_alarm());
        alarms.extend(self.revocation_alarm());
        alarms.extend(self.drill_alarm());
        let tasks = self.watchdog.report();
        alarms.extend(tasks.iter().filter_map(task_alarm));
        let zones = self.zones();
        let endpoints = zones.iter().fold(types::Counts::default(), |sum, z| types::Counts {
            up: sum.up + z.endpoints.up,
            total: sum.total + z.endpoints.total,
        });
        types::Status {
            ready: self.check_readiness().ready,
            revision: policy.revision,
            enforced_revision: self.packets.revision_in_force(),
            zones,
            alarms,
            fabric: me.fabric.to_string(),
            node: me.node.to_string(),
            zone: me.zone.to_string(),
            role: me.role.to_string(),
            suffix: policy.params.as_ref().map(|p| p.suffix.clone()).unwrap_or_default(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            quorum: quorum.quorum,
            leader: quorum.leader.as_ref().map(ToString::to_string),
            isolated: view.isolated,
            endpoints,
            oldest_fact_ms: stale.iter().map(|(_, age)| *age).max(),
            stale_nodes: stale.into_iter().map(|(name, _)| name).collect(),
            certificate_expires: self.certificate.expires_ms().map(types::rfc3339),
            tasks: tasks.iter().map(task_health).collect(),
            listening: self.listening.iter().map(|(k, v)| (k.clone(), texts(v))).collect(),
        }
    }

    fn quorum_alarm(&self) -> String {
        let quorum = self.quorum();
        let missing: Vec<_> = quorum.voters.iter().filter(|v| !v.live).map(|v| v.name.to_string()).collect();
        format!(
            "no quorum: policy cannot change, everything else goes on; missing voters: {}; start them again",
            if missing.is_empty() { "not known yet".to_owned() } else { missing.join(", ") }
        )
    }

    /// Health by cloud or region, in order.
    fn zones(&self) -> Vec<types::ZoneHealth> {
        let (policy, view) = (self.enforced_policy(), self.view());
        let mut zones: BTreeMap<_, types::ZoneHealth> = BTreeMap::new();
        let mut unheard: BTreeSet<_> = BTreeSet::new();
        for (name, admission) in policy.nodes.iter().filter(|(_, a)| a.state != AdmissionState::Revoked) {
            let zone = zones.entry(admission.zone.clone()).or_insert_with(|| types::ZoneHealth {
                name: admission.zone.to_string(),
                state: types::ZoneState::Unknown,
                processors: types::Counts::default(),
                workloads: types::Counts::default(),
                endpoints: types::Counts::default(),
                rtt_ms: None,
                heard_ms_ago: None,
            });
            let seen = view.nodes.get(name);
            let me = *name == self.identity.node;
            let up = me || seen.is_some_and(|n| matches!(n.state, Liveness::Alive | Liveness::Suspect));
            let counts = match admission.role {
                Role::Processor => &mut zone.processors,
                Role::Workload => &mut zone.workloads,
            };
            counts.total += 1;
            counts.up += usize::from(up);
            if !me && seen.is_none_or(|n| n.state == Liveness::Unknown) {
                unheard.insert(admission.zone.clone());
            }
            if let Some(seen) = seen {
                count_endpoints(&mut zone.endpoints, seen, me);
                zone.rtt_ms = least(zone.rtt_ms, seen.rtt_us.map(|us| f64::from(us) / 1000.0));
                let age = seen.heard_ms.map(|at| clock::unix_ms().saturating_sub(at));
                zone.heard_ms_ago = [zone.heard_ms_ago, age].into_iter().flatten().min();
            }
        }
        for (name, zone) in &mut zones {
            let mine = *name == self.identity.zone;
            zone.state = zone_state(&view, name.cloud(), zone, mine, unheard.contains(name));
        }
        zones.into_values().collect()
    }

    pub(super) fn report_quorum(&self) -> types::QuorumReport {
        let quorum = self.quorum();
        let replica = |r: &selvedge_consensus::Replicant| types::Replica {
            name: r.name.to_string(),
            zone: r.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
            live: r.live,
        };
        types::QuorumReport {
            leader: quorum.leader.as_ref().map(ToString::to_string),
            term: quorum.term,
            voters: quorum.voters.iter().map(replica).collect(),
            learners: quorum.learners.iter().map(replica).collect(),
            survives: quorum.survives.clone(),
            fence_epoch: quorum.fence_epoch,
            quorum: quorum.quorum,
            warning: quorum.warning.clone(),
            last_index: quorum.last_index,
            lost_majority: self.lost_majority(),
            recovery: quorum.recovery.as_deref().map(super::recovery::note),
            lost_entries: quorum.left_behind,
        }
    }

    pub(super) fn report_me(&self, caller: &Caller) -> types::Me {
        types::Me {
            fabric: self.identity.fabric.to_string(),
            node: self.identity.node.to_string(),
            zone: self.identity.zone.to_string(),
            role: self.identity.role.to_string(),
            suffix: self.plan().zone.suffix.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            caller: caller.actor(),
        }
    }

    pub(super) fn check_health(&self) -> Result<(), String> {
        // The plan is renewed every few seconds even when nothing happens; an old one means that the
        // reconcile task no longer runs.
        const PLAN_MAX_AGE_MS: u64 = 30_000;
        let age = clock::unix_ms().saturating_sub(self.plan().at_ms);
        if age > PLAN_MAX_AGE_MS {
            Err(format!("the plan is {age} ms old: reconcile is stuck"))
        } else {
            Ok(())
        }
    }

    pub(super) fn check_readiness(&self) -> types::Readiness {
        let mut waiting_for = Vec::new();
        if self.policy().params.is_none() {
            waiting_for.push("the policy: no other node has sent it yet".to_owned());
        } else if self.plan().revision == 0 {
            waiting_for.push("the first plan".to_owned());
        } else if self.packets.revision_in_force() == 0 {
            // Until then nothing can be attached.
            waiting_for.push("the first plan to be in force on packets".to_owned());
        }
        types::Readiness { ready: waiting_for.is_empty(), waiting_for }
    }
}

fn task_health(task: &Report) -> types::TaskHealth {
    types::TaskHealth {
        name: task.name.to_owned(),
        state: task.state.word().to_owned(),
        restarts: task.restarts,
        turned_ms_ago: task.turned_ms_ago,
    }
}

/// What people should know of a task: that it does not do its work, or failed not long ago.
fn task_alarm(task: &Report) -> Option<types::Alarm> {
    let Report { name, restarts, .. } = task;
    let recently = task.restarted_ms_ago.is_some_and(|ago_ms| ago_ms < watchdog::STEADY_MS);
    let (code, message) = match task.state {
        State::Stalled => {
            let ms = task.turned_ms_ago.unwrap_or(0);
            let text = format!(
                "task {name} of this node has not turned for {} s; if it goes on, the daemon",
                ms / 1_000
            );
            ("task-stalled", format!("{text} ends after {} s", watchdog::HOPELESS_MS / 1_000))
        }
        State::Lost => ("task-lost", format!("task {name} of this node is lost: the daemon ends")),
        State::Restarting => {
            ("task-restarted", format!("task {name} of this node failed; it is started again soon"))
        }
        State::Running if recently => (
            "task-restarted",
            format!("task {name} of this node failed {restarts} times and runs again; see events"),
        ),
        State::Running | State::Ended => return None,
    };
    Some(types::Alarm { code: code.to_owned(), message })
}

fn stale_nodes(view: &View, me: &str, now: u64) -> Vec<(String, u64)> {
    let others = view.nodes.iter().filter(|(name, _)| name.as_str() != me);
    let stale = others.filter_map(|(name, n)| {
        let age = now.saturating_sub(n.heard_ms?);
        (n.state == Liveness::Unknown || age > STALE_MS).then(|| (name.to_string(), age))
    });
    stale.collect()
}

fn count_endpoints(counts: &mut types::Counts, seen: &NodeView, me: bool) {
    let served = me || !matches!(seen.state, Liveness::Down | Liveness::Left);
    counts.total += seen.endpoints.len();
    if served && !seen.quarantined {
        counts.up += seen.endpoints.values().filter(|e| e.health != Health::Failing).count();
    }
}

/// `unheard`: some of its nodes were not heard since this one started. That is so for a moment after every
/// start, and no sign of trouble.
fn zone_state(
    view: &View,
    cloud: &Name,
    zone: &types::ZoneHealth,
    mine: bool,
    unheard: bool,
) -> types::ZoneState {
    let nodes = types::Counts {
        up: zone.processors.up + zone.workloads.up,
        total: zone.processors.total + zone.workloads.total,
    };
    let silent = nodes.up == 0 && (view.isolated || !view.clouds_down.contains_key(cloud));
    match nodes {
        _ if !mine && view.clouds_down.contains_key(cloud) => types::ZoneState::Down,
        types::Counts { up, total } if up == total => types::ZoneState::Up,
        _ if silent || unheard => types::ZoneState::Unknown,
        _ => types::ZoneState::Degraded,
    }
}

fn least(a: Option<f64>, b: Option<f64>) -> Option<f64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (one, other) => one.or(other),
    }
}

fn texts<T: ToString>(values: &[T]) -> Vec<String> {
    values.iter().map(ToString::to_string).collect()
}
