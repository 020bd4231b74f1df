//! The picture: time from left to right, a lane for what is broken between clouds, one for each node, one for
//! each probe. Plain SVG.

use std::fmt::Write as _;

use super::markup::escape;
use crate::drill::{
    judge::seconds,
    record::{Condition, Stretch},
    report::{Fault, Lane, PARTS, ProbeLane, Report, word},
};

const WIDTH: f64 = 1_120.0;
/// Where lanes begin and end.
const LEFT: f64 = 150.0;
const RIGHT: f64 = 12.0;
const LANE: f64 = 20.0;
const PITCH: f64 = 26.0;
/// Room for a heading above lanes.
const HEADING: f64 = 24.0;
/// Room above everything, for the numbers of the steps.
const TOP: f64 = 44.0;
/// Room below, for the axis.
const BOTTOM: f64 = 34.0;
/// Numbers of steps nearer than this are raised in turn, so that they do not cover each other.
const NEAR: f64 = 20.0;
/// About how many marks the axis has.
const TICKS: u64 = 10;

/// The picture with its legend.
pub(super) fn figure(report: &Report) -> String {
    let mut drawing = Drawing::new(report.length_ms);
    let height = drawing.lanes(report);
    drawing.axis(height - BOTTOM + 4.0);
    let steps = drawing.steps(report, height - BOTTOM + 4.0);
    format!(
        "<figure>\n<div class=\"scroll\"><svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"Timeline of \
         the drill\">\n{PATTERNS}{steps}{}</svg></div>\n<figcaption>{LEGEND}</figcaption>\n</figure>\n",
        drawing.text
    )
}

const PATTERNS: &str = "<defs>\
<pattern id=\"hatch\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\" patternTransform=\"rotate(45)\">\
<rect class=\"h0\" width=\"6\" height=\"6\"/><rect class=\"h1\" width=\"3\" height=\"6\"/></pattern>\
<pattern id=\"dots\" width=\"6\" height=\"6\" patternUnits=\"userSpaceOnUse\">\
<rect class=\"d0\" width=\"6\" height=\"6\"/><circle class=\"d1\" cx=\"3\" cy=\"3\" r=\"1.4\"/></pattern>\
</defs>\n";

const LEGEND: &str = "<span><i class=\"k alive\"></i>alive</span>\
<span><i class=\"k leads\"></i>leads</span>\
<span><i class=\"k paused\"></i>paused</span>\
<span><i class=\"k starting\"></i>starting</span>\
<span><i class=\"k dead\"></i>dead or cut off</span>\
<span><i class=\"k fault\"></i>broken between clouds</span>\
<span><i class=\"k good\"></i>every answer good</span>\
<span><i class=\"k some\"></i>some failed</span>\
<span><i class=\"k none\"></i>all failed</span>\
<span><i class=\"k gap\"></i>longest gap</span>\
<span>numbers above: the steps, listed under Events</span>";

struct Drawing {
    text: String,
    length_ms: u64,
    y: f64,
}

impl Drawing {
    fn new(length_ms: u64) -> Self {
        Self { text: String::new(), length_ms: length_ms.max(1), y: TOP }
    }

    fn x(&self, at_ms: u64) -> f64 {
        let part = at_ms.min(self.length_ms) as f64 / self.length_ms as f64;
        LEFT + part * (WIDTH - LEFT - RIGHT)
    }

