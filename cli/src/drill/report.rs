//! What a drill found: as JSON, as text for terminals, and the figures of the page.

use std::{collections::BTreeMap, fmt::Write as _};

use selvedge_fabric::drill::{Drill, ProbeKind};
use serde::Serialize;
use serde_json::Value;

use super::{
    judge::{Judge, Judged, Seen, measurements, seconds},
    record::{Condition, End, Record, Stretch, What},
};
use crate::playground::plain_table;

/// Into how many parts of the same length the lane of a probe is divided.
pub(crate) const PARTS: u64 = 240;
/// Most failures of one probe that are told one by one.
const MAX_FAILURES: usize = 100;

/// The outcome of a drill.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) description: String,
    pub(crate) passed: bool,
    /// `completed`, `interrupted` or `failed`.
    pub(crate) end: &'static str,
    /// Why it failed to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// RFC 3339.
    pub(crate) started: String,
    pub(crate) length_ms: u64,
    /// What it ran on.
    pub(crate) ground: String,
    pub(crate) bounds: Vec<Judged>,
    /// Figures by name; times in milliseconds.
    pub(crate) measurements: BTreeMap<String, Value>,
    pub(crate) timeline: Vec<Shown>,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) faults: Vec<Fault>,
    pub(crate) probes: Vec<ProbeLane>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Shown {
    /// Milliseconds since the drill began.
    pub(crate) at_ms: u64,
    pub(crate) event: String,
    /// It is a step of the drill.
    pub(crate) step: bool,
}

/// What a node did.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Lane {
    pub(crate) name: String,
    pub(crate) cloud: String,
    pub(crate) role: String,
    pub(crate) conditions: Vec<Phase>,
    /// When it led.
    pub(crate) led: Vec<Stretch>,
}

/// What a node did for a while.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Phase {
    #[serde(flatten)]
    pub(crate) stretch: Stretch,
    pub(crate) condition: Condition,
}

/// What was broken between clouds.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Fault {
    pub(crate) name: String,
    pub(crate) clouds: Vec<String>,
    #[serde(flatten)]
    pub(crate) stretch: Stretch,
}

/// What a probe saw.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ProbeLane {
    pub(crate) name: String,
    pub(crate) kind: ProbeKind,
    #[serde(flatten)]
    pub(crate) seen: Seen,
    /// Successes and failures under way in each of the parts of the drill.
    pub(crate) parts: Vec<(u32, u32)>,
    /// The first failures.
    pub(crate) first_failures: Vec<Failure>,
}

/// An attempt that failed.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Failure {
    pub(crate) at_ms: u64,
    pub(crate) subject: String,
    pub(crate) why: String,
}

impl Report {
    /// Judges what was seen.
    pub(crate) fn of(drill: &Drill, record: &Record, started: String, ground: String) -> Self {
        let judge = Judge::new(&drill.spec, record);
        let bounds = judge.bounds();
        let (end, why) = match &record.end {
            End::Completed => ("completed", None),
            End::Interrupted => ("interrupted", None),
            End::Failed(why) => ("failed", Some(why.clone())),
        };
        Self {
            scenario: drill.name.to_string(),
            description: drill.spec.description.trim().to_owned(),
            passed: record.end == End::Completed && bounds.iter().all(|bound| bound.passed),
            end,
            why,
            started,
            length_ms: record.length_ms,
            ground,
            bounds,
            measurements: measurements(&judge, &drill.spec.probes),
            timeline: record.events.iter().filter_map(shown).collect(),
            lanes: lanes(record),
            faults: faults(record),
            probes: probes(drill, record, &judge),
        }
    }

