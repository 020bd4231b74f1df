//! What an apply or a rollback would change, worked out before anything is touched.

use std::collections::{BTreeMap, BTreeSet};

use super::{PolicyState, apply::Done, graph::Graph, validate};
use crate::{
    Revision, UnixMs,
    command::{Apply, Change, ChangeAction, Limits, Problem, Refusal},
    id::{Name, ServiceRef},
    object::{Kind, Object, ObjectKey, Spec},
};

/// What setting and deleting these objects would change, in order of their keys, without judging it:
/// for `selvedge diff`. Deleting what is not there changes nothing. A `ttl` counts from the time of the
/// newest command.
#[must_use]
pub fn diff(state: &PolicyState, set: &[Object], delete: &[ObjectKey]) -> Vec<Change> {
    let wanted = set.iter().map(|object| (object.key.clone(), stamped(&object.spec, state.clock_ms)));
    changes_between(state, &wanted.collect(), &delete.iter().cloned().collect())
}

impl PolicyState {
    /// What [`PolicyState::apply`] would answer to this apply at `now_ms`, without doing it.
    ///
    /// # Errors
    /// The refusal, with every problem.
    pub fn preview(&self, apply: &Apply, now_ms: UnixMs) -> Result<Vec<Change>, Refusal> {
        self.stage(apply, self.clock_ms.max(now_ms))
    }

    pub(super) fn apply_objects(&mut self, apply: &Apply, now_ms: UnixMs) -> Result<Done, Refusal> {
        let mut changes = self.stage(apply, now_ms)?;
        let summary = if apply.message.is_empty() { summarise(&changes) } else { apply.message.clone() };
        self.put(&mut changes);
        Ok(Done { changes, summary })
    }

    pub(super) fn roll_back(
        &mut self,
        to: Revision,
        base: Option<Revision>,
        now_ms: UnixMs,
    ) -> Result<Done, Refusal> {
        let then = self.objects_at(to)?;
        let delete = self.objects.keys().filter(|key| !then.contains_key(key)).cloned().collect();
        let set = then.into_iter().filter(|(key, spec)| self.objects.get(key) != Some(spec));
        let apply = Apply {
            base,
            set: set.map(|(key, spec)| Object { key, spec }).collect(),
            delete,
            message: format!("rollback to revision {to}"),
        };
        self.apply_objects(&apply, now_ms)
    }

    /// Checks an apply against the state and says what it changes.
    fn stage(&self, apply: &Apply, now_ms: UnixMs) -> Result<Vec<Change>, Refusal> {
        if let Some(base) = apply.base.filter(|base| *base != self.revision) {
            return Err(Refusal::Conflict { base, present: self.revision });
        }
        check_form(apply)?;
        let mut problems = self.check_keys(apply);
        let delete: BTreeSet<ObjectKey> = apply.delete.iter().cloned().collect();
        let mut set = BTreeMap::new();
        for object in &apply.set {
            problems.extend(validate::ttl(object));
            set.insert(object.key.clone(), stamped(&object.spec, now_ms));
        }
        let graph = Graph::new(&self.objects, &set, &delete);
        problems.extend(validate::graph(&graph, &delete));
        if graph.len() > Limits::OBJECTS {
            return Err(Refusal::Limit(format!(
                "the fabric would hold {} objects; the most is {}",
                graph.len(),
                Limits::OBJECTS
            )));
        }
        if problems.is_empty() { Ok(changes_between(self, &set, &delete)) } else { Err(invalid(problems)) }
    }

    /// What is wrong with the list of keys itself.
    fn check_keys(&self, apply: &Apply) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut seen = BTreeSet::new();
        for key in apply.set.iter().map(|object| &object.key) {
            if !seen.insert(key) {
                problems.push(Problem::of(key, "", "is set twice in one apply"));
            }
        }
        for key in &apply.delete {
            if !seen.insert(key) {
                problems.push(Problem::of(
                    key,
                    "",
                    "is deleted and also set, or deleted twice, in one apply",
                ));
            } else if !self.objects.contains_key(key) {
                let same_kind = self.objects.keys().filter(|known| known.kind == key.kind);
                let near = crate::suggest::closest(&key.to_string(), same_kind);
                problems.push(
                    Problem::of(key, "", "cannot be deleted: there is no such object")
                        .with_remedy(near.map(|near| format!("did you mean {near}?"))),
                );
            }
        }
        problems
    }

    /// Carries out staged changes of objects. A service that goes takes its tokens with it: a later
    /// service of the same name, perhaps somebody else's, must not be provable by old tokens.
    fn put(&mut self, changes: &mut Vec<Change>) {
        let mut revoked = Vec::new();
        for change in changes.iter() {
            let Some(key) = &change.key else { continue };
            match &change.after {
                Some(after) => {
                    self.objects.insert(key.clone(), after.spec.clone());
                }
                None => {
                    self.objects.remove(key);
                }
            }
            let Some(service) = member_ref(key) else { continue };
            if change.after.as_ref().is_some_and(|after| after.spec.plays_roles()) {
                self.identify(service);
            } else {
                self.identities.remove(&service);
                if key.kind == Kind::Service {
                    revoked.extend(self.revoke_tokens_of(&service));
                }
            }
        }
        self.roll_out(changes);
        changes.append(&mut revoked);
    }

    /// Gives a service its number, unless it has one. Numbers only grow, so a packet that was marked
    /// under an old one can never be taken for a new service.
    fn identify(&mut self, service: ServiceRef) {
        let next = self.last_identity.saturating_add(1);
        if let std::collections::btree_map::Entry::Vacant(entry) = self.identities.entry(service) {
            entry.insert(next);
            self.last_identity = next;
        }
    }
}

