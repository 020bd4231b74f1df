//! What a drill found.

use std::fmt::Write as _;

use serde::Serialize;

use crate::playground::plain_table;

/// The outcome of a drill.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) scenario: String,
    pub(crate) passed: bool,
    /// Figures by name; times in milliseconds.
    pub(crate) measurements: serde_json::Value,
    pub(crate) timeline: Vec<Event>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Event {
    /// Milliseconds since the fault.
    pub(crate) at_ms: u64,
    pub(crate) event: String,
}

impl Report {
    /// The report for people.
    pub(crate) fn text(&self) -> String {
        let mut timeline = plain_table(&["AFTER", "WHAT"]);
        for event in &self.timeline {
            timeline.add_row([format!("{:.2} s", event.at_ms as f64 / 1e3), event.event.clone()]);
        }
        let mut figures = plain_table(&["MEASURED", "VALUE"]);
        // Nested figures are parts of those beside them; JSON has them.
        for (name, value) in
            self.measurements.as_object().into_iter().flatten().filter(|(_, v)| !v.is_object())
        {
            figures.add_row([name.clone(), shown(value)]);
        }
        let verdict = if self.passed { "passed" } else { "FAILED" };
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = write!(text, "{timeline}\n\n{figures}\n\n{}: {verdict}", self.scenario);
        text
    }
}

fn shown(value: &serde_json::Value) -> String {
    if value.is_null() { "never".to_owned() } else { value.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_timeline_figures_and_verdict() {
        let report = Report {
            scenario: "cloud-loss".into(),
            passed: false,
            measurements: serde_json::json!({"write_gap_ms": null, "dns_clean_ms": 812, "by_node": {"a": 1}}),
            timeline: vec![Event { at_ms: 1_250, event: "something happened".into() }],
        };
        let text = report.text();
        for wanted in ["1.25 s", "something happened", "dns_clean_ms", "812", "never", "cloud-loss: FAILED"] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
        assert!(!text.contains("by_node"), "{text}");
    }
}
