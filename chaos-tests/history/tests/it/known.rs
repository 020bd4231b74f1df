//! Histories whose judgement people can see at once.

use selvedge_history::{
    Action::{Append, CompareAndSet, Read, Write},
    Bounds, Kind, Malformed, Operation, Outcome, Verdict, check, check_within,
};

use crate::make::{done, operation, read, unknown};

fn verdict(history: &[Operation]) -> Verdict {
    check(history).unwrap().verdict
}

#[track_caller]
fn good(history: &[Operation]) {
    let verdict = verdict(history);
    assert_eq!(verdict, Verdict::Linearizable, "{verdict:#?}");
}

/// The violation, as people see it.
#[track_caller]
fn bad(history: &[Operation]) -> String {
    match verdict(history) {
        Verdict::Violated(violation) => violation.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn nothing_happened() {
    good(&[]);
}

#[test]
fn one_after_the_other() {
    good(&[done(1, 0, 10, Write(1), 5), read(2, 20, 30, &[1], 5), done(1, 40, 50, Append(2), 6)]);
    good(&[read(1, 0, 10, &[], 4), done(1, 20, 30, Append(1), 5), read(1, 40, 50, &[1], 9)]);
}

#[test]
fn what_overlaps_may_have_either_order() {
    let write = done(1, 0, 100, Write(1), 5);
    good(&[write.clone(), read(2, 10, 20, &[], 4), read(2, 30, 40, &[1], 5)]);
    good(&[write, read(2, 10, 20, &[1], 5), read(2, 30, 40, &[1], 5)]);
}

#[test]
fn a_value_once_seen_does_not_go_away() {
    let told = bad(&[
        done(1, 0, 100, Write(1), 5),
        read(2, 10, 20, &[1], 5),
        operation(2, 30, 40, Read, Outcome::Value { elements: vec![], revision: None }),
    ]);
    assert!(told.contains("read → [] ◄"), "{told}");
}

#[test]
fn a_stale_read_is_shown_with_what_it_contradicts() {
    let mut history: Vec<_> = (1..=40)
        .map(|n| done(1, u64::from(n) * 100, u64::from(n) * 100 + 50, Write(n), u64::from(n)))
        .collect();
    history.push(read(3, 4_100, 4_120, &[38], 38));
    history.extend((1..20).map(|n| read(2, 5_000 + n * 10, 5_005 + n * 10, &[40], 40)));
    let Verdict::Violated(violation) = verdict(&history) else { panic!("not flagged") };
    // The write that was read, one that overwrote it, and the read.
    assert_eq!(violation.window.len(), 3, "{violation}");
    assert_eq!(violation.window[violation.culprit].client, 3, "{violation}");
    let told = violation.to_string();
    assert!(told.contains("write 38 → r38") && told.contains("read → [38] at r38 ◄"), "{told}");
    assert!(told.contains("[40], at r40 or later") || told.contains("[39], at r39 or later"), "{told}");
}

#[test]
fn an_acknowledged_write_must_not_be_lost() {
    bad(&[done(1, 0, 10, Write(1), 5), done(1, 20, 30, Write(2), 6), read(2, 40, 50, &[1], 7)]);
    bad(&[done(1, 0, 10, Append(1), 5), done(2, 20, 30, Append(2), 6), read(3, 40, 50, &[2], 6)]);
    bad(&[done(1, 0, 10, Append(1), 5), done(2, 20, 30, Append(2), 6), read(3, 40, 50, &[2, 1], 6)]);
}

#[test]
fn what_nobody_wrote_must_not_be_seen() {
    bad(&[read(1, 0, 10, &[7], 3)]);
    // From the future.
    bad(&[read(1, 0, 10, &[7], 3), done(2, 20, 30, Write(7), 3)]);
}

#[test]
fn a_refused_write_that_is_seen_breaks_a_promise() {
    let refused = operation(1, 0, 10, Write(1), Outcome::Refused);
    good(&[refused.clone(), operation(2, 20, 30, Read, Outcome::Value { elements: vec![], revision: None })]);
    let told = bad(&[refused, read(2, 20, 30, &[1], 5)]);
    assert!(told.contains("promise") && told.contains("write 1 → refused"), "{told}");
}

#[test]
fn an_unknown_outcome_may_come_to_pass_late_or_never() {
    let maybe = unknown(1, 0, Write(1));
    let before = done(2, 10, 20, Write(2), 5);
    good(&[maybe.clone(), before.clone(), read(2, 30, 40, &[2], 5), read(2, 50, 60, &[1], 6)]);
    good(&[maybe.clone(), before.clone(), read(2, 30, 40, &[2], 5)]);
    // But not twice.
    bad(&[
        maybe.clone(),
        before.clone(),
        read(2, 30, 40, &[1], 6),
        done(2, 50, 60, Write(3), 7),
        read(2, 70, 80, &[1], 8),
    ]);
    // And not before it was asked for.
    bad(&[unknown(1, 100, Write(1)), read(2, 10, 20, &[1], 6)]);
}

#[test]
fn compare_and_set_needs_its_base() {
    let first = done(1, 0, 10, Write(1), 5);
    let set = |revision| done(2, 20, 30, CompareAndSet { base: 5, element: 2 }, revision);
    good(&[first.clone(), set(6), read(1, 40, 50, &[2], 6)]);
    bad(&[first.clone(), done(1, 12, 15, Write(9), 6), set(7)]);
    let told = bad(&[first.clone(), set(8)]);
    assert!(told.contains("no order"), "{told}");
    let no =
        |present| operation(2, 20, 30, CompareAndSet { base: 5, element: 2 }, Outcome::Conflict { present });
    good(&[first.clone(), no(6)]);
    bad(&[first.clone(), no(5)]);
    bad(&[first, no(4)]);
}

#[test]
fn two_compare_and_sets_of_one_base_do_not_both_succeed() {
    bad(&[
        done(1, 0, 100, CompareAndSet { base: 5, element: 1 }, 6),
        done(2, 0, 100, CompareAndSet { base: 5, element: 2 }, 6),
    ]);
}

#[test]
fn keys_are_judged_apart_and_revisions_together() {
    let on = |key: &str, operation: Operation| Operation { key: key.to_owned(), ..operation };
    good(&[
        on("a", done(1, 0, 10, Write(1), 5)),
        on("b", done(2, 0, 10, Write(1), 6)),
        on("a", read(1, 20, 30, &[1], 6)),
    ]);
    // Each key is in order, but the second was at a time before the first.
    let told = bad(&[on("a", done(1, 0, 10, Write(1), 5)), on("b", read(2, 20, 30, &[], 4))]);
    assert!(told.contains("revisions contradict time: the later is at a lower revision"), "{told}");
    let twice = [on("a", done(1, 0, 10, Write(1), 5)), on("b", done(2, 0, 10, Write(1), 5))];
    let Verdict::Violated(violation) = verdict(&twice) else { panic!("not flagged") };
    assert_eq!(violation.kind, Kind::Revisions("both made this revision"));
}

#[test]
fn a_history_that_makes_no_sense_is_not_judged() {
    let twice = [done(1, 0, 10, Write(1), 5), done(1, 20, 30, Write(1), 6)];
    assert_eq!(check(&twice), Err(Malformed::Repeated("k".to_owned(), 1)));
    assert!(matches!(check(&[done(1, 10, 0, Write(1), 5)]), Err(Malformed::Backwards(_))));
    assert!(matches!(check(&[done(1, 0, 10, Read, 5)]), Err(Malformed::Outlandish(_))));
}

#[test]
fn what_is_too_much_is_undecided_and_not_violated() {
    let crowd: Vec<_> = (1..=12).map(|n| done(n, 0, 100, Append(n), u64::from(n))).collect();
    let few = Bounds { configurations: 4, ..Bounds::default() };
    assert!(matches!(check_within(&crowd, few).unwrap().verdict, Verdict::Undecided { .. }));
    let short = Bounds { steps: 10, ..Bounds::default() };
    let report = check_within(&crowd, short).unwrap();
    assert_eq!(
        report.verdict,
        Verdict::Undecided { key: "k".to_owned(), why: "the search took too many steps" }
    );
    good(&crowd);
}

#[test]
fn more_than_fits_under_way_is_undecided() {
    let crowd: Vec<_> = (1..=70).map(|n| done(n, 0, 100, Write(n), u64::from(n))).collect();
    assert!(matches!(check(&crowd).unwrap().verdict, Verdict::Undecided { .. }));
}
