//! Rollouts as part of the policy: begun by an apply, moved on by commands.

use std::collections::BTreeSet;

use super::{PolicyState, apply::Done};
use crate::{
    Revision, UnixMs,
    command::{Change, ChangeAction, Refusal},
    id::{ContractRef, Name, ServiceRef},
    object::{ContractSpec, Kind, Object, ObjectKey, RoleBinding, Spec},
    rollout::{self, Rollout, Stage, Step},
};

impl PolicyState {
    /// Begins, changes and ends rollouts as these changes of objects, already made, ask for.
    pub(super) fn roll_out(&mut self, changes: &[Change]) {
        // Contracts come before who plays their roles: that is the order of kinds.
        for change in changes {
            let Some(key) = &change.key else { continue };
            match key.kind {
                Kind::Contract => self.roll_out_contract(key, change),
                Kind::Service | Kind::External => self.roll_out_bindings(key, change),
                Kind::Zone | Kind::Link | Kind::Domain | Kind::Template | Kind::Guardrail => {}
            }
        }
    }

    fn roll_out_contract(&mut self, key: &ObjectKey, change: &Change) {
        let Some(name) = named(key) else { return };
        let known = self.rollouts.remove(&name);
        let Some(after) = contract_of(change.after.as_ref()).filter(|spec| spec.rollout.is_some()) else {
            return;
        };
        // What was not in force everywhere yet is no ground to stand on.
        let (before, added) = match known {
            Some(known) => (known.before, known.added),
            None => (contract_of(change.before.as_ref()).cloned(), BTreeSet::new()),
        };
        let allows_more = before.as_ref().is_none_or(|before| rollout::narrow(before, after) != *after);
        if allows_more || !added.is_empty() {
            self.begin(&name, before, added);
        }
    }

    fn roll_out_bindings(&mut self, key: &ObjectKey, change: &Change) {
        let Some(service) = named(key) else { return };
        let before: BTreeSet<&RoleBinding> = bindings_of(change.before.as_ref()).iter().collect();
        for binding in bindings_of(change.after.as_ref()).iter().filter(|binding| !before.contains(binding)) {
            let Some(contract) = self.contract(&binding.contract).filter(|spec| spec.rollout.is_some())
            else {
                continue;
            };
            let present = contract.clone();
            let known = self.rollouts.remove(&binding.contract);
            let (before, mut added) = known.map_or((Some(present), BTreeSet::new()), |k| (k.before, k.added));
            added.insert((binding.role.clone(), service.clone()));
            self.begin(&binding.contract, before, added);
        }
    }

    fn begin(
        &mut self,
        contract: &ContractRef,
        before: Option<ContractSpec>,
        added: BTreeSet<(Name, ServiceRef)>,
    ) {
        let revision = self.revision.saturating_add(1);
        // Without any node there is nothing to be careful with.
        let Some((canary, zone)) = rollout::canary(self, contract, revision) else { return };
        let (since_ms, stage) = (self.clock_ms, Stage::Canary);
        let rollout = Rollout { revision, since_ms, stage, canary, zone, before, added };
        self.rollouts.insert(contract.clone(), rollout);
    }

    /// Moves a rollout on, if it still is in the stage that began at `since_ms` with `revision`.
    pub(super) fn step_rollout(
        &mut self,
        contract: &ContractRef,
        (revision, since_ms): (Revision, UnixMs),
        step: &Step,
        now_ms: UnixMs,
    ) -> Result<Done, Refusal> {
        let same = |rollout: &&mut Rollout| (rollout.revision, rollout.since_ms) == (revision, since_ms);
        let Some(rollout) = self.rollouts.get_mut(contract).filter(same) else {
            return Err(Refusal::NotFound(format!(
                "contract {contract} is in no such stage of a rollout any more"
            )));
        };
        let (next, summary) = match (&rollout.stage, step) {
            (Stage::Halted(_), _) => {
                return Err(Refusal::Lifecycle(format!("the rollout of contract {contract} was stopped")));
            }
            (_, Step::Halt(why)) => {
                let why = super::history::cut(why, crate::command::Limits::MESSAGE_BYTES);
                (Some(Stage::Halted(why.clone())), format!("rollout stopped: {why}"))
            }
            (Stage::Canary, Step::Advance) => {
                (Some(Stage::Zone), format!("rollout goes on to zone {}", rollout.zone))
            }
            (Stage::Zone, Step::Advance) => (None, "rollout done: in force everywhere".to_owned()),
        };
        match next {
            // A later stage never has the time of an earlier one.
            Some(stage) => {
                (rollout.stage, rollout.since_ms) = (stage, now_ms.max(since_ms.saturating_add(1)))
            }
            None => _ = self.rollouts.remove(contract),
        }
        Ok(Done::one(ChangeAction::Updated, format!("Rollout of Contract {contract}"), summary))
    }
}

fn named(key: &ObjectKey) -> Option<ContractRef> {
    Some(ContractRef::new(Name::new(&key.name).ok()?, key.domain.clone()?))
}

fn contract_of(object: Option<&Object>) -> Option<&ContractSpec> {
    match &object?.spec {
        Spec::Contract(spec) => Some(spec),
        _ => None,
    }
}

fn bindings_of(object: Option<&Object>) -> &[RoleBinding] {
    object.map_or(&[], |object| crate::compile::graph::bindings(&object.spec))
}
