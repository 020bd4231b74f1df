//! Stores that are broken on purpose, each in one way: each must be caught.

use selvedge_history::{Action, Operation, Outcome, Verdict, check};

use crate::make::{Dice, operation};

/// What is wrong with a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Nothing,
    /// Reads come from a replica that is behind.
    StaleRead,
    /// A change is acknowledged, and lost with the leader.
    LostWrite,
    /// A change is refused, and done all the same.
    LateWrite,
    /// A compare-and-set looks at a base that is behind.
    StaleCompare,
    /// A change is done twice, the second time much later.
    DoneTwice,
}

/// A store with one replica that is behind, and clients whose operations overlap a little.
fn play(fault: Fault, seed: u64) -> Vec<Operation> {
    let mut dice = Dice(seed);
    let (mut now, mut behind): (Vec<u32>, Vec<u32>) = (Vec::new(), Vec::new());
    let (mut revision, mut revision_behind, mut again) = (0, 0, None);
    let mut history = Vec::new();
    for n in 1..400_u32 {
        let start = u64::from(n) * 100 + dice.below(60);
        let end = start + dice.below(120);
        let wrong = dice.below(40) == 0;
        let action = match dice.below(3) {
            0 => Action::Read,
            1 => Action::Write(n),
            _ => Action::CompareAndSet { base: if wrong { revision_behind } else { revision }, element: n },
        };
        let matches = match action {
            Action::CompareAndSet { base, .. } => {
                base == revision || (wrong && fault == Fault::StaleCompare && base == revision_behind)
            }
            _ => true,
        };
        let outcome = if action == Action::Read {
            let stale = wrong && fault == Fault::StaleRead;
            let (seen, at) = if stale { (&behind, revision_behind) } else { (&now, revision) };
            Outcome::Value { elements: seen.clone(), revision: Some(at) }
        } else if !matches {
            Outcome::Conflict { present: revision }
        } else if wrong && fault == Fault::LateWrite {
            (now, revision) = (vec![n], revision + 1);
            Outcome::Refused
        } else if wrong && fault == Fault::LostWrite {
            Outcome::Done { revision: revision + 1 }
        } else {
            (now, revision) = (vec![n], revision + 1);
            again = again.or((wrong && fault == Fault::DoneTwice).then_some((n + 10, n)));
            Outcome::Done { revision }
        };
        history.push(operation(n % 3, start, end.max(start), action, outcome));
        if let Some((_, element)) = again.take_if(|(at, _)| *at <= n) {
            (now, revision) = (vec![element], revision + 1);
        }
        if dice.below(6) == 0 {
            (behind, revision_behind) = (now.clone(), revision);
        }
    }
    history
}

fn caught(fault: Fault) -> usize {
    let violated = |seed: &u64| matches!(check(&play(fault, *seed)).unwrap().verdict, Verdict::Violated(_));
    (0..40).filter(violated).count()
}

#[test]
fn a_sound_store_passes() {
    assert_eq!(caught(Fault::Nothing), 0);
}

#[test]
fn every_broken_store_is_caught() {
    for fault in [Fault::StaleRead, Fault::LostWrite, Fault::LateWrite, Fault::StaleCompare, Fault::DoneTwice]
    {
        let caught = caught(fault);
        println!("{fault:?}: {caught} of 40");
        assert!(caught >= 20, "{fault:?} was caught in {caught} of 40 histories");
    }
}
