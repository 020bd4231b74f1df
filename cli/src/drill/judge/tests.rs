use selvedge_fabric::manifest::parse_drill;

use super::*;
use crate::drill::record::{End, Event, Place};

fn spec(bounds: &str) -> DrillSpec {
    let text = format!(
        "apiVersion: selvedge/v1
kind: Drill
metadata: {{name: t}}
spec:
  description: d
  probes:
    - {{name: dns, kind: dns, every: 100ms}}
    - {{name: write, kind: write, every: 100ms}}
  steps: [wait: 1s]
  bounds: [{bounds}]
"
    );
    parse_drill(&text, None).expect("a drill").spec
}

fn record(events: Vec<(u64, What)>, attempts: Vec<Attempt>) -> Record {
    let place = |name: &str| Place { name: name.into(), cloud: "aws".into(), role: "processor".into() };
    Record {
        nodes: vec![place("a"), place("b")],
        events: events.into_iter().map(|(at_ms, what)| Event { at_ms, what }).collect(),
        attempts,
        length_ms: 10_000,
        end: End::Completed,
    }
}

fn node(name: &str, condition: Condition) -> What {
    What::Node { name: name.into(), condition }
}

/// An attempt of the DNS probe that takes 10 ms.
fn asked(node: &str, from_ms: u64, ok: bool) -> Attempt {
    let outcome = if ok { Ok(()) } else { Err("no answer".to_owned()) };
    let (subject, node) = (node.to_owned(), node.to_owned());
    Attempt { probe: 0, subject, node, from_ms, to_ms: from_ms + 10, outcome, named: Vec::new() }
}

fn every(node: &str, step: usize) -> Vec<Attempt> {
    (0..10_000).step_by(step).map(|at| asked(node, at, true)).collect()
}

fn only(spec: &DrillSpec, record: &Record) -> Judged {
    Judge::new(spec, record).bounds().remove(0)
}

#[test]
fn a_gap_is_the_longest_time_between_successes_of_one_subject() {
    let spec = spec("{longestGap: {probe: dns, atMost: 1s}}");
    let mut attempts = every("a", 100);
    attempts.extend(every("b", 100).into_iter().filter(|a| !(3_000..5_000).contains(&a.from_ms)));
    let judged = only(&spec, &record(Vec::new(), attempts.clone()));
    assert!(!judged.passed);
    assert_eq!(judged.measured, "2.10 s");
    assert_eq!(judged.detail.as_deref(), Some("b from 2.91 s"));
    // The drill had killed b, and said when it was well again.
    let events = vec![(2_950, node("b", Condition::Dead)), (4_900, node("b", Condition::Alive))];
    assert!(only(&spec, &record(events, attempts)).passed);
}

#[test]
fn a_probe_that_never_succeeds_has_a_gap_as_long_as_the_drill() {
    let spec = spec("{longestGap: {probe: dns, atMost: 1s}}");
    let judged = only(&spec, &record(Vec::new(), vec![asked("a", 5, false)]));
    assert_eq!((judged.passed, judged.measured.as_str()), (false, "10.00 s"));
    let judged = only(&spec, &record(Vec::new(), Vec::new()));
    assert_eq!((judged.passed, judged.measured.as_str()), (false, "nothing was asked"));
}

#[test]
fn failures_of_nodes_that_are_down_are_excused_and_others_count() {
    let spec = spec("{successShare: {probe: dns, atLeast: 100%}}");
    let events = vec![(1_000, node("a", Condition::Paused)), (2_000, node("a", Condition::Alive))];
    // In flight when it was paused, while it was, and across its return.
    let excused = vec![asked("a", 995, false), asked("a", 1_500, false), asked("a", 1_995, false)];
    let well = asked("a", 5_000, true);
    let attempts = [excused.clone(), vec![well.clone()]].concat();
    let judged = only(&spec, &record(events.clone(), attempts));
    assert!(judged.passed, "{judged:?}");
    assert_eq!(judged.measured, "1 of 1 (100 %)");
    let attempts = [excused, vec![well, asked("a", 2_000, false)]].concat();
    let judged = only(&spec, &record(events, attempts));
    assert_eq!((judged.passed, judged.measured.as_str()), (false, "1 of 2 (50.00 %)"));
    assert_eq!(judged.detail.as_deref(), Some("first a at 2.00 s: no answer"));
}

