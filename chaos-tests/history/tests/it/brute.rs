//! Every order of a small history, tried one by one: slow, and too simple to be wrong.

use selvedge_history::{Cell, Operation, Outcome};

/// Whether some order explains the operations of one key. An unknown outcome may be anywhere after its start,
/// or nowhere.
pub(crate) fn has_order(history: &[Operation]) -> bool {
    let counting: Vec<_> = history.iter().filter(|o| o.counts()).collect();
    extend(&counting, &mut vec![false; counting.len()], &Cell::default())
}

fn extend(all: &[&Operation], placed: &mut Vec<bool>, cell: &Cell) -> bool {
    let is_known = |n: usize| all[n].outcome != Outcome::Unknown;
    if (0..all.len()).all(|n| placed[n] || !is_known(n)) {
        return true;
    }
    for next in 0..all.len() {
        // It cannot come before what was over when it began.
        let too_early =
            |n: usize| !placed[n] && n != next && is_known(n) && all[n].end_us < all[next].start_us;
        if placed[next] || (0..all.len()).any(too_early) {
            continue;
        }
        let Some(after) = cell.after(all[next]) else { continue };
        placed[next] = true;
        let found = extend(all, placed, &after);
        placed[next] = false;
        if found {
            return true;
        }
    }
    false
}
