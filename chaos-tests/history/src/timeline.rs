//! Operations drawn as bars over time.

use std::fmt;

use crate::operation::{Operation, Outcome};

/// Characters of the time axis.
const WIDTH: u64 = 32;

/// Draws one line for each operation; marks one of them.
pub(crate) fn draw(f: &mut fmt::Formatter<'_>, operations: &[Operation], marked: usize) -> fmt::Result {
    let from = operations.iter().map(|o| o.start_us).min().unwrap_or(0);
    let known = |o: &Operation| if o.outcome == Outcome::Unknown { o.start_us } else { o.end_us };
    let to = operations.iter().map(known).max().unwrap_or(from).max(from + 1);
    let column = |at: u64| (at.saturating_sub(from)).saturating_mul(WIDTH - 1) / (to - from);
    for (number, operation) in operations.iter().enumerate() {
        let open = operation.outcome == Outcome::Unknown;
        let (first, last) =
            (column(operation.start_us), if open { WIDTH - 1 } else { column(operation.end_us) });
        let bar: String = (0..WIDTH).map(|at| glyph(at, first, last, open)).collect();
        let mark = if number == marked { "◄" } else { "" };
        let end = if open { "      …".to_owned() } else { seconds(operation.end_us) };
        let (start, client, node) = (seconds(operation.start_us), operation.client, &operation.node);
        writeln!(f, "  {start} – {end} s │{bar}│ c{client} at {node}: {operation} {mark}")?;
    }
    Ok(())
}

const fn glyph(at: u64, first: u64, last: u64, open: bool) -> char {
    if at < first || at > last {
        ' '
    } else if at == first {
        '├'
    } else if open {
        '╌'
    } else if at == last {
        '┤'
    } else {
        '─'
    }
}

fn seconds(us: u64) -> String {
    format!("{:>3}.{:06}", us / 1_000_000, us % 1_000_000)
}
