//! Values of any size as runs of small parts.
//!
//! sled moves a page that outgrows a quarter of a segment into a file of its own (a *blob*), which no
//! sync of the database file covers. A leaf page holds at most 17 values before it splits, so parts of
//! [`PART_BYTES`] keep every page well under [`super::sled_engine::SEGMENT_BYTES`] / 4 and the blob
//! directory empty, whatever is stored.

use super::Write;

/// Largest value in the engine.
pub(crate) const PART_BYTES: usize = 8 * 1024;
/// The first part begins with the length of the whole.
const LENGTH_BYTES: usize = 8;
/// `number` and part number, both big-endian so that they sort.
pub(crate) const KEY_BYTES: usize = 12;

/// Key of a part.
pub(crate) fn key(number: u64, part: u32) -> Vec<u8> {
    [&number.to_be_bytes()[..], &part.to_be_bytes()[..]].concat()
}

/// The number that a key belongs to.
pub(crate) fn number_of(key: &[u8]) -> Option<u64> {
    let number = key.get(..8).filter(|_| key.len() == KEY_BYTES)?;
    Some(u64::from_be_bytes(number.try_into().ok()?))
}

/// The writes that store `bytes` under `number`.
pub(crate) fn split(number: u64, bytes: &[u8]) -> Vec<Write> {
    let framed = [&(bytes.len() as u64).to_be_bytes()[..], bytes].concat();
    let parts = framed.chunks(PART_BYTES).zip(0_u32..);
    parts.map(|(part, n)| Write::Put(key(number, n), part.to_vec())).collect()
}

/// Puts together the parts of one number; says what is missing if something is.
pub(crate) fn join<'a>(number: u64, parts: impl Iterator<Item = &'a super::Pair>) -> Result<Vec<u8>, String> {
    let mut framed = Vec::new();
    for ((key_found, part), n) in parts.zip(0_u32..) {
        if *key_found != key(number, n) {
            return Err(format!("part {n} of {number} is missing"));
        }
        framed.extend_from_slice(part);
    }
    let Some((length, bytes)) = framed.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(format!("{number} is missing"));
    };
    if u64::from_be_bytes(*length) != bytes.len() as u64 {
        return Err(format!("the last parts of {number} are missing"));
    }
    Ok(bytes.to_vec())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(writes: Vec<Write>) -> Vec<super::super::Pair> {
        let pair = |w| match w {
            Write::Put(k, v) => (k, v),
            Write::Delete(_) => unreachable!("split only puts"),
        };
        writes.into_iter().map(pair).collect()
    }

    proptest! {
        #[test]
        fn what_is_split_is_joined(number: u64, size in 0_usize..40_000) {
            let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).expect("below 251")).collect();
            let parts = pairs(split(number, &bytes));
            prop_assert!(parts.iter().all(|(_, v)| v.len() <= PART_BYTES));
            prop_assert_eq!(join(number, parts.iter()), Ok(bytes));
        }
    }

    #[test]
    fn a_missing_part_is_noticed() {
        let parts = pairs(split(7, &vec![1; 3 * PART_BYTES]));
        for gone in 0..parts.len() {
            let rest: Vec<_> = parts.iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, p)| p).collect();
            assert!(join(7, rest.into_iter()).is_err(), "without part {gone}");
        }
        assert!(join(7, [].into_iter()).is_err());
    }
}
