//! Numbers as people say them.

/// A span such as `3d4h`, `5m2s`, `1.2s` or `40ms`: two units at most.
pub(crate) fn span(ms: u64) -> String {
    const UNITS: [(u64, &str); 4] = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    if ms < 1_000 {
        return format!("{ms}ms");
    }
    if ms < 60_000 {
        return format!("{}.{}s", ms / 1_000, ms % 1_000 / 100);
    }
    let mut shown = String::new();
    let mut rest = ms;
    let first = UNITS.iter().position(|(unit, _)| ms >= *unit).unwrap_or(UNITS.len() - 1);
    for (unit, name) in UNITS.iter().skip(first).take(2) {
        if rest >= *unit {
            shown.push_str(&format!("{}{name}", rest / unit));
        }
        rest %= unit;
    }
    shown
}

/// A round trip in milliseconds.
pub(crate) fn rtt(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.2} ms") } else { format!("{ms:.0} ms") }
}

/// Bytes in steps of a thousand: `12 B`, `1.5 kB`, `20 MB`.
pub(crate) fn bytes(n: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    let (mut scaled, mut unit) = (n as f64, "B");
    for larger in UNITS {
        if scaled < 1_000.0 {
            break;
        }
        (scaled, unit) = (scaled / 1_000.0, larger);
    }
    if unit == "B" || scaled >= 10.0 { format!("{scaled:.0} {unit}") } else { format!("{scaled:.1} {unit}") }
}

/// `1 node`, `2 nodes`.
pub(crate) fn count(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_two_digits_or_three() {
        let cases =
            [(0, "0 B"), (999, "999 B"), (1_500, "1.5 kB"), (20_400_000, "20 MB"), (3 << 50, "3378 TB")];
        for (n, text) in cases {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn spans_have_two_units() {
        let cases = [(0, "0ms"), (999, "999ms"), (1_250, "1.2s"), (60_000, "1m"), (61_000, "1m1s")];
        let more = [(3_600_000, "1h"), (3_661_000, "1h1m"), (90_000_000, "1d1h"), (86_400_000, "1d")];
        for (ms, text) in cases.into_iter().chain(more) {
            assert_eq!(span(ms), text);
        }
    }
}
