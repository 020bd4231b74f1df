//! What a node does with a policy that it cannot carry out whole.
//!
//! One object that is valid and makes planning panic, or tables larger than the kernel takes, must not keep
//! the rest from being planned, nor keep in force what the same policy withdraws. So the newest permissions
//! are left out, those since the last policy that worked and then ever more of them, until the rest can be
//! planned: [`PolicyState::held_back`]. What is left out is denied and named.

use std::{
    any::Any,
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use selvedge_fabric::{Revision, UnixMs, object::ObjectKey, plan::Alarm, policy::PolicyState};

/// How long what was held back stays so before the whole policy is tried again, milliseconds. Before that
/// only with a new revision.
const RETRY_MS: u64 = 60_000;
/// Objects named in one alarm; the rest are counted.
const MAX_NAMES: usize = 8;

/// A policy less what could not be carried out.
#[derive(Debug, Clone)]
pub(super) struct Held {
    /// What is left.
    pub(super) policy: Arc<PolicyState>,
    /// What is left out.
    objects: Vec<ObjectKey>,
    why: String,
    until_ms: UnixMs,
}

impl Held {
    pub(super) fn new(
        policy: &PolicyState,
        suspects: &BTreeSet<ObjectKey>,
        why: &str,
        now_ms: UnixMs,
    ) -> Self {
        let (rest, objects) = policy.held_back(suspects);
        let until_ms = now_ms.saturating_add(RETRY_MS);
        Self { policy: Arc::new(rest), objects, why: why.to_owned(), until_ms }
    }

    /// Whether it still is what to do about this policy.
    pub(super) fn holds(&self, policy: &PolicyState, now_ms: UnixMs) -> bool {
        (self.policy.revision, self.policy.clock_ms) == (policy.revision, policy.clock_ms)
            && now_ms < self.until_ms
    }

    /// What people should know.
    pub(super) fn alarm(&self) -> Alarm {
        let named: Vec<_> = self.objects.iter().take(MAX_NAMES).map(ToString::to_string).collect();
        let more = match self.objects.len().saturating_sub(MAX_NAMES) {
            0 => String::new(),
            n => format!(" and {n} more"),
        };
        let message = format!(
            "this node cannot carry out revision {} whole: {}. Left out, and so denied here: {}{more}; what the \
             revision withdraws is withdrawn. Correct or delete these objects, or roll back",
            self.policy.revision,
            self.why,
            named.join(", "),
        );
        Alarm { code: "held-back", message }
    }
}

/// What people should know when it was the facts.
pub(super) fn facts_alarm(why: &str) -> Alarm {
    let message = format!("this node plans by facts of before, because by the newest ones {why}; report it");
    Alarm { code: "facts-held-back", message }
}

/// The objects that are left out, in the order in which to try: those set since the policy that worked last,
/// then ever more of the newest, and at last all.
pub(super) fn suspects<'a>(
    policy: &'a PolicyState,
    worked: Option<&'a PolicyState>,
) -> impl Iterator<Item = BTreeSet<ObjectKey>> + 'a {
    let newest = worked.filter(|worked| worked.revision < policy.revision);
    let newest = newest.map(|worked| policy.set_after(worked));
    newest.into_iter().chain(steps(policy.revision).map(|since| policy.set_since(since)))
}

fn steps(newest: Revision) -> impl Iterator<Item = Revision> {
    (0..u64::BITS).map_while(move |n| newest.checked_sub(1 << n)).chain([0])
}

/// Does something that may panic.
///
/// # Errors
/// What the panic said.
pub(super) fn guarded<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| said(&*panic))
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("planning panicked: {}", text.unwrap_or("it said nothing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_left_out_first() {
        assert_eq!(steps(20).collect::<Vec<_>>(), [19, 18, 16, 12, 4, 0]);
        assert_eq!(steps(1).collect::<Vec<_>>(), [0, 0]);
        assert_eq!(steps(0).collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn what_a_panic_said_is_told() {
        assert_eq!(guarded(|| 7), Ok(7));
        let why = guarded(|| panic!("at {}", 3)).expect_err("it panics");
        assert_eq!(why, "planning panicked: at 3");
    }
}
