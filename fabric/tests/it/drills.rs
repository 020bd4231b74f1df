//! Drills are read strictly, and every problem has its place.

use proptest::prelude::*;
use selvedge_fabric::{
    drill::{Bound, MAX_STEPS, ProbeKind, Selector, Step},
    manifest::{drill_schema, parse_drill},
};

/// A drill with these parts in place of the usual ones.
fn text(probes: &str, steps: &str, bounds: &str) -> String {
    format!(
        "apiVersion: selvedge/v1
kind: Drill
metadata: {{name: mine}}
spec:
  description: d
  probes: [{probes}]
  steps: [{steps}]
  bounds: [{bounds}]
"
    )
}

const PROBES: &str = "{name: dns, kind: dns}, {name: w, kind: write, every: 1s}, {name: f, kind: forbidden}";
const STEPS: &str = "{kill: [leader]}, {wait: 1s}";
const BOUNDS: &str = "{deaths: {atMost: 0}}";

#[test]
fn a_drill_is_read() {
    let steps =
        "{repeat: {times: 3, steps: [{partition: [[cloud#1], [others]]}, {heal: network}]}}, {settle: 1m}";
    let bounds =
        "{longestGap: {probe: w, atMost: 5s}}, {successShare: {probe: dns, atLeast: 99.9%, after: 2s}}";
    let drill = parse_drill(&text(PROBES, steps, bounds), None).expect("a drill");
    assert_eq!(drill.name.as_str(), "mine");
    assert_eq!(drill.spec.probes[0].from, [Selector::All]);
    assert_eq!(drill.spec.probes[2].kind, ProbeKind::Forbidden);
    assert_eq!(drill.spec.unrolled().len(), 7);
    assert_eq!(drill.spec.least(), (1, 0));
    assert!(drill.spec.needs_packets() && !drill.spec.needs_binary() && !drill.spec.needs_clock());
    assert!(
        matches!(&drill.spec.bounds[1], Bound::SuccessShare(share) if share.at_least.hundredths() == 9_990)
    );
    assert!(matches!(drill.spec.steps[1], Step::Settle(_)));
}

#[test]
fn what_is_read_is_written_the_same() {
    let drill = parse_drill(&text(PROBES, STEPS, BOUNDS), None).expect("a drill");
    let json = serde_json::json!({
        "apiVersion": "selvedge/v1", "kind": "Drill", "metadata": {"name": "mine"}, "spec": drill.spec,
    });
    assert_eq!(parse_drill(&json.to_string(), None).expect("the same"), drill);
}

