//! Generated histories: those of a true store are accepted, disturbed ones judged as every order tried.

use proptest::prelude::*;
use selvedge_history::{
    Action, Bounds, Operation, Outcome, Verdict, check,
    search::{Found, search},
    unknown::{settle, unsettled},
};

use crate::{
    brute,
    make::{Dice, operation},
};

/// What a store did that takes one operation after the other, at a moment within each.
pub(crate) fn true_history(seed: u64, count: u64, keys: u64, spread_us: u64) -> Vec<Operation> {
    let mut dice = Dice(seed);
    let mut plan: Vec<_> = (0..count)
        .map(|n| {
            let start = n * 20 + dice.below(spread_us);
            let moment = start + dice.below(spread_us);
            (moment, start, moment + dice.below(spread_us), n)
        })
        .collect();
    plan.sort_unstable();
    let mut store = Store { keys: vec![Vec::new(); usize::try_from(keys).unwrap()], revision: 0 };
    plan.into_iter().map(|(_, start, end, n)| store.one(&mut dice, start, end, n)).collect()
}

struct Store {
    keys: Vec<Vec<u32>>,
    revision: u64,
}

impl Store {
    fn one(&mut self, dice: &mut Dice, start: u64, end: u64, n: u64) -> Operation {
        let element = u32::try_from(n + 1).unwrap();
        let at = usize::try_from(dice.below(self.keys.len() as u64)).unwrap();
        let client = u32::try_from(n % 7).unwrap();
        // Sometimes others change what is not recorded.
        self.revision += u64::from(dice.below(5) == 0);
        let (action, outcome) = match dice.below(4) {
            0 => {
                let (elements, revision) = (self.keys[at].clone(), Some(self.revision));
                (Action::Read, Outcome::Value { elements, revision })
            }
            1 => (Action::Write(element), self.change(dice, at, vec![element])),
            2 => {
                let longer = [&self.keys[at][..], &[element]].concat();
                (Action::Append(element), self.change(dice, at, longer))
            }
            _ => {
                let base = self.revision.saturating_sub(dice.below(2));
                let action = Action::CompareAndSet { base, element };
                if base == self.revision {
                    (action, self.change(dice, at, vec![element]))
                } else {
                    (action, Outcome::Conflict { present: self.revision })
                }
            }
        };
        Operation { key: format!("k{at}"), ..operation(client, start, end, action, outcome) }
    }

    /// One in ten is not answered, and half of these do not come to pass.
    fn change(&mut self, dice: &mut Dice, at: usize, elements: Vec<u32>) -> Outcome {
        let silent = dice.below(10) == 0;
        if silent && dice.below(2) == 0 {
            return Outcome::Unknown;
        }
        self.revision += 1;
        self.keys[at] = elements;
        if silent { Outcome::Unknown } else { Outcome::Done { revision: self.revision } }
    }
}

/// Changes one thing that a client was told, or when.
fn disturb(history: &mut [Operation], dice: &mut Dice) {
    let at = usize::try_from(dice.below(history.len() as u64)).unwrap();
    let shift = dice.below(120);
    let operation = &mut history[at];
    match (dice.below(3), &mut operation.outcome) {
        (0, Outcome::Value { elements, .. }) => {
            elements.pop();
        }
        (0, Outcome::Done { revision } | Outcome::Conflict { present: revision }) => *revision += 1,
        (1, Outcome::Value { revision: Some(revision), .. } | Outcome::Done { revision }) => {
            *revision = revision.saturating_sub(1);
        }
        _ => {
            operation.start_us += shift;
            operation.end_us += shift;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_true_store_did_is_accepted(seed: u64, count in 0..200_u64, keys in 1..4_u64, spread in 1..120_u64) {
        let history = true_history(seed, count, keys, spread);
        let report = check(&history).unwrap();
        prop_assert_eq!(report.verdict, Verdict::Linearizable);
        prop_assert_eq!(report.checked as u64, count);
    }

    #[test]
    fn small_histories_are_judged_as_every_order_tried(seed: u64, count in 1..8_u64, faults in 0..4_u64) {
        let mut history = true_history(seed, count, 1, 80);
        let mut dice = Dice(!seed);
        (0..faults).for_each(|_| disturb(&mut history, &mut dice));
        let all: Vec<_> = history.iter().collect();
        let expected = brute::has_order(&history);
        for spans in [settle(&all), unsettled(&all)] {
            let found = search(&spans, Bounds::default());
            prop_assert_eq!(matches!(found, Found::Order), expected, "{:#?}", history);
            let gave_up = matches!(found, Found::GaveUp { .. });
            prop_assert!(!gave_up);
        }
    }

    #[test]
    fn what_is_shown_of_a_violation_is_one_by_itself(seed: u64, count in 1..60_u64) {
        let mut history = true_history(seed, count, 1, 60);
        let mut dice = Dice(!seed);
        (0..3).for_each(|_| disturb(&mut history, &mut dice));
        if let Verdict::Violated(violation) = check(&history).unwrap().verdict {
            let again = check(&violation.window).unwrap().verdict;
            prop_assert!(matches!(again, Verdict::Violated(_)), "{violation}");
            if violation.window.len() < 8 && matches!(violation.kind, selvedge_history::Kind::NoOrder { .. }) {
                prop_assert!(!brute::has_order(&violation.window), "{violation}");
            }
        }
    }
}

#[test]
fn disturbed_histories_are_of_both_kinds() {
    let mut counts = [0, 0];
    for seed in 0..500 {
        let mut history = true_history(seed, 6, 1, 80);
        disturb(&mut history, &mut Dice(!seed));
        counts[usize::from(brute::has_order(&history))] += 1;
    }
    assert!(counts.iter().all(|&n| n > 50), "{counts:?}");
}