    /// One word for it.
    pub(crate) fn verdict(&self) -> &'static str {
        match (self.passed, self.end) {
            (true, _) => "passed",
            (false, "interrupted") => "interrupted",
            (false, _) => "FAILED",
        }
    }

    /// The report for people at a terminal.
    pub(crate) fn text(&self) -> String {
        let mut timeline = plain_table(&["AFTER", "WHAT"]);
        for event in &self.timeline {
            timeline.add_row([format!("{:.2} s", event.at_ms as f64 / 1e3), event.event.clone()]);
        }
        let mut probes = plain_table(&["PROBE", "ASKED", "FAILED", "EXCUSED", "MEDIAN", "LONGEST GAP"]);
        for probe in &self.probes {
            let seen = &probe.seen;
            probes.add_row([
                probe.name.clone(),
                seen.attempts.to_string(),
                seen.failures.to_string(),
                seen.excused.to_string(),
                seen.median_ms.map_or_else(|| "–".to_owned(), seconds),
                seen.longest_gap
                    .as_ref()
                    .map_or_else(|| "–".to_owned(), |gap| seconds(gap.stretch.length_ms())),
            ]);
        }
        let mut bounds = plain_table(&["", "BOUND", "MEASURED", "ALLOWED"]);
        for bound in &self.bounds {
            let mark = if bound.passed { "ok" } else { "BROKEN" };
            bounds.add_row([mark, &bound.bound, &bound.measured, &bound.allowed]);
        }
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{timeline}\n\n");
        if !self.probes.is_empty() {
            let _ = write!(text, "{probes}\n\n");
        }
        let _ = write!(text, "{bounds}\n\n{}: {}", self.scenario, self.verdict());
        if let Some(why) = &self.why {
            let _ = write!(text, " ({why})");
        }
        text
    }
}

fn shown(event: &super::record::Event) -> Option<Shown> {
    let (step, text) = match &event.what {
        What::Step(text) => (true, text.clone()),
        What::Node { name, condition } => (false, format!("{name} is {}", word(*condition))),
        What::Fault { name, .. } => (false, name.clone()),
        What::Mended => (false, "what joins the clouds is mended".to_owned()),
        What::Leader(Some(name)) => (false, format!("{name} leads")),
        What::Leader(None) => (false, "nobody is known to lead".to_owned()),
        What::Settled { took_ms, ok: true } => (false, format!("settled after {}", seconds(*took_ms))),
        What::Settled { took_ms, ok: false } => (false, format!("not settled after {}", seconds(*took_ms))),
        What::Death(name) => (false, format!("{name} died, and not by the drill")),
        What::Note(text) => (false, text.clone()),
    };
    Some(Shown { at_ms: event.at_ms, event: text, step })
}

/// A condition for people.
pub(crate) const fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Alive => "alive",
        Condition::Starting => "starting",
        Condition::Paused => "paused",
        Condition::Dead => "dead",
        Condition::CutOff => "cut off",
    }
}

fn lanes(record: &Record) -> Vec<Lane> {
    let leaders = record.leaders();
    let lane = |node: &super::record::Place| Lane {
        name: node.name.clone(),
        cloud: node.cloud.clone(),
        role: node.role.clone(),
        conditions: record
            .conditions(&node.name)
            .into_iter()
            .map(|(stretch, condition)| Phase { stretch, condition })
            .collect(),
        led: led(record, &leaders, &node.name),
    };
    let mut lanes: Vec<_> = record.nodes.iter().map(lane).collect();
    lanes.sort_by(|a, b| (&a.cloud, &a.name).cmp(&(&b.cloud, &b.name)));
    lanes
}

/// When a node led: what others say of one that does not run is old.
fn led(record: &Record, leaders: &[(Stretch, Option<String>)], node: &str) -> Vec<Stretch> {
    let said = leaders.iter().filter(|(_, who)| who.as_deref() == Some(node)).map(|(stretch, _)| *stretch);
    let ran: Vec<_> = record.conditions(node).into_iter().filter(|(_, c)| *c == Condition::Alive).collect();
    let both = |said: Stretch| {
        let part = move |ran: &(Stretch, Condition)| Stretch {
            from_ms: said.from_ms.max(ran.0.from_ms),
            to_ms: said.to_ms.min(ran.0.to_ms),
        };
        ran.iter().map(part).filter(|stretch| stretch.length_ms() > 0).collect::<Vec<_>>()
    };
    said.flat_map(both).collect()
}

fn faults(record: &Record) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut open = 0;
    for event in &record.events {
        match &event.what {
            What::Fault { name, clouds } => faults.push(Fault {
                name: name.clone(),
                clouds: clouds.clone(),
                stretch: Stretch { from_ms: event.at_ms, to_ms: record.length_ms },
            }),
            What::Mended => {
                faults[open..].iter_mut().for_each(|fault| fault.stretch.to_ms = event.at_ms);
                open = faults.len();
            }
            _ => {}
        }
    }
    faults
}