/// Bounds that hold whatever the objects say.
fn check_form(apply: &Apply) -> Result<(), Refusal> {
    let objects = apply.set.len() + apply.delete.len();
    if objects > Limits::OBJECTS_PER_APPLY {
        return Err(Refusal::Limit(format!(
            "{objects} objects in one apply; the most is {}: split it, referred-to objects first",
            Limits::OBJECTS_PER_APPLY
        )));
    }
    if apply.message.len() > Limits::MESSAGE_BYTES {
        return Err(Refusal::Limit(format!(
            "the message has {} bytes; the most is {}",
            apply.message.len(),
            Limits::MESSAGE_BYTES
        )));
    }
    // Shown in terminals, where an escape sequence would be obeyed.
    if apply.message.chars().any(|c| c.is_control() && c != '\n') {
        return Err(Refusal::Limit("the message may hold no control characters".to_owned()));
    }
    Ok(())
}

/// The refusal for a list of problems, in a stable order and without repetition.
fn invalid(mut problems: Vec<Problem>) -> Refusal {
    problems.sort();
    problems.dedup();
    let more = problems.len().saturating_sub(Limits::PROBLEMS);
    problems.truncate(Limits::PROBLEMS);
    if more > 0 {
        let message = format!("and {more} further problems");
        problems.push(Problem { place: None, object: None, field: None, message, remedy: None });
    }
    Refusal::Invalid(problems)
}

/// The service, or external that plays roles, that an object stands for in verdict tables.
fn member_ref(key: &ObjectKey) -> Option<ServiceRef> {
    matches!(key.kind, Kind::Service | Kind::External).then_some(())?;
    Some(ServiceRef::new(Name::new(&key.name).ok()?, key.domain.clone()?))
}

/// The spec as it is stored: a contract's `ttl` becomes the instant when it ends.
fn stamped(spec: &Spec, now_ms: UnixMs) -> Spec {
    let mut spec = spec.clone();
    if let Spec::Contract(contract) = &mut spec
        && let Some(ttl_ms) = contract.ttl.take()
    {
        contract.expires_at = Some(now_ms.saturating_add(ttl_ms));
    }
    spec
}

fn changes_between(
    state: &PolicyState,
    set: &BTreeMap<ObjectKey, Spec>,
    delete: &BTreeSet<ObjectKey>,
) -> Vec<Change> {
    let touched: BTreeSet<&ObjectKey> = set.keys().chain(delete).collect();
    let object = |key: &ObjectKey, spec: Option<&Spec>| {
        spec.map(|spec| Object { key: key.clone(), spec: spec.clone() })
    };
    let change = |key: &ObjectKey| {
        let (before, after) = (state.objects.get(key), set.get(key));
        let action = match (before, after) {
            (None, Some(_)) => ChangeAction::Created,
            (Some(before), Some(after)) if before != after => ChangeAction::Updated,
            (Some(_), None) => ChangeAction::Deleted,
            (Some(_), Some(_)) | (None, None) => return None,
        };
        let (before, after) = (object(key, before), object(key, after));
        Some(Change { action, what: key.to_string(), key: Some(key.clone()), before, after })
    };
    touched.into_iter().filter_map(change).collect()
}

/// `3 created, 1 deleted`.
fn summarise(changes: &[Change]) -> String {
    let count = |action, word: &str| {
        let n = changes.iter().filter(|change| change.action == action).count();
        (n > 0).then(|| format!("{n} {word}"))
    };
    let parts = [
        count(ChangeAction::Created, "created"),
        count(ChangeAction::Updated, "updated"),
        count(ChangeAction::Deleted, "deleted"),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