#[test]
fn what_follows_a_disturbance_closely_does_not_count() {
    let spec = spec("{successShare: {probe: dns, atLeast: 99.9%, after: 1s}}");
    let fault = What::Fault { name: "cut".into(), clouds: Vec::new() };
    let attempts = vec![asked("a", 3_000, false), asked("a", 3_999, false), asked("a", 4_000, true)];
    assert!(only(&spec, &record(vec![(3_000, fault.clone())], attempts.clone())).passed);
    assert!(!only(&spec, &record(vec![(2_999, fault)], attempts)).passed);
}

#[test]
fn nothing_counted_is_no_success() {
    let spec = spec("{successShare: {probe: dns, atLeast: 0%}}");
    assert!(!only(&spec, &record(Vec::new(), Vec::new())).passed);
}

#[test]
fn a_share_is_never_rounded_up_to_all() {
    let spec = spec("{successShare: {probe: dns, atLeast: 100%}}");
    let mut attempts: Vec<_> = (0..100_000).map(|_| asked("a", 1, true)).collect();
    attempts.push(asked("a", 1, false));
    let judged = only(&spec, &record(Vec::new(), attempts));
    assert_eq!((judged.passed, judged.measured.as_str()), (false, "100000 of 100001 (99.99 %)"));
}

#[test]
fn a_dead_node_may_be_named_only_for_so_long() {
    let spec = spec("{cleanWithin: {probe: dns, atMost: 1s}}");
    let dead = vec![(1_000, node("b", Condition::Dead))];
    let named = |from_ms| Attempt { named: vec!["b".into()], ..asked("a", from_ms, true) };
    assert!(
        only(&spec, &record(dead.clone(), vec![named(500), named(1_900), asked("a", 3_000, true)])).passed
    );
    let judged = only(&spec, &record(dead, vec![named(500), named(2_500)]));
    assert_eq!((judged.passed, judged.measured.as_str()), (false, "after 1.51 s"));
    assert_eq!(judged.detail.as_deref(), Some("a named b"));
}

#[test]
fn a_node_that_comes_back_has_its_own_time_to_learn_of_a_death() {
    let spec = spec("{cleanWithin: {probe: dns, atMost: 1s}}");
    let events = vec![
        (1_000, node("b", Condition::Dead)),
        (1_000, node("a", Condition::Dead)),
        (6_000, node("a", Condition::Alive)),
    ];
    let named = Attempt { named: vec!["b".into()], ..asked("a", 6_500, true) };
    let judged = only(&spec, &record(events, vec![named]));
    assert_eq!((judged.passed, judged.measured.as_str()), (true, "after 510 ms"));
}

#[test]
fn leaders_deaths_and_settlings_are_counted() {
    let leader = |name: &str| What::Leader(Some(name.into()));
    let events = vec![
        (0, leader("a")),
        (10, What::Leader(None)),
        (20, leader("a")),
        (30, leader("b")),
        (40, What::Death("a".into())),
        (50, What::Settled { took_ms: 700, ok: true }),
    ];
    let record = record(events, Vec::new());
    let judged = Judge::new(
        &spec("{leaderChanges: {atMost: 1}}, {deaths: {atMost: 0}}, {settleTime: {atMost: 1s}}"),
        &record,
    )
    .bounds();
    let passed: Vec<_> = judged.iter().map(|j| (j.passed, j.measured.as_str())).collect();
    assert_eq!(passed, [(true, "1"), (false, "1"), (true, "700 ms")]);
}

#[test]
fn a_settling_in_vain_is_worse_than_any_other() {
    let events =
        vec![(1, What::Settled { took_ms: 900, ok: true }), (2, What::Settled { took_ms: 100, ok: false })];
    let judged = only(&spec("{settleTime: {atMost: 10s}}"), &record(events, Vec::new()));
    assert_eq!((judged.passed, judged.measured.as_str()), (false, "not within 100 ms"));
}

#[test]
fn the_figures_have_names() {
    let spec = spec("{deaths: {atMost: 0}}");
    let record = record(Vec::new(), every("a", 100));
    let figures = measurements(&Judge::new(&spec, &record), &spec.probes);
    assert_eq!(figures["dns_attempts"], 100);
    assert_eq!(figures["dns_gap_ms"], 100);
    assert_eq!(figures["dns_clean_ms"], 0);
    assert!(figures["write_gap_ms"].is_null() && figures["settle_ms"].is_null());
}
