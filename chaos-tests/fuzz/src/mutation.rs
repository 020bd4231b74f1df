//! Changes of some bytes.

use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
};

/// What has a meaning in YAML, JSON, TOML or base64 breaks more than any byte does.
const TELLING: &[u8] = b":-[]{},&*!|>'\"#%@=`\n\t \\0~?A_/";
/// Numbers at which lengths, counts and varints go wrong.
const LIMITS: &[u8] = &[0, 1, 0x7f, 0x80, 0xfe, 0xff];

/// One change of some bytes.
#[derive(Debug, Clone)]
pub(crate) enum Mutation {
    Set(Index, u8),
    Flip(Index, u8),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Copy(Index, Index, usize),
    Truncate(Index),
}

pub(crate) fn mutation() -> impl Strategy<Value = Mutation> {
    let byte = || prop_oneof![2 => select(TELLING), 1 => select(LIMITS), 1 => any::<u8>()];
    prop_oneof![
        (any::<Index>(), byte()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), 0..8_u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        (any::<Index>(), vec(byte(), 1..20)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), 1..40_usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (any::<Index>(), any::<Index>(), 1..400_usize).prop_map(|(from, to, n)| Mutation::Copy(from, to, n)),
        any::<Index>().prop_map(Mutation::Truncate),
    ]
}

pub(crate) fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let at = |index: &Index, bytes: &Vec<u8>| index.index(bytes.len() + 1);
    match mutation {
        Mutation::Set(index, byte) => {
            let at = at(index, bytes);
            if let Some(place) = bytes.get_mut(at) {
                *place = *byte;
            }
        }
        Mutation::Flip(index, bit) => {
            let at = at(index, bytes);
            if let Some(place) = bytes.get_mut(at) {
                *place ^= 1 << bit;
            }
        }
        Mutation::Insert(index, new) => {
            let at = at(index, bytes);
            bytes.splice(at..at, new.iter().copied());
        }
        Mutation::Remove(index, count) => {
            let at = at(index, bytes);
            bytes.drain(at..(at + count).min(bytes.len()));
        }
        Mutation::Copy(from, to, count) => {
            let (from, to) = (at(from, bytes), at(to, bytes));
            let part = bytes[from..(from + count).min(bytes.len())].to_vec();
            bytes.splice(to..to, part);
        }
        Mutation::Truncate(index) => bytes.truncate(at(index, bytes)),
    }
}
