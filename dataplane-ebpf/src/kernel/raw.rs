//! Layouts of the maps as aya wants to see them.
#![allow(unsafe_code, reason = "aya asks for a promise about layouts")]

use selvedge_abi::{
    Address, Attachment, EdgeKey, FlowEntry, FlowKey, Groups,
    layout::{EdgeCounterKey, EdgeCounters, EndpointCounters, RangeList},
};

/// A type of [`selvedge_abi`] in a map.
#[derive(Debug, Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Raw<T>(pub(crate) T);

/// Types of which every byte is meant: `repr(C)`, without padding, any bits valid.
///
/// # Safety
/// The above.
pub(crate) unsafe trait Layout: Copy + 'static {}

// SAFETY: `Layout` promises what `Pod` asks.
unsafe impl<T: Layout> aya::Pod for Raw<T> {}

/// The key of a network in a trie of prefixes (`struct bpf_lpm_trie_key_u8`).
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(super) struct Prefix {
    /// How many bits count.
    pub(super) bits: u32,
    /// The network.
    pub(super) address: Address,
}

macro_rules! layouts {
    ($($name:ty),+) => {
        $(
            // SAFETY: `repr(C)` over integers, without padding, checked by the test below.
            unsafe impl Layout for $name {}
        )+
    };
}

layouts!(
    u32,
    Prefix,
    FlowKey,
    FlowEntry,
    Address,
    Attachment,
    EdgeKey,
    Groups,
    EdgeCounterKey,
    EdgeCounters,
    EndpointCounters,
    RangeList
);

#[cfg(test)]
mod tests {
    use selvedge_abi::{
        FlowEntry, FlowKey, Range,
        layout::{Control, EventRecord},
    };

    use super::*;

    /// The sum of the fields: a difference would be padding, which a map would take for part of a key.
    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<Address>(), 16);
        assert_eq!(size_of::<Attachment>(), 4 * 16 + 4 + 4 + 2 + 2);
        assert_eq!(size_of::<Prefix>(), 4 + 16);
        assert_eq!(size_of::<EdgeKey>(), 12);
        assert_eq!(size_of::<Groups>(), 8);
        assert_eq!(size_of::<Range>(), 2 + 2 + 1 + 1 + 2 + 4);
        assert_eq!(size_of::<FlowKey>(), 16 + 2 + 2 + 1 + 1 + 2);
        assert_eq!(size_of::<FlowEntry>(), 8 + 4 + 4 + 4 + 4);
        assert_eq!(size_of::<EdgeCounterKey>(), 8);
        assert_eq!(size_of::<EdgeCounters>(), 24);
        assert_eq!(size_of::<EndpointCounters>(), 80);
        assert_eq!(size_of::<Control>(), 8 + 16 + 8);
        assert_eq!(size_of::<EventRecord>(), 8 + 8 + 16 + 16 + 5 * 4 + 2 * 2 + 5 + 3);
    }
}
