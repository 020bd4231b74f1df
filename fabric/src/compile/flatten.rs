//! Overlapping port ranges to disjoint ones.

use std::collections::BTreeSet;

use selvedge_abi::{EdgeKey, Range};

/// A range with its precedence. Of two that hold the same port the one of lower rank speaks, and of
/// equal ranks the one whose rule comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Segment {
    pub(super) rank: u8,
    pub(super) range: Range,
}

impl Segment {
    const fn precedence(&self) -> (u8, u32, u16) {
        (self.rank, self.range.rule, self.range.high)
    }
}

/// Groups segments by edge and flattens each. Sorting once and building the map from sorted input is
/// what keeps tens of thousands of edges cheap.
pub(super) fn edges(mut segments: Vec<(EdgeKey, Segment)>) -> Vec<(EdgeKey, Vec<Range>)> {
    segments.sort_unstable();
    segments
        .chunk_by(|a, b| a.0 == b.0)
        .map(|edge| (edge[0].0, flatten(edge.iter().map(|(_, segment)| *segment))))
        .collect()
}

/// Lays ranges over others: `first` speaks wherever it says something.
pub(super) fn overlay(first: &[Range], second: &[Range]) -> Vec<Range> {
    let ranked = |rank| move |range: &Range| Segment { rank, range: *range };
    flatten(first.iter().map(ranked(0)).chain(second.iter().map(ranked(1))))
}

/// Disjoint ranges in order, neighbours of one rule joined.
pub(super) fn flatten(segments: impl Iterator<Item = Segment>) -> Vec<Range> {
    let mut by_low: Vec<Segment> = segments.collect();
    if let [only] = by_low[..] {
        return vec![only.range];
    }
    by_low.sort_unstable_by_key(|segment| segment.range.low);
    // Between two neighbouring bounds the same segments hold throughout.
    let bounds: BTreeSet<u32> =
        by_low.iter().flat_map(|s| [u32::from(s.range.low), u32::from(s.range.high) + 1]).collect();
    let bounds: Vec<u32> = bounds.into_iter().collect();

    let mut waiting = by_low.into_iter().peekable();
    let mut active: BTreeSet<((u8, u32, u16), Segment)> = BTreeSet::new();
    let mut flat: Vec<Range> = Vec::new();
    for pair in bounds.windows(2) {
        let (low, end) = (pair[0], pair[1]);
        while let Some(segment) = waiting.next_if(|s| u32::from(s.range.low) <= low) {
            active.insert((segment.precedence(), segment));
        }
        while active.first().is_some_and(|(_, s)| u32::from(s.range.high) < low) {
            active.pop_first();
        }
        if let Some((_, segment)) = active.first() {
            // `low` is a first port and `end - 1` a last one, so both fit.
            push(&mut flat, segment.range.with_ports(low as u16, (end - 1) as u16));
        }
    }
    flat
}

fn push(flat: &mut Vec<Range>, range: Range) {
    match flat.last_mut() {
        Some(last) if last.high.checked_add(1) == Some(range.low) && last.verdict() == range.verdict() => {
            last.high = range.high;
        }
        _ => flat.push(range),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use selvedge_abi::{Mode, Reason};

    use super::*;

    fn segment(rank: u8, low: u16, high: u16, rule: u32) -> Segment {
        Segment { rank, range: Range::new(low, high, Reason::Contract, Mode::Enforce, rule) }
    }

    fn flat(segments: &[Segment]) -> Vec<(u16, u16, u32)> {
        flatten(segments.iter().copied()).iter().map(|r| (r.low, r.high, r.rule)).collect()
    }

    #[test]
    fn the_lower_rank_cuts_a_hole() {
        let found = flat(&[segment(1, 10, 20, 7), segment(0, 15, 15, 8)]);
        assert_eq!(found, [(10, 14, 7), (15, 15, 8), (16, 20, 7)]);
    }

    #[test]
    fn neighbours_of_one_rule_are_joined_and_others_are_not() {
        assert_eq!(flat(&[segment(0, 1, 2, 7), segment(0, 3, 4, 7)]), [(1, 4, 7)]);
        assert_eq!(flat(&[segment(0, 1, 2, 7), segment(0, 3, 4, 8)]), [(1, 2, 7), (3, 4, 8)]);
        assert_eq!(flat(&[segment(0, 1, 2, 7), segment(0, 4, 5, 7)]), [(1, 2, 7), (4, 5, 7)]);
    }

    #[test]
    fn the_ends_of_the_port_space() {
        assert_eq!(
            flat(&[segment(1, 0, u16::MAX, 7), segment(0, u16::MAX, u16::MAX, 8)]),
            [(0, u16::MAX - 1, 7), (u16::MAX, u16::MAX, 8)]
        );
        assert_eq!(flat(&[]), []);
    }

    proptest! {
        #[test]
        fn every_port_has_the_rule_of_best_precedence(
            parts in prop::collection::vec((0u8..3, 0u16..40, 0u16..20, 1u32..6), 0..12)
        ) {
            let segments: Vec<_> =
                parts.iter().map(|&(rank, low, len, rule)| segment(rank, low, low + len, rule)).collect();
            let flat = flatten(segments.iter().copied());
            prop_assert!(flat.windows(2).all(|w| w[0].high < w[1].low));
            for port in 0..=64 {
                let holds = |r: &Range| r.low <= port && port <= r.high;
                let best = segments.iter().filter(|s| holds(&s.range)).map(|s| (s.rank, s.range.rule)).min();
                let found = flat.iter().find(|r| holds(r)).map(|r| r.rule);
                prop_assert_eq!(found, best.map(|(_, rule)| rule));
            }
        }
    }
}
