//! Differences of short texts, line by line.

use super::style::{Tone, paint};

/// Largest product of line counts that is compared; beyond it everything is shown as replaced.
const MAX_CELLS: usize = 4_000_000;
/// Unchanged lines shown around a change.
const CONTEXT: usize = 2;

/// A line and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line<'a> {
    Same(&'a str),
    Gone(&'a str),
    New(&'a str),
}

/// The differences with a little context, each line behind `+`, `-` or a space.
pub(crate) fn unified(before: &str, after: &str, colour: bool) -> String {
    let lines = compare(&before.lines().collect::<Vec<_>>(), &after.lines().collect::<Vec<_>>());
    let near = |at: usize| {
        let around = &lines[at.saturating_sub(CONTEXT)..(at + CONTEXT + 1).min(lines.len())];
        around.iter().any(|line| !matches!(line, Line::Same(_)))
    };
    let mut text = String::new();
    let mut skipped = false;
    for (at, line) in lines.iter().enumerate() {
        if !near(at) {
            skipped = true;
            continue;
        }
        if std::mem::take(&mut skipped) && !text.is_empty() {
            text.push_str("    …\n");
        }
        let (sign, line, tone) = match line {
            Line::Same(line) => (' ', line, Tone::Dim),
            Line::Gone(line) => ('-', line, Tone::Bad),
            Line::New(line) => ('+', line, Tone::Good),
        };
        text.push_str(&format!("  {}\n", paint(&format!("{sign} {line}"), tone, colour)));
    }
    text
}

/// Longest common subsequence, by the textbook table.
fn compare<'a>(before: &[&'a str], after: &[&'a str]) -> Vec<Line<'a>> {
    if before.len().saturating_mul(after.len()) > MAX_CELLS {
        let gone = before.iter().map(|line| Line::Gone(line));
        return gone.chain(after.iter().map(|line| Line::New(line))).collect();
    }
    let columns = after.len() + 1;
    let mut longest = vec![0_u32; (before.len() + 1) * columns];
    for i in (0..before.len()).rev() {
        for j in (0..after.len()).rev() {
            longest[i * columns + j] = if before[i] == after[j] {
                longest[(i + 1) * columns + j + 1] + 1
            } else {
                longest[(i + 1) * columns + j].max(longest[i * columns + j + 1])
            };
        }
    }
    let (mut i, mut j, mut lines) = (0, 0, Vec::new());
    while i < before.len() || j < after.len() {
        if i < before.len() && j < after.len() && before[i] == after[j] {
            lines.push(Line::Same(before[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == after.len()
            || (i < before.len() && longest[(i + 1) * columns + j] >= longest[i * columns + j + 1])
        {
            lines.push(Line::Gone(before[i]));
            i += 1;
        } else {
            lines.push(Line::New(after[j]));
            j += 1;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_line_is_shown_with_its_neighbours() {
        let before = "a\nb\nc\nd\ne\nf\n";
        let after = "a\nb\nc\nd\nE\nf\n";
        assert_eq!(unified(before, after, false), "    c\n    d\n  - e\n  + E\n    f\n");
        assert_eq!(unified(before, before, false), "");
        assert_eq!(unified("", "a\n", false), "  + a\n");
        assert_eq!(unified("a\n", "", false), "  - a\n");
    }
}
