//! The report as one page of HTML that needs nothing else: no script, no font, no picture from elsewhere.
//!
//! Read from top to bottom: what was tried and whether it passed; the bounds; a picture of everything over
//! time; then the details. Colour never stands alone: every state has a pattern or a word as well.

mod chart;
mod markup;

use selvedge_fabric::drill::ProbeKind;

use self::markup::{escape, table};
use super::{judge::seconds, report::Report};

const STYLE: &str = include_str!("style.css");
/// Most failures of one probe that the page lists; JSON has more.
const MAX_LISTED: usize = 12;

/// The page.
pub(crate) fn html(report: &Report) -> String {
    let name = escape(&report.scenario);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{name}: {verdict}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n{head}{bounds}\
         <section>\n<h2>What happened</h2>\n{chart}</section>\n{probes}{events}{foot}</main>\n</body>\n</html>\n",
        verdict = report.verdict(),
        head = head(report),
        bounds = bounds(report),
        chart = chart::figure(report),
        probes = probes(report),
        events = events(report),
        foot = foot(report),
    )
}

fn head(report: &Report) -> String {
    let class = match (report.passed, report.end) {
        (true, _) => "passed",
        (false, "interrupted") => "stopped",
        (false, _) => "failed",
    };
    let broken = report.bounds.iter().filter(|bound| !bound.passed).count();
    let all = report.bounds.len();
    let summary = match (&report.why, report.end, broken) {
        (Some(why), _, _) => format!("It could not be finished: {}", escape(why)),
        (None, "interrupted", _) => {
            "Somebody stopped it before its end. What was broken has been mended.".to_owned()
        }
        (None, _, 0) => format!("All {all} bounds held."),
        (None, _, _) => format!("{broken} of {all} bounds did not hold."),
    };
    let clouds: std::collections::BTreeSet<_> = report.lanes.iter().map(|lane| &lane.cloud).collect();
    format!(
        "<header class=\"{class}\">\n<p class=\"verdict\">{verdict}</p>\n<h1>{name}</h1>\n\
         <p class=\"description\">{description}</p>\n<p class=\"summary\">{summary}</p>\n\
         <p class=\"meta\">{started} · took {length} · {nodes} nodes in {clouds} clouds · {ground}</p>\n</header>\n",
        verdict = report.verdict().to_uppercase(),
        name = escape(&report.scenario),
        description = escape(&report.description),
        started = escape(&report.started),
        length = seconds(report.length_ms),
        nodes = report.lanes.len(),
        clouds = clouds.len(),
        ground = escape(&report.ground),
    )
}

fn bounds(report: &Report) -> String {
    let rows = report.bounds.iter().map(|bound| {
        let mark = if bound.passed {
            "<span class=\"ok\">✓ held</span>"
        } else {
            "<span class=\"bad\">✗ broken</span>"
        };
        let detail =
            bound.detail.as_deref().map(|d| format!("<small>{}</small>", escape(d))).unwrap_or_default();
        let name = format!("{}{detail}", escape(&bound.bound));
        [mark.to_owned(), name, escape(&bound.measured), escape(&bound.allowed)]
    });
    format!("<section>\n<h2>Bounds</h2>\n{}</section>\n", table(["", "What", "Measured", "Allowed"], rows))
}

fn probes(report: &Report) -> String {
    if report.probes.is_empty() {
        return String::new();
    }
    let or_dash = |ms: Option<u64>| ms.map_or_else(|| "–".to_owned(), seconds);
    let rows = report.probes.iter().map(|probe| {
        let seen = &probe.seen;
        let gap = seen.longest_gap.as_ref();
        let gap = gap.map_or_else(
            || "–".to_owned(),
            |gap| format!("{} <small>{}</small>", seconds(gap.stretch.length_ms()), escape(&gap.subject)),
        );
        let name = format!("{}<small>{}</small>", escape(&probe.name), asks(probe.kind));
        let count = |n: usize| n.to_string();
        [
            name,
            count(seen.attempts),
            count(seen.failures),
            count(seen.excused),
            or_dash(seen.median_ms),
            or_dash(seen.slowest_ms),
            gap,
        ]
    });
    let head = ["Probe", "Asked", "Failed", "Excused", "Median", "Slowest", "Longest gap"];
    let mut text = format!("<section>\n<h2>Probes</h2>\n{}", table(head, rows));
    text.push_str(
        "<p class=\"note\">Excused: asked of a node while the drill itself kept it from answering. A gap is the \
         time from one success to the next.</p>\n",
    );
    for probe in report.probes.iter().filter(|probe| !probe.first_failures.is_empty()) {
        let rows = probe.first_failures.iter().take(MAX_LISTED);
        let rows = rows.map(|f| [seconds(f.at_ms), escape(&f.subject), escape(&f.why)]);
        text.push_str(&format!(
            "<details>\n<summary>First failures of {}</summary>\n{}</details>\n",
            escape(&probe.name),
            table(["After", "Who", "Why"], rows)
        ));
    }
    text.push_str("</section>\n");
    text
}

const fn asks(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Dns => "names, at the DNS of each node",
        ProbeKind::Http => "HTTP by name, through contracts",
        ProbeKind::Write => "changes of intent",
        ProbeKind::Forbidden => "connections that nothing allows",
    }
}

fn events(report: &Report) -> String {
    let mut number = 0;
    let rows = report.timeline.iter().map(|event| {
        let text = escape(&event.event);
        let text = match event.step {
            true => {
                number += 1;
                format!("<strong><span class=\"number\">{number}</span> {text}</strong>")
            }
            false => text,
        };
        [format!("{:.2} s", event.at_ms as f64 / 1e3), text]
    });
    format!(
        "<section>\n<h2>Events</h2>\n<p class=\"note\">Steps of the drill are bold, with their numbers in the picture.</p>\n{}</section>\n",
        table(["After", "What"], rows)
    )
}

fn foot(report: &Report) -> String {
    format!(
        "<footer>selvedge {} · drill {} · the same as JSON lies beside this page</footer>\n",
        env!("CARGO_PKG_VERSION"),
        escape(&report.scenario)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drill::report::tests::sample;

    #[test]
    fn what_comes_from_names_is_escaped() {
        let page = html(&sample());
        for foreign in ["<script", "<b>aws", "</svg><i>", "& \"quotes\""] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("&lt;b&gt;aws&lt;/b&gt;"));
    }

    #[test]
    fn it_needs_nothing_from_elsewhere() {
        let page = html(&sample());
        for outside in ["http:", "https:", "src=", "@import", "url(http", "<link", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    /// Every tag that is opened is closed, in order.
    #[test]
    fn its_tags_are_balanced() {
        let page = html(&sample());
        let mut open = Vec::new();
        for piece in page.split('<').skip(1) {
            let tag = piece.split('>').next().unwrap_or_default();
            let name = tag.trim_start_matches('/').split([' ', '\n', '/']).next().unwrap_or_default();
            if tag.starts_with('/') {
                assert_eq!(open.pop(), Some(name.to_owned()), "at <{tag}>");
            } else if !tag.ends_with('/') && !["!DOCTYPE", "meta"].contains(&name) {
                open.push(name.to_owned());
            }
        }
        assert_eq!(open, Vec::<String>::new());
    }

    #[test]
    fn the_verdict_is_on_top() {
        let page = html(&sample());
        let at = |text: &str| page.find(text).expect(text);
        assert!(at("PASSED") < at("All 2 bounds held.") && at("All 2 bounds held.") < at("<svg"));
    }
}
