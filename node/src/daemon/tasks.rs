//! Small tasks that carry one subsystem's snapshots to another. Each follows watch channels until it is
//! told to stop; none of them decides anything.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use selvedge_consensus::{Peer, QuorumStatus};
use selvedge_fabric::{
    Epoch,
    key::NodeId,
    plan::Plan,
    policy::PolicyState,
    record::{Body, EndpointFact, Load, Presence},
    view::{Liveness, View},
};
use selvedge_membership::Membership;
use selvedge_transport::Transport;
use tokio::sync::watch;

use crate::clock;

/// How often load is announced.
const LOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Cuts connections that the policy no longer admits.
pub(super) async fn recheck_connections(mut policy: watch::Receiver<Arc<PolicyState>>, transport: Transport) {
    while policy.changed().await.is_ok() {
        policy.mark_unchanged();
        transport.recheck();
    }
}

/// What voter placement needs to know of the view: who lives, and since when it does not.
pub(super) async fn feed_liveness(
    mut view: watch::Receiver<Arc<View>>,
    mut policy: watch::Receiver<Arc<PolicyState>>,
    liveness: watch::Sender<Arc<BTreeMap<NodeId, Peer>>>,
) {
    loop {
        let (seen, intent) = (view.borrow_and_update().clone(), policy.borrow_and_update().clone());
        let before = liveness.borrow().clone();
        let next = Arc::new(peers(&seen, &intent, &before, clock::unix_ms()));
        if next != before {
            liveness.send_replace(next);
        }
        tokio::select! {
            changed = view.changed() => if changed.is_err() { return },
            changed = policy.changed() => if changed.is_err() { return },
        }
    }
}

fn peers(
    view: &View,
    policy: &PolicyState,
    before: &BTreeMap<NodeId, Peer>,
    now_ms: u64,
) -> BTreeMap<NodeId, Peer> {
    let peers = policy.nodes.iter().map(|(name, admission)| {
        let id = admission.key.node_id();
        let me = view.me.as_ref() == Some(name);
        let state = view.nodes.get(name).map_or(Liveness::Unknown, |n| n.state);
        let liveness = if me { Liveness::Alive } else { state };
        let since = before.get(&id).filter(|p| p.liveness == liveness).map(|p| p.since_ms);
        let peer = Peer {
            name: name.clone(),
            zone: admission.zone.clone(),
            liveness,
            since_ms: since.unwrap_or(now_ms),
        };
        (id, peer)
    });
    peers.collect()
}

/// Announces this node's endpoints whenever they change.
pub(super) async fn announce_endpoints(
    mut facts: watch::Receiver<Arc<Vec<EndpointFact>>>,
    membership: Membership,
) {
    loop {
        let now = facts.borrow_and_update().clone();
        membership.announce(Body::Endpoints(now.to_vec()));
        if facts.changed().await.is_err() {
            return;
        }
    }
}

/// Announces where this node is reached, and how loaded it is.
pub(super) async fn announce_self(presence: Presence, membership: Membership) {
    membership.announce(Body::Presence(presence));
    let mut tick = tokio::time::interval(LOAD_INTERVAL);
    loop {
        tick.tick().await;
        membership.announce(Body::Load(load()));
    }
}

/// Numbers of plan and view, for the API's watch streams.
pub(super) async fn feed_watches(
    mut plan: watch::Receiver<Arc<Plan>>,
    mut view: watch::Receiver<Arc<View>>,
    revision: watch::Sender<u64>,
    members: watch::Sender<u64>,
) {
    let moved = |to: u64| move |at: &mut u64| to != std::mem::replace(at, to);
    loop {
        revision.send_if_modified(moved(plan.borrow_and_update().revision));
        members.send_if_modified(moved(view.borrow_and_update().generation));
        tokio::select! {
            changed = plan.changed() => if changed.is_err() { return },
            changed = view.changed() => if changed.is_err() { return },
        }
    }
}

fn load() -> Load {
    let average = std::fs::read_to_string("/proc/loadavg").ok();
    let average = average.and_then(|text| text.split(' ').next()?.parse::<f64>().ok()).unwrap_or(0.0);
    let cpus = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    Load {
        cpu_percent: (average * 100.0 / cpus).clamp(0.0, f64::from(u16::MAX)) as u16,
        // Pages of 4 KiB on every platform that this runs on.
        rss_mib: u32::try_from(pages * 4 / 1024).unwrap_or(u32::MAX),
    }
}

/// Carries the fence epoch to membership, for as long as it rises.
pub(super) async fn feed_epoch(mut status: watch::Receiver<Arc<QuorumStatus>>, epoch: watch::Sender<Epoch>) {
    status.mark_changed();
    while status.changed().await.is_ok() {
        let present = status.borrow_and_update().fence_epoch;
        epoch.send_if_modified(|known| {
            let rises = present > *known;
            *known = present.max(*known);
            rises
        });
    }
}
