//! The policy less what a node cannot carry out.

use std::collections::BTreeSet;

use super::PolicyState;
use crate::{
    Revision,
    id::Name,
    object::{Kind, ObjectKey, Spec},
};

impl PolicyState {
    /// The objects that were set after a revision; all of them, where the history does not reach back to it. A
    /// node without a replica has no history.
    #[must_use]
    pub fn set_since(&self, since: Revision) -> BTreeSet<ObjectKey> {
        let reaches_back =
            self.history.front().is_some_and(|oldest| oldest.revision <= since.saturating_add(1));
        if !reaches_back && since < self.revision {
            return self.objects.keys().cloned().collect();
        }
        let later = self.history.iter().filter(|entry| entry.revision > since);
        later.flat_map(|entry| entry.changes.iter().filter_map(|change| change.key.clone())).collect()
    }

    /// The objects that are not as they were in an earlier policy.
    #[must_use]
    pub fn set_after(&self, before: &Self) -> BTreeSet<ObjectKey> {
        let set = self.objects.iter().filter(|(key, spec)| before.objects.get(*key) != Some(*spec));
        set.map(|(key, _)| key.clone()).collect()
    }

    /// This policy less the permissions of these objects, and what was left out. What the policy withdraws is
    /// withdrawn, and guardrails hold: whatever the rest allows, the whole policy allows too.
    ///
    /// Left out are contracts, contracts whose template is among the objects, services, and the roles of
    /// externals (not their addresses: a smaller network may be what keeps them from a larger one's permissions).
    #[must_use]
    pub fn held_back(&self, objects: &BTreeSet<ObjectKey>) -> (Self, Vec<ObjectKey>) {
        let templates: BTreeSet<&str> =
            objects.iter().filter(|key| key.kind == Kind::Template).map(|key| key.name.as_str()).collect();
        let by_template = |template: &Name| templates.contains(template.as_str());
        let mut held = self.clone();
        let mut left_out = Vec::new();
        held.objects.retain(|key, spec| {
            let suspect = objects.contains(key);
            let (keep, left) = match spec {
                Spec::Contract(contract) => {
                    let suspect = suspect || by_template(&contract.template);
                    (!suspect, suspect)
                }
                Spec::Service(_) => (!suspect, suspect),
                Spec::External(external) if suspect && !external.roles.is_empty() => {
                    external.roles.clear();
                    (true, true)
                }
                Spec::External(_)
                | Spec::Zone(_)
                | Spec::Link(_)
                | Spec::Domain(_)
                | Spec::Template(_)
                | Spec::Guardrail(_) => (true, false),
            };
            if left {
                left_out.push(key.clone());
            }
            keep
        });
        (held, left_out)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;
    use selvedge_abi::Class;

    use super::*;
    use crate::{
        command::{Change, ChangeAction},
        compile::compile,
        object::{Action, Mode},
        policy::HistoryEntry,
        testing::*,
    };

    /// The voting application and one more contract of a template of its own, all of revision 1, and a
    /// guardrail.
    fn policy() -> PolicyState {
        let mut policy = voting_app()
            .contract_in(Mode::Learn, "spy@voting-app", "peer", &[("peer", &["any"])])
            .service("eye@voting-app", &["peer:spy"])
            .guardrail("no-80", Action::Deny, "getaway-svc@getaway-app", "*", &["tcp/80"]);
        policy.revision = 1;
        policy.history = VecDeque::from([HistoryEntry {
            revision: 1,
            at_ms: NOW_MS,
            actor: String::new(),
            summary: String::new(),
            changes: Vec::new(),
        }]);
        policy
    }

    /// The same after revisions that set these objects, one each.
    fn touched(mut policy: PolicyState, objects: &[usize]) -> PolicyState {
        let keys: Vec<ObjectKey> = policy.objects.keys().cloned().collect();
        for object in objects {
            let key = keys[object % keys.len()].clone();
            policy.revision += 1;
            let change = Change {
                action: ChangeAction::Updated,
                what: key.to_string(),
                key: Some(key),
                before: None,
                after: None,
            };
            let (revision, changes) = (policy.revision, vec![change]);
            policy.history.push_back(HistoryEntry { revision, changes, ..policy.history[0].clone() });
        }
        policy
    }

    /// Every port at which somebody may open flows to somebody.
    fn allowed(policy: &PolicyState) -> BTreeSet<(u32, u32, u8, u16)> {
        let tables = compile(policy, NOW_MS);
        let ids: Vec<_> = tables.services().map(|(_, id)| id).collect();
        let mut allowed = BTreeSet::new();
        for (from, to) in ids.iter().flat_map(|from| ids.iter().map(move |to| (*from, *to))) {
            for (number, class) in (0..).zip(Class::ALL) {
                for range in tables.effective(from, to, class).iter().filter(|range| range.verdict().allow) {
                    let ports = [0, 22, 80, 5432, 6379].into_iter();
                    let ports = ports.filter(|port| (range.low..=range.high).contains(port));
                    allowed.extend(ports.map(|port| (from.0, to.0, number, port)));
                }
            }
        }
        allowed
    }

    proptest! {
        #[test]
        fn what_is_left_allows_nothing_that_the_whole_does_not(
            objects in prop::collection::vec(any::<usize>(), 0..8),
            since in 0u64..10,
        ) {
            let whole = touched(policy(), &objects);
            let (rest, left_out) = whole.held_back(&whole.set_since(since));
            prop_assert!(allowed(&rest).is_subset(&allowed(&whole)));
            prop_assert_eq!(rest.revision, whole.revision);
            if since >= whole.revision {
                prop_assert_eq!((&rest, left_out.len()), (&whole, 0));
            }
            for key in &left_out {
                let later = whole.history.iter().filter(|entry| entry.revision > since);
                let set = later.flat_map(|entry| &entry.changes).any(|change| change.key.as_ref() == Some(key));
                prop_assert!(set || since == 0, "{key} was not touched");
            }
            let guardrails = |policy: &PolicyState| {
                policy.objects.keys().filter(|key| key.kind == Kind::Guardrail).count()
            };
            prop_assert_eq!(guardrails(&rest), guardrails(&whole));
        }
    }

    #[test]
    fn one_contract_is_left_out_alone() {
        let whole = policy();
        let position = whole.objects.keys().position(|key| key.name == "voting-worker").expect("a contract");
        let whole = touched(whole, &[position]);
        let (rest, left_out) = whole.held_back(&whole.set_since(1));
        assert_eq!(
            left_out.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["Contract voting-worker@voting-app"]
        );
        let gone: Vec<_> = allowed(&whole).difference(&allowed(&rest)).map(|(.., port)| *port).collect();
        assert_eq!(gone, [6379]);
    }

    #[test]
    fn without_a_history_everything_is_left_out() {
        let mut whole = policy();
        whole.history.clear();
        let (rest, left_out) = whole.held_back(&whole.set_since(0));
        assert!(allowed(&rest).is_empty() && !left_out.is_empty());
        // But what is known to have worked is kept.
        let before = whole.clone();
        let whole = whole.contract("new@voting-app", "client-server", &[("server", &["tcp/1"])]);
        let (rest, left_out) = whole.held_back(&whole.set_after(&before));
        assert_eq!((allowed(&rest), left_out.len()), (allowed(&before), 1));
    }
}