    fn add(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, "{line}");
    }

    /// Draws every lane; returns the height of the picture.
    fn lanes(&mut self, report: &Report) -> f64 {
        if !report.faults.is_empty() {
            self.heading("between clouds");
            for row in rows(&report.faults) {
                self.faults(&row);
            }
        }
        let mut cloud = None;
        for lane in &report.lanes {
            if cloud != Some(&lane.cloud) {
                self.heading(&lane.cloud);
                cloud = Some(&lane.cloud);
            }
            self.node(lane);
        }
        if !report.probes.is_empty() {
            self.heading("probes");
        }
        for probe in &report.probes {
            self.probe(probe);
        }
        self.y + BOTTOM
    }

    fn heading(&mut self, text: &str) {
        self.y += HEADING;
        let y = self.y - 8.0;
        self.add(format_args!(
            "<text class=\"heading\" x=\"2\" y=\"{y:.1}\">{}</text>",
            escape(&cut(text, 40))
        ));
    }

    fn label(&mut self, text: &str) {
        let (x, y) = (LEFT - 10.0, self.y + LANE * 0.7);
        let text = escape(&cut(text, 20));
        self.add(format_args!("<text class=\"label\" x=\"{x}\" y=\"{y:.1}\">{text}</text>"));
    }

    /// A bar with a title that browsers show when it is pointed at.
    fn bar(&mut self, class: &str, stretch: Stretch, inset: f64, title: &str) {
        let (from, to) = (self.x(stretch.from_ms), self.x(stretch.to_ms));
        let (width, y, height) = ((to - from).max(1.0), self.y + inset, LANE - 2.0 * inset);
        let title = escape(title);
        self.add(format_args!(
            "<rect class=\"{class}\" x=\"{from:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\">\
             <title>{title}</title></rect>"
        ));
    }

    fn faults(&mut self, row: &[&Fault]) {
        for fault in row {
            let clouds = if fault.clouds.is_empty() {
                String::new()
            } else {
                format!(" ({})", fault.clouds.join(", "))
            };
            self.bar(
                "fault",
                fault.stretch,
                1.0,
                &format!("{}{clouds}, {}", fault.name, span(fault.stretch)),
            );
            let (from, to) = (self.x(fault.stretch.from_ms), self.x(fault.stretch.to_ms));
            // About 6.4 units a letter.
            let fits = ((to - from - 10.0) / 6.4) as usize;
            if fits >= 4 {
                let (x, y, text) = (from + 5.0, self.y + LANE * 0.7, escape(&cut(&fault.name, fits)));
                self.add(format_args!("<text class=\"onfault\" x=\"{x:.1}\" y=\"{y:.1}\">{text}</text>"));
            }
        }
        self.y += PITCH;
    }

    fn node(&mut self, lane: &Lane) {
        self.label(&lane.name);
        for phase in &lane.conditions {
            let class = match phase.condition {
                Condition::Alive => "alive",
                Condition::Starting => "starting",
                Condition::Paused => "paused",
                Condition::Dead | Condition::CutOff => "dead",
            };
            let title = format!("{} {}, {}", lane.name, word(phase.condition), span(phase.stretch));
            self.bar(class, phase.stretch, 1.0, &title);
            let (from, to) = (self.x(phase.stretch.from_ms), self.x(phase.stretch.to_ms));
            if phase.condition != Condition::Alive && to - from > 52.0 {
                let (x, y, word) = (from + 6.0, self.y + LANE * 0.7, word(phase.condition));
                self.add(format_args!("<text class=\"on{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{word}</text>"));
            }
        }
        for led in &lane.led {
            self.bar("leads", *led, 6.5, &format!("{} leads, {}", lane.name, span(*led)));
        }
        self.y += PITCH;
    }

    fn probe(&mut self, probe: &ProbeLane) {
        self.label(&probe.name);
        let length_ms = self.length_ms;
        let at = |part: usize| part as u64 * length_ms / PARTS;
        for (from, to, class) in runs(&probe.parts) {
            let stretch = Stretch { from_ms: at(from), to_ms: at(to) };
            let what = match class {
                "good" => "every answer good",
                "some" => "some failed",
                _ => "all failed",
            };
            let title = format!("{}: {what}, {}", probe.name, span(stretch));
            self.bar(class, stretch, 1.0, &title);
        }
        if let Some(gap) = &probe.seen.longest_gap {
            let title = format!("longest gap: {}, {}", seconds(gap.stretch.length_ms()), gap.subject);
            self.bar("gap", gap.stretch, 0.0, &title);
        }
        self.y += PITCH;
    }

    fn axis(&mut self, y: f64) {
        let step = tick(self.length_ms);
        for at_ms in (0..=self.length_ms).step_by(usize::try_from(step).unwrap_or(usize::MAX)) {
            let (x, below) = (self.x(at_ms), y + 16.0);
            self.add(format_args!(
                "<line class=\"tick\" x1=\"{x:.1}\" y1=\"{y:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\"/>",
                y + 5.0
            ));
            let text = if step < 1_000 {
                format!("{:.1} s", at_ms as f64 / 1e3)
            } else {
                format!("{} s", at_ms / 1_000)
            };
            self.add(format_args!("<text class=\"axis\" x=\"{x:.1}\" y=\"{below:.1}\">{text}</text>"));
        }
        let (from, to) = (self.x(0), self.x(self.length_ms));
        self.add(format_args!(
            "<line class=\"tick\" x1=\"{from:.1}\" y1=\"{y:.1}\" x2=\"{to:.1}\" y2=\"{y:.1}\"/>"
        ));
    }

    /// Lines at the steps, numbered.
    fn steps(&self, report: &Report, bottom: f64) -> String {
        let (mut text, mut last, mut raised) = (String::new(), f64::MIN, false);
        for (number, event) in (1..).zip(report.timeline.iter().filter(|event| event.step)) {
            let x = self.x(event.at_ms);
            raised = x - last < NEAR && !raised;
            last = x;
            let y = if raised { 12.0 } else { 30.0 };
            let title = escape(&format!("{number}. {} at {}", event.event, seconds(event.at_ms)));
            let _ = writeln!(
                text,
                "<g class=\"step\"><title>{title}</title><line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" \
                 y2=\"{bottom:.1}\"/><circle cx=\"{x:.1}\" cy=\"{y}\" r=\"9\"/><text x=\"{x:.1}\" \
                 y=\"{:.1}\">{number}</text></g>",
                y + 9.0,
                y + 3.8
            );
        }
        text
    }
}

