//! What is wrong with a history, for people.

use std::{collections::BTreeSet, fmt};

use crate::{
    cell::Cell,
    operation::{Element, Operation, Outcome},
    revisions::Contradiction,
    search::{Bounds, Found, search},
    timeline,
    unknown::settle,
};

/// Most states that a violation lists.
const MAX_POSSIBLE: usize = 6;

/// What contradicts what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// The operations on one key have no order.
    NoOrder {
        /// What the key can have held when the last of them returned.
        possible: Vec<Cell>,
    },
    /// Revisions do not agree with time.
    Revisions(&'static str),
}

/// Operations that no store that does one thing after the other can have answered so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What contradicts what.
    pub kind: Kind,
    /// As few operations as are needed for that, in the order of their starts.
    pub window: Vec<Operation>,
    /// Operations that were refused, with the promise that they changed nothing, and whose element was seen.
    pub broken_promises: Vec<Operation>,
    /// Which of the window shows it.
    pub culprit: usize,
}

impl Violation {
    /// Of one key whose operations have no order.
    pub(crate) fn of_key(operations: &[&Operation], bounds: Bounds) -> Self {
        let mut window: Vec<&Operation> = until_it_shows(operations, bounds);
        shrink(&mut window, bounds);
        window.sort_by_key(|o| (o.start_us, o.end_us));
        let (spans, mut culprit, mut possible) = (settle(&window), 0, Vec::new());
        if let Found::NoOrder { at, possible: cells } = search(&spans, bounds) {
            culprit = window.iter().position(|o| std::ptr::eq(*o, spans[at].operation)).unwrap_or(0);
            possible = cells;
        }
        let seen: BTreeSet<Element> = window.iter().flat_map(|o| o.saw().iter().copied()).collect();
        let broken = |o: &&&Operation| {
            o.outcome == Outcome::Refused && o.action.element().is_some_and(|e| seen.contains(&e))
        };
        let broken_promises = operations.iter().filter(broken).map(|o| (*o).clone()).collect();
        let window = window.into_iter().cloned().collect();
        Self { kind: Kind::NoOrder { possible }, window, broken_promises, culprit }
    }

    pub(crate) fn of_revisions(contradiction: &Contradiction<'_>) -> Self {
        let Contradiction { earlier, later, what } = contradiction;
        let mut window = vec![(*earlier).clone()];
        if earlier != later {
            window.push((*later).clone());
        }
        let culprit = window.len() - 1;
        Self { kind: Kind::Revisions(what), window, broken_promises: Vec::new(), culprit }
    }
}

/// What counts and was there when the violation showed.
fn until_it_shows<'a>(operations: &[&'a Operation], bounds: Bounds) -> Vec<&'a Operation> {
    let counting: Vec<_> = operations.iter().copied().filter(|o| o.counts()).collect();
    let spans = settle(&counting);
    let Found::NoOrder { at, .. } = search(&spans, bounds) else { return counting };
    let Some(end_us) = spans[at].end_us else { return counting };
    let is_later = |_, o: &Operation| {
        let is_open = o.outcome == Outcome::Unknown;
        o.start_us > end_us || (o.end_us > end_us && !is_open && !o.changed())
    };
    let window = without(&counting, is_later);
    if fails(&window, bounds) { window } else { counting }
}

fn fails(operations: &[&Operation], bounds: Bounds) -> bool {
    matches!(search(&settle(operations), bounds), Found::NoOrder { .. })
}

/// Leaves out what is not needed, in ever smaller parts.
fn shrink(window: &mut Vec<&Operation>, bounds: Bounds) {
    let mut part = window.len().div_ceil(2);
    while part > 0 {
        let mut from = 0;
        while from < window.len() {
            let without = without(window, |n, _| (from..from + part).contains(&n));
            if without.len() < window.len() && fails(&without, bounds) {
                *window = without;
            } else {
                from += part;
            }
        }
        part = if part == 1 { 0 } else { part.div_ceil(2) };
    }
}

/// The window without some of it, but with the changes that the rest saw. A history that has an order still
/// has one without reads, and without changes whose element nobody saw; so what is left has none in earnest.
fn without<'a>(window: &[&'a Operation], out: impl Fn(usize, &Operation) -> bool) -> Vec<&'a Operation> {
    let rest = || window.iter().enumerate().filter(|(n, o)| !out(*n, o));
    let seen: BTreeSet<Element> = rest().flat_map(|(_, o)| o.saw().iter().copied()).collect();
    let needed = |o: &Operation| o.action.element().is_some_and(|e| seen.contains(&e));
    let all = window.iter().enumerate();
    all.filter(|(n, o)| !out(*n, o) || needed(o)).map(|(_, o)| *o).collect()
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(culprit) = self.window.get(self.culprit) else { return write!(f, "an empty window") };
        match &self.kind {
            Kind::NoOrder { possible } => {
                writeln!(f, "{}: no order of these operations explains what was told:", culprit.key)?;
                timeline::draw(f, &self.window, self.culprit)?;
                writeln!(f, "When the marked one returned, the key can have held:")?;
                for cell in possible.iter().take(MAX_POSSIBLE) {
                    writeln!(f, "  {:?}, at r{} or later", cell.elements, cell.revision)?;
                }
                if possible.len() > MAX_POSSIBLE {
                    writeln!(f, "  … or one of {} more", possible.len() - MAX_POSSIBLE)?;
                }
            }
            Kind::Revisions(what) => {
                writeln!(f, "revisions contradict time: {what}:")?;
                timeline::draw(f, &self.window, self.culprit)?;
            }
        }
        for broken in &self.broken_promises {
            let (client, node) = (broken.client, &broken.node);
            writeln!(
                f,
                "Refused with the promise that nothing changed, and yet seen: c{client} at {node}: {broken}"
            )?;
        }
        Ok(())
    }
}
