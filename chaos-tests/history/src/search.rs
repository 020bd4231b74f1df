//! The search for an order that explains the operations on one key.
//!
//! It goes through the calls and returns in the order of time and keeps all configurations that are
//! possible: which of the operations under way have taken effect, and what the key then holds. Nothing takes
//! effect before it must: only when an operation returns is it put into the order, after any of the others
//! that are under way (Lowe's just-in-time linearization). Where the last configuration dies, no order
//! explains the history, and the operation that returned is where it shows.
//!
//! Configurations are remembered by what they are, not by how they came about, so the work is exponential
//! only in the operations that are under way at the same time.

use std::collections::BTreeSet;

use crate::{cell::Cell, operation::Operation};

/// Most operations that may be under way at once on one key.
pub const MAX_OPEN: usize = 64;
/// Most configurations that are kept at once.
pub const MAX_CONFIGURATIONS: usize = 200_000;
/// Most steps of one search.
pub const MAX_STEPS: usize = 20_000_000;

/// Where a search gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most configurations at once.
    pub configurations: usize,
    /// Most steps.
    pub steps: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { configurations: MAX_CONFIGURATIONS, steps: MAX_STEPS }
    }
}

/// An operation for the search.
#[derive(Debug, Clone, Copy)]
pub struct Span<'a> {
    /// What was asked and told.
    pub operation: &'a Operation,
    /// When it had taken effect at the latest; none when that may be at any time or never.
    pub end_us: Option<u64>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// There is an order.
    Order,
    /// There is none.
    NoOrder {
        /// The index of the operation at whose return that shows.
        at: usize,
        /// What the key may have held by then.
        possible: Vec<Cell>,
    },
    /// A bound ended the search.
    GaveUp {
        /// Which.
        why: &'static str,
    },
}

/// A possible state in the middle of a history. The set has a bit for each place of an operation under way.
type Configuration = (u64, Cell);

/// Searches for an order of the operations of one key.
#[must_use]
pub fn search(spans: &[Span<'_>], bounds: Bounds) -> Found {
    let mut open = Open::default();
    let mut steps = 0;
    let mut possible: BTreeSet<Configuration> = BTreeSet::from([(0, Cell::default())]);
    for (_, is_return, index) in events(spans) {
        if !is_return {
            if open.call(index).is_none() {
                return Found::GaveUp { why: "too many operations are under way at once" };
            }
            continue;
        }
        let Some(place) = open.place_of(index) else { continue };
        let before = std::mem::take(&mut possible);
        match returned(spans, &open, before, place, bounds, &mut steps) {
            Ok(Next::Some(after)) => possible = after,
            Ok(Next::None(cells)) => return Found::NoOrder { at: index, possible: cells },
            Err(why) => return Found::GaveUp { why },
        }
        open.free(place);
    }
    Found::Order
}

/// Calls and returns in the order of time. What happens in the same microsecond overlaps: calls come first.
fn events(spans: &[Span<'_>]) -> Vec<(u64, bool, usize)> {
    let calls = spans.iter().enumerate().map(|(n, span)| (span.operation.start_us, false, n));
    let ends = spans.iter().enumerate().filter_map(|(n, span)| Some((span.end_us?, true, n)));
    let mut all: Vec<_> = calls.chain(ends).collect();
    all.sort_unstable();
    all
}

enum Next {
    Some(BTreeSet<Configuration>),
    None(Vec<Cell>),
}

/// Every configuration in which the operation at `place`, which returns, has taken effect.
fn returned(
    spans: &[Span<'_>],
    open: &Open,
    before: BTreeSet<Configuration>,
    place: usize,
    bounds: Bounds,
    steps: &mut usize,
) -> Result<Next, &'static str> {
    let bit = 1_u64 << place;
    let mut after = BTreeSet::new();
    let mut seen = before.clone();
    let mut work: Vec<Configuration> = before.into_iter().collect();
    while let Some((done, cell)) = work.pop() {
        if done & bit != 0 {
            after.insert((done & !bit, cell));
            continue;
        }
        for (other, index) in open.places() {
            let other_bit = 1_u64 << other;
            if done & other_bit != 0 {
                continue;
            }
            *steps += 1;
            let Some(next) = cell.after(spans[index].operation) else { continue };
            let next = (done | other_bit, next);
            if seen.insert(next.clone()) {
                work.push(next);
            }
        }
        if *steps > bounds.steps {
            return Err("the search took too many steps");
        }
        if seen.len() > bounds.configurations {
            return Err("too many configurations are possible at once");
        }
    }
    if after.is_empty() {
        let cells: BTreeSet<Cell> = seen.into_iter().map(|(_, cell)| cell).collect();
        return Ok(Next::None(cells.into_iter().collect()));
    }
    Ok(Next::Some(after))
}

/// The operations under way, each at its place.
#[derive(Debug, Default)]
struct Open(Vec<Option<usize>>);

impl Open {
    /// Gives an operation a place; none when there is no room.
    fn call(&mut self, index: usize) -> Option<usize> {
        if let Some(free) = self.0.iter().position(Option::is_none) {
            self.0[free] = Some(index);
            return Some(free);
        }
        (self.0.len() < MAX_OPEN).then(|| {
            self.0.push(Some(index));
            self.0.len() - 1
        })
    }

    fn place_of(&self, index: usize) -> Option<usize> {
        self.0.iter().position(|at| *at == Some(index))
    }

    fn free(&mut self, place: usize) {
        self.0[place] = None;
    }

    fn places(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().enumerate().filter_map(|(place, at)| Some((place, (*at)?)))
    }
}