fn probes(drill: &Drill, record: &Record, judge: &Judge<'_>) -> Vec<ProbeLane> {
    let lane = |(number, probe): (usize, &selvedge_fabric::drill::Probe)| {
        let mut parts = vec![(0, 0); PARTS as usize];
        let mut first_failures = Vec::new();
        for attempt in judge.counted(Some(number)) {
            let part = |at_ms: u64| (at_ms * PARTS / record.length_ms.max(1)).min(PARTS - 1) as usize;
            // One that takes long is seen for as long.
            let during = &mut parts[part(attempt.from_ms)..=part(attempt.to_ms.max(attempt.from_ms))];
            match &attempt.outcome {
                Ok(()) => during.iter_mut().for_each(|part| part.0 += 1),
                Err(why) => {
                    during.iter_mut().for_each(|part| part.1 += 1);
                    let (at_ms, subject) = (attempt.from_ms, attempt.subject.clone());
                    first_failures.push(Failure { at_ms, subject, why: why.clone() });
                }
            }
        }
        first_failures.sort_by_key(|failure| failure.at_ms);
        first_failures.truncate(MAX_FAILURES);
        let (name, kind) = (probe.name.to_string(), probe.kind);
        ProbeLane { name, kind, seen: judge.seen(number), parts, first_failures }
    };
    drill.spec.probes.iter().enumerate().map(lane).collect()
}

#[cfg(test)]
pub(crate) mod tests {
    use selvedge_fabric::manifest::parse_drill;

    use super::*;
    use crate::drill::record::{Attempt, Event, Place};

    /// A report with something of everything, and names that are not nice.
    pub(crate) fn sample() -> Report {
        let text = "apiVersion: selvedge/v1
kind: Drill
metadata: {name: sample}
spec:
  description: '<script>alert(1)</script> & \"quotes\"'
  probes: [{name: dns, kind: dns}]
  steps: [wait: 1s]
  bounds: [{longestGap: {probe: dns, atMost: 5s}}, {deaths: {atMost: 0}}]
";
        let drill = parse_drill(text, None).expect("a drill");
        let place = |name: &str, cloud: &str| Place {
            name: name.into(),
            cloud: cloud.into(),
            role: "processor".into(),
        };
        let event = |at_ms, what| Event { at_ms, what };
        let node = |condition| What::Node { name: "<b>aws</b>".into(), condition };
        let attempt = |from_ms: u64| Attempt {
            probe: 0,
            subject: "azr-p1".into(),
            node: "azr-p1".into(),
            from_ms,
            to_ms: from_ms + 10,
            outcome: if from_ms == 4_000 { Err("</svg><i>".into()) } else { Ok(()) },
            named: Vec::new(),
        };
        let record = Record {
            nodes: vec![place("<b>aws</b>", "aws"), place("azr-p1", "azr")],
            events: vec![
                event(0, What::Leader(Some("azr-p1".into()))),
                event(2_000, What::Step("kill <b>aws</b>".into())),
                event(2_000, node(Condition::Dead)),
                event(3_000, What::Fault { name: "aws | azr".into(), clouds: vec!["aws".into()] }),
                event(5_000, What::Mended),
                event(6_000, node(Condition::Starting)),
                event(7_000, node(Condition::Alive)),
            ],
            attempts: (0..100).map(|n| attempt(n * 100)).collect(),
            length_ms: 10_000,
            end: End::Completed,
        };
        Report::of(&drill, &record, "2026-01-01T00:00:00Z".into(), "a test".into())
    }

    #[test]
    fn people_see_timeline_figures_and_verdict() {
        let text = sample().text();
        for wanted in ["2.00 s", "kill", "longest gap of dns", "at most 5s", "sample: passed"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }

    #[test]
    fn programs_see_what_was_promised() {
        let json = serde_json::to_value(sample()).expect("JSON");
        assert_eq!((&json["scenario"], &json["passed"]), (&"sample".into(), &true.into()));
        assert_eq!(json["measurements"]["dns_failures"], 1);
        assert_eq!(json["timeline"][1]["at_ms"], 2_000);
        assert_eq!(json["faults"][0]["to_ms"], 5_000);
        assert_eq!(json["lanes"][0]["conditions"][1]["condition"], "dead");
        assert_eq!(json["probes"][0]["first_failures"][0]["subject"], "azr-p1");
    }
}
