//! Members, as this node sees them.

use std::collections::BTreeSet;

use selvedge_fabric::{
    command::AdmissionState,
    id::NodeName,
    policy::Admission,
    view::{Liveness, NodeView},
};

use super::Node;
use crate::{api::types, clock};

impl Node {
    pub(super) fn list_members(&self) -> Vec<types::Member> {
        let (policy, view, quorum) = (self.enforced_policy(), self.view(), self.quorum());
        let voters: BTreeSet<_> = quorum.voters.iter().map(|v| v.name.clone()).collect();
        let members = policy.nodes.iter().map(|(name, admission)| {
            let voter = voters.contains(name);
            self.member(name, admission, view.nodes.get(name), voter)
        });
        members.collect()
    }

    fn member(
        &self,
        name: &NodeName,
        admission: &Admission,
        seen: Option<&NodeView>,
        voter: bool,
    ) -> types::Member {
        let me = *name == self.identity.node;
        let state = if me { Liveness::Alive } else { seen.map_or(Liveness::Unknown, |n| n.state) };
        let now = clock::unix_ms();
        let enforced = seen.and_then(|n| n.enforced).map(|e| e.revision);
        types::Member {
            name: name.to_string(),
            zone: admission.zone.to_string(),
            role: admission.role.to_string(),
            state: state.to_string(),
            voter,
            incarnation: seen.map_or(0, |n| n.incarnation),
            rtt_ms: seen.and_then(|n| n.rtt_us).map(|us| f64::from(us) / 1000.0),
            enforced_revision: if me { Some(self.packets.revision_in_force()) } else { enforced },
            admission: admission_word(admission.state).to_owned(),
            heard_ms_ago: if me {
                Some(0)
            } else {
                seen.and_then(|n| n.heard_ms).map(|at| now.saturating_sub(at))
            },
            quarantined: seen.is_some_and(|n| n.quarantined),
            endpoints: seen.map_or(0, |n| n.endpoints.len()),
            addresses: seen
                .map(|n| n.addresses.iter().map(ToString::to_string).collect())
                .unwrap_or_default(),
            api: seen.map(|n| n.api.iter().map(ToString::to_string).collect()).unwrap_or_default(),
            cpu_percent: seen.and_then(|n| n.load).map(|l| l.cpu_percent),
            // Not part of the view: nothing is decided by it.
            software: (*name == self.identity.node).then(|| env!("CARGO_PKG_VERSION").to_owned()),
        }
    }
}

const fn admission_word(state: AdmissionState) -> &'static str {
    match state {
        AdmissionState::Active => "active",
        AdmissionState::Draining => "draining",
        AdmissionState::Revoked => "revoked",
    }
}