/// Faults laid out so that none of a row covers another.
fn rows(faults: &[Fault]) -> Vec<Vec<&Fault>> {
    let mut rows: Vec<Vec<&Fault>> = Vec::new();
    for fault in faults {
        let free =
            rows.iter_mut().find(|row| row.last().is_none_or(|l| l.stretch.to_ms <= fault.stretch.from_ms));
        match free {
            Some(row) => row.push(fault),
            None => rows.push(vec![fault]),
        }
    }
    rows
}

/// Neighbouring parts of a probe's lane that look the same; parts in which nothing was asked are left out.
fn runs(parts: &[(u32, u32)]) -> Vec<(usize, usize, &'static str)> {
    let mut runs: Vec<(usize, usize, &'static str)> = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let class = match part {
            (0, 0) => continue,
            (_, 0) => "good",
            (0, _) => "none",
            _ => "some",
        };
        match runs.last_mut() {
            // A pause between two questions is no hole in the lane.
            Some((_, to, before)) if *before == class && number - *to <= 3 => *to = number + 1,
            _ => runs.push((number, number + 1, class)),
        }
    }
    runs
}

/// The distance of the marks on the axis: 1, 2 or 5 times a power of ten.
fn tick(length_ms: u64) -> u64 {
    let mut step = 100;
    for factor in [2, 5, 10].into_iter().cycle() {
        if length_ms / step <= TICKS {
            break;
        }
        step = match factor {
            2 => step * 2,
            5 => step / 2 * 5,
            _ => step * 2,
        };
    }
    step
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some(_) => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        None => text.to_owned(),
    }
}

fn span(stretch: Stretch) -> String {
    format!("{:.1} s to {:.1} s", stretch.from_ms as f64 / 1e3, stretch.to_ms as f64 / 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_has_few_round_marks() {
        assert_eq!(
            [900, 10_000, 12_000, 60_000, 100_000, 3_600_000].map(tick),
            [100, 1_000, 2_000, 10_000, 10_000, 500_000]
        );
    }

    #[test]
    fn parts_that_look_the_same_are_one_bar() {
        let parts = [(1, 0), (0, 0), (2, 0), (1, 1), (0, 3), (0, 0), (0, 0), (0, 0), (0, 0), (0, 1)];
        assert_eq!(runs(&parts), [(0, 3, "good"), (3, 4, "some"), (4, 5, "none"), (9, 10, "none")]);
    }

    #[test]
    fn faults_at_the_same_time_lie_in_rows() {
        let fault = |from_ms, to_ms| Fault {
            name: String::new(),
            clouds: Vec::new(),
            stretch: Stretch { from_ms, to_ms },
        };
        let faults = [fault(0, 10), fault(5, 20), fault(10, 30)];
        assert_eq!(rows(&faults).iter().map(Vec::len).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn long_names_are_cut() {
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".to_owned(), "ab…".to_owned()));
    }
}
