//! Objects: apply, preview, list, describe, history.

use std::time::Duration;

use selvedge_fabric::{
    Revision,
    command::{AdmissionState, Apply, Command},
    id::{Name, NodeName},
    manifest,
    object::{Kind, Object, ObjectKey},
    policy::PolicyState,
    view::Liveness,
};
use tokio::time::Instant;

use super::{Node, Result, references, refusal_error};
use crate::{
    api::{ApiError, Caller, Code, rights, types},
    clock,
};

/// Most history entries in one answer.
const MAX_HISTORY: usize = 1_024;

impl Node {
    pub(super) async fn apply_objects(&self, caller: &Caller, apply: Apply) -> Result<types::ApplyReply> {
        rights::require_apply(caller, &self.policy(), &apply)?;
        let applied = self.propose(caller, Command::Apply(apply)).await?;
        Ok((&applied).into())
    }

    pub(super) fn preview_objects(&self, caller: &Caller, apply: &Apply) -> Result<types::ApplyReply> {
        let policy = self.policy();
        rights::require_apply(caller, &policy, apply)?;
        let changes = policy.preview(apply, clock::unix_ms()).map_err(|e| refusal_error(&e))?;
        let changes = changes.iter().map(types::Change::from).collect();
        Ok(types::ApplyReply { revision: policy.revision, changes, dry_run: true })
    }

    /// Waits until every admitted node says that it enforces `revision`.
    pub(super) async fn wait_until_enforced(
        &self,
        revision: Revision,
        live_only: bool,
        timeout: Duration,
    ) -> types::WaitReply {
        let deadline = Instant::now() + timeout;
        let (mut view, mut own) = (self.membership.view(), self.packets.in_force());
        loop {
            view.mark_unchanged();
            own.mark_unchanged();
            let stragglers = self.stragglers(revision, live_only);
            let enforced = stragglers.is_empty();
            let changed = async {
                tokio::select! {
                    changed = view.changed() => changed,
                    changed = own.changed() => changed,
                }
            };
            if enforced || !matches!(tokio::time::timeout_at(deadline, changed).await, Ok(Ok(()))) {
                return types::WaitReply { enforced, revision, stragglers };
            }
        }
    }

    fn stragglers(&self, revision: Revision, live_only: bool) -> Vec<types::Straggler> {
        let (policy, view) = (self.enforced_policy(), self.view());
        let (mine, epoch) = (self.packets.revision_in_force(), self.quorum().fence_epoch);
        let admitted = policy.nodes.iter().filter(|(_, a)| a.state != AdmissionState::Revoked);
        admitted
            .filter_map(|(name, _)| {
                let seen = view.nodes.get(name);
                let state = seen.map_or(Liveness::Unknown, |n| n.state);
                let enforced = if *name == self.identity.node {
                    Some(mine)
                } else {
                    seen.and_then(|n| n.enforced).filter(|e| e.epoch == epoch).map(|e| e.revision)
                };
                let gone = matches!(state, Liveness::Down | Liveness::Left);
                let waits = enforced.is_none_or(|r| r < revision) && !(live_only && gone);
                waits.then(|| types::Straggler {
                    name: name.to_string(),
                    state: state.to_string(),
                    enforced_revision: enforced,
                })
            })
            .collect()
    }

    pub(super) fn list_objects(&self, kind: Option<Kind>, domain: Option<&Name>) -> Vec<types::Manifest> {
        let policy = self.policy();
        let wanted = |o: &Object| {
            kind.is_none_or(|k| o.key.kind == k) && domain.is_none_or(|d| o.key.domain.as_ref() == Some(d))
        };
        policy.objects().filter(wanted).map(|o| (&o).into()).collect()
    }

    pub(super) fn get_object(&self, key: &ObjectKey) -> Result<types::Manifest> {
        Ok((&find(&self.policy(), key)?).into())
    }

    pub(super) fn describe_object(&self, key: &ObjectKey) -> Result<types::Description> {
        let policy = self.policy();
        let object = find(&policy, key)?;
        let changed = |e: &&selvedge_fabric::policy::HistoryEntry| {
            e.changes.iter().any(|c| c.key.as_ref() == Some(key))
        };
        let refers_to = references::named_by(&object, &policy).iter().map(ToString::to_string).collect();
        let referred_by = references::naming(key, &policy).iter().map(ToString::to_string).collect();
        let service = object.key.domain.as_ref().map(|d| format!("{}@{d}", object.key.name));
        let is_service = object.key.kind == Kind::Service;
        let endpoints = self.list_endpoints();
        let endpoints = endpoints.into_iter().filter(|e| is_service && service.as_ref() == Some(&e.service));
        Ok(types::Description {
            last_change: policy.history.iter().rev().find(changed).map(Into::into),
            object: (&object).into(),
            refers_to,
            referred_by,
            endpoints: endpoints.collect(),
            revision: policy.revision,
        })
    }

    pub(super) fn export_objects(&self) -> String {
        let objects: Vec<_> = self.policy().objects().collect();
        manifest::to_yaml(&objects)
    }

    pub(super) fn history_since(&self, since: Revision, limit: usize) -> Vec<types::HistoryItem> {
        let policy = self.policy();
        let newer = policy.history.iter().rev().take_while(|e| e.revision > since);
        newer.take(limit.min(MAX_HISTORY)).map(Into::into).collect()
    }

    pub(super) async fn change_node_state(
        &self,
        caller: &Caller,
        node: &NodeName,
        state: types::NodeState,
    ) -> Result<types::ApplyReply> {
        caller.require_admin("change the state of nodes")?;
        let state = match state {
            types::NodeState::Active => AdmissionState::Active,
            types::NodeState::Draining => AdmissionState::Draining,
            types::NodeState::Revoked => AdmissionState::Revoked,
        };
        let applied = self.propose(caller, Command::SetNodeState { node: node.clone(), state }).await;
        let applied = applied.map_err(|error| match (state, error.code) {
            (AdmissionState::Revoked, Code::NoQuorum) => in_an_emergency(error, node),
            _ => error,
        })?;
        Ok((&applied).into())
    }
}

/// A node that is not to be trusted cannot wait for a quorum.
fn in_an_emergency(error: ApiError, node: &NodeName) -> ApiError {
    let before = error.remedy.clone().unwrap_or_default();
    error.remedy(format!(
        "{before}. To cut {node} off now, without a quorum: selvedge node revoke {node} --recovery-key FILE, \
         with the file that `fabric init` made"
    ))
}

fn find(policy: &PolicyState, key: &ObjectKey) -> Result<Object> {
    let spec = policy.objects.get(key).ok_or_else(|| ApiError::not_found(format!("there is no {key}")))?;
    Ok(Object { key: key.clone(), spec: spec.clone() })
}
