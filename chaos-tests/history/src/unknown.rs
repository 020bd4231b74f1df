//! Settles operations whose outcome nobody told, before the search.
//!
//! Such an operation may take effect at any later time or never, so it stays under way for ever, and a few
//! dozen of them make a search hopeless. But each element is written by one operation only. So:
//!
//! * What a read saw was written, and before that read returned: the operation is like one that returned
//!   then, without having told its revision.
//! * What no read ever saw need not have happened. If an order with it explains the history, so does the
//!   same order without it: until the next write no read saw the key, or it would have seen the element, and
//!   without it the other operations find a revision that is at most lower, which they demand no more of.
//!
//! Both hold in both directions: nothing is accepted or refused that would not be without it.

use std::collections::BTreeMap;

use crate::{
    operation::{Element, Operation, Outcome},
    search::Span,
};

/// The operations of one key as the search takes them. Those that tell nothing are left out.
#[must_use]
pub fn settle<'a>(operations: &[&'a Operation]) -> Vec<Span<'a>> {
    let mut first_seen: BTreeMap<Element, u64> = BTreeMap::new();
    for read in operations {
        for element in read.saw() {
            let at = first_seen.entry(*element).or_insert(read.end_us);
            *at = read.end_us.min(*at);
        }
    }
    let settled = |operation: &&'a Operation| {
        if !operation.counts() {
            return None;
        }
        let end_us = match operation.outcome {
            Outcome::Unknown => *first_seen.get(&operation.action.element()?)?,
            _ => operation.end_us,
        };
        Some(Span { operation, end_us: Some(end_us) })
    };
    operations.iter().filter_map(settled).collect()
}

/// The same without settling: for comparison.
#[must_use]
pub fn unsettled<'a>(operations: &[&'a Operation]) -> Vec<Span<'a>> {
    let span = |operation: &&'a Operation| {
        let end_us = (operation.outcome != Outcome::Unknown).then_some(operation.end_us);
        operation.counts().then_some(Span { operation, end_us })
    };
    operations.iter().filter_map(span).collect()
}
