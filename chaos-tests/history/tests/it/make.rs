//! Histories written down shortly.

use selvedge_history::{Action, Element, Operation, Outcome, Revision};

/// An operation on key `k` of one client, from and to these microseconds.
pub(crate) fn operation(
    client: u32,
    start_us: u64,
    end_us: u64,
    action: Action,
    outcome: Outcome,
) -> Operation {
    let (node, key) = (format!("n{client}"), "k".to_owned());
    Operation { client, node, key, start_us, end_us, action, outcome }
}

pub(crate) fn read(client: u32, start: u64, end: u64, elements: &[Element], revision: Revision) -> Operation {
    let outcome = Outcome::Value { elements: elements.to_vec(), revision: Some(revision) };
    operation(client, start, end, Action::Read, outcome)
}

pub(crate) fn done(client: u32, start: u64, end: u64, action: Action, revision: Revision) -> Operation {
    operation(client, start, end, action, Outcome::Done { revision })
}

pub(crate) fn unknown(client: u32, start: u64, action: Action) -> Operation {
    operation(client, start, start, action, Outcome::Unknown)
}

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