#[test]
fn every_mistake_is_named_at_its_place() {
    let ok = (PROBES, STEPS, BOUNDS);
    for (probes, steps, bounds, line, wanted) in [
        (ok.0, "{kil: [leader]}", ok.2, 7, "did you mean kill?"),
        (ok.0, "{kill: [leader], wait: 1s}", ok.2, 7, "says several things"),
        (ok.0, "{}", ok.2, 7, "says nothing"),
        (ok.0, "", ok.2, 7, "is empty"),
        (ok.0, "{kill: []}", ok.2, 7, "is empty"),
        (ok.0, "{kill: [aws]}", ok.2, 7, "names no nodes"),
        (ok.0, "{kill: [others]}", ok.2, 7, "the other side of a cut"),
        (ok.0, "{wait: 2h}", ok.2, 7, "is not from 1ms to 1h"),
        (ok.0, "{wait: 5}", ok.2, 7, "put it in quotes"),
        (ok.0, "{cut: {from: [leader], to: [others]}}", ok.2, 7, "only what joins clouds can be cut"),
        (ok.0, "{cut: {from: [cloud#1]}}", ok.2, 7, "steps[0].cut.to"),
        (ok.0, "{partition: [[cloud#1]]}", ok.2, 7, "cut off from nothing"),
        (ok.0, "{slow: {from: [cloud#1], to: [others], loss: 101%}}", ok.2, 7, "no share"),
        (ok.0, "{restart: {nodes: [all], clock: 10m}}", ok.2, 7, "no wrong clock"),
        (ok.0, "{restart: {nodes: [all], clock: +900d}}", ok.2, 7, "further than 30d"),
        (ok.0, "{repeat: {times: 101, steps: [{wait: 1s}]}}", ok.2, 7, "from 1 to 100"),
        (ok.0, "{repeat: {times: 2, steps: [{repeat: {times: 2, steps: []}}]}}", ok.2, 7, "within a repeat"),
        (ok.0, ok.1, "{longestGap: {probe: dnss, atMost: 5s}}", 8, "did you mean dns?"),
        (ok.0, ok.1, "{longestGap: {atMost: 5s}}", 8, "bounds[0].longestGap.probe"),
        (ok.0, ok.1, "{longestGap: {probe: w, atMost: 1s}}", 8, "asks only every 1s"),
        (ok.0, ok.1, "{longestGap: {probe: f, atMost: 1s}}", 8, "a gap says nothing"),
        (ok.0, ok.1, "{cleanWithin: {probe: w, atMost: 5s}}", 8, "no DNS probe"),
        (ok.0, ok.1, "{successShare: {probe: w, atLeast: 1}}", 8, "must be text"),
        (ok.0, ok.1, "{deaths: {atMost: -1}}", 8, "a whole number"),
        ("{name: a, kind: dns}, {name: a, kind: dns}", ok.1, ok.2, 6, "a second probe a"),
        ("{name: a, kind: ping}", ok.1, ok.2, 6, "is not one of dns"),
        ("{name: A, kind: dns}", ok.1, ok.2, 6, "probes[0].name"),
        ("{name: a, kind: dns, every: 1ms}", ok.1, ok.2, 6, "is not from 20ms"),
        ("{name: a, kind: write, contract: a@b}", ok.1, ok.2, 6, "leave it out"),
    ] {
        let text = text(probes, steps, bounds);
        let problems = parse_drill(&text, Some("mine.yaml")).expect_err(wanted);
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let found = problems.iter().zip(&shown).find(|(_, text)| text.contains(wanted));
        let (problem, _) = found.unwrap_or_else(|| panic!("{wanted}: {shown:#?}"));
        assert_eq!(problem.place.as_ref().map(|place| place.line), Some(line), "{wanted}: {shown:#?}");
    }
}

#[test]
fn other_documents_are_refused() {
    let good = text(PROBES, STEPS, BOUNDS);
    let contract = "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: a}\nspec: {}\n";
    for bad in ["", "[]", "null", contract, &format!("{good}---\n{good}"), &format!("{good}more: 1\n")] {
        assert!(parse_drill(bad, None).is_err(), "{bad}");
    }
}

#[test]
fn repeated_steps_are_counted() {
    let steps = ["{wait: 1ms}"; MAX_STEPS / 100 + 1].join(", ");
    let steps = format!("{{repeat: {{times: 100, steps: [{steps}]}}}}");
    let problems = parse_drill(&text(PROBES, &steps, BOUNDS), None).expect_err("too many");
    assert!(problems[0].to_string().contains("at most 1000"), "{problems:?}");
}

#[test]
fn the_published_schema_is_the_one_of_the_types() {
    let published = include_str!("../../../configs/schema/selvedge-drill-v1.json");
    let published: serde_json::Value = serde_json::from_str(published).expect("JSON");
    let generated = drill_schema();
    assert!(published == generated, "put this into configs/schema/selvedge-drill-v1.json:\n{generated:#}");
}

/// Words of which some make a drill, and most do not.
const WORDS: [&str; 34] = [
    "kill",
    "start",
    "pause",
    "restart",
    "partition",
    "cut",
    "slow",
    "wait",
    "settle",
    "heal",
    "repeat",
    "times",
    "steps",
    "from",
    "to",
    "probe",
    "atMost",
    "longestGap",
    ": ",
    ", ",
    "[",
    "]",
    "{",
    "}",
    "cloud#1",
    "others",
    "5s",
    "99%",
    "\n",
    "  - ",
    "&a",
    "*a",
    "'",
    "-10m",
];

proptest! {
    #[test]
    fn no_text_is_too_odd(words in proptest::collection::vec(proptest::sample::select(&WORDS[..]), 0..60)) {
        let soup = words.concat();
        for text in [soup.clone(), text(PROBES, &soup, BOUNDS), text(&soup, STEPS, &soup)] {
            match parse_drill(&text, Some("f")) {
                Ok(drill) => prop_assert!(drill.spec.unrolled().len() <= MAX_STEPS),
                Err(problems) => prop_assert!(!problems.is_empty()),
            }
        }
    }

    #[test]
    fn no_bytes_are_too_odd(text in ".{0,400}") {
        let _ = parse_drill(&text, None);
    }
}
