//! Datagrams of a link: whole frames, halves of frames, probes.
//!
//! A frame that does not fit into one datagram is sent as two. So an underlay with an MTU of 1280, whose
//! first datagrams hold about 1,160 bytes, carries packets of 1280 bytes from the first one on, and no
//! path has to be found out first. Each link joins what it split; the next one may be wider.

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};

use crate::{Micros, reason::Refusal};

/// Frames of one neighbour of which one half is there. Halves are sent back to back, so more than a few
/// means loss, and then the oldest one is given up.
pub(crate) const MAX_HALVES: usize = 64;
/// How long the other half may take.
pub(crate) const HALF_TIMEOUT_US: Micros = 1_000_000;

const TAG_FRAME: u8 = 1;
const TAG_HALF: u8 = 2;
const TAG_PROBE: u8 = 3;
const TAG_ECHO: u8 = 4;
/// Bytes in front of a whole frame.
const FRAME_PREFIX_BYTES: usize = 1;
/// Bytes in front of half a frame: tag, number of the frame, which half.
const HALF_PREFIX_BYTES: usize = 6;

/// A datagram, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Datagram {
    /// A whole frame.
    Frame(Bytes),
    /// Half a frame.
    Half { id: u32, second: bool, part: Bytes },
    /// Answer me.
    Probe(u32),
    /// The answer.
    Echo(u32),
}

impl Datagram {
    pub(crate) fn decode(bytes: &Bytes) -> Result<Self, Refusal> {
        let number = || bytes.get(1..5)?.try_into().ok().map(u32::from_be_bytes);
        let datagram = match (bytes.first(), bytes.len()) {
            (Some(&TAG_FRAME), _) => Some(Self::Frame(bytes.slice(FRAME_PREFIX_BYTES..))),
            (Some(&TAG_HALF), HALF_PREFIX_BYTES..) if bytes[5] <= 1 => {
                let part = bytes.slice(HALF_PREFIX_BYTES..);
                number().map(|id| Self::Half { id, second: bytes[5] == 1, part })
            }
            (Some(&TAG_PROBE), 5) => number().map(Self::Probe),
            (Some(&TAG_ECHO), 5) => number().map(Self::Echo),
            _ => None,
        };
        datagram.ok_or(Refusal::Malformed)
    }

    pub(crate) fn probe(number: u32) -> Bytes {
        numbered(TAG_PROBE, number)
    }

    pub(crate) fn echo(number: u32) -> Bytes {
        numbered(TAG_ECHO, number)
    }
}

/// Whether a datagram tells whether a link lives, and must not wait behind what is to be carried.
pub(crate) fn is_urgent(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(&(TAG_PROBE | TAG_ECHO)))
}

fn numbered(tag: u8, number: u32) -> Bytes {
    let mut bytes = BytesMut::with_capacity(5);
    bytes.put_u8(tag);
    bytes.put_u32(number);
    bytes.freeze()
}

/// The longest frame that two datagrams of `max_datagram` bytes hold.
pub(crate) const fn max_frame_bytes(max_datagram: usize) -> usize {
    2 * max_datagram.saturating_sub(HALF_PREFIX_BYTES)
}

/// A frame as one or two datagrams; `id` tells the halves of several frames apart.
pub(crate) fn split(frame: &[u8], max_datagram: usize, id: u32) -> Result<(Bytes, Option<Bytes>), Refusal> {
    if frame.len() + FRAME_PREFIX_BYTES <= max_datagram {
        let mut whole = BytesMut::with_capacity(FRAME_PREFIX_BYTES + frame.len());
        whole.put_u8(TAG_FRAME);
        whole.put_slice(frame);
        return Ok((whole.freeze(), None));
    }
    if frame.len() > max_frame_bytes(max_datagram) {
        return Err(Refusal::TooLarge);
    }
    let (first, second) = frame.split_at(frame.len().div_ceil(2));
    let half = |part: &[u8], which: u8| {
        let mut bytes = BytesMut::with_capacity(HALF_PREFIX_BYTES + part.len());
        bytes.put_u8(TAG_HALF);
        bytes.put_u32(id);
        bytes.put_u8(which);
        bytes.put_slice(part);
        bytes.freeze()
    };
    Ok((half(first, 0), Some(half(second, 1))))
}

/// Halves of frames of one neighbour that wait for the other half.
#[derive(Debug, Default)]
pub(crate) struct Halves {
    /// By number; which half it is, its bytes, and when it came.
    waiting: BTreeMap<u32, (bool, Bytes, Micros)>,
}

impl Halves {
    /// Takes a half and returns the frame when that completes it. `Err` counts one given up.
    pub(crate) fn join(
        &mut self,
        id: u32,
        second: bool,
        part: Bytes,
        now: Micros,
    ) -> Result<Option<Bytes>, Refusal> {
        match self.waiting.remove(&id) {
            Some((other_is_second, other, _)) if other_is_second != second => {
                let (first, last) = if second { (other, part) } else { (part, other) };
                return Ok(Some([first, last].concat().into()));
            }
            // The same half twice: the number came round again, and the older one is of no use.
            Some(_) | None => {}
        }
        self.waiting.insert(id, (second, part, now));
        if self.waiting.len() <= MAX_HALVES {
            return Ok(None);
        }
        let oldest = self.waiting.iter().min_by_key(|(_, (_, _, at))| *at).map(|(id, _)| *id);
        if let Some(oldest) = oldest {
            self.waiting.remove(&oldest);
        }
        Err(Refusal::HalfFrame)
    }

    /// Gives up those that waited too long and returns how many.
    pub(crate) fn expire(&mut self, now: Micros) -> usize {
        let before = self.waiting.len();
        self.waiting.retain(|_, (_, _, at)| now < at.saturating_add(HALF_TIMEOUT_US));
        before - self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn half(bytes: &Bytes) -> (u32, bool, Bytes) {
        match Datagram::decode(bytes).unwrap() {
            Datagram::Half { id, second, part } => (id, second, part),
            other => panic!("{other:?}"),
        }
    }

    proptest! {
        #[test]
        fn what_was_split_is_joined_in_either_order(len in 0_usize..3_000, max in 1_100_usize..1_500, swap: bool) {
            let frame: Vec<u8> = (0..len).map(|n| n as u8).collect();
            let mut halves = Halves::default();
            match split(&frame, max, 7) {
                Err(why) => {
                    prop_assert_eq!(why, Refusal::TooLarge);
                    prop_assert!(len > max_frame_bytes(max));
                }
                Ok((whole, None)) => {
                    prop_assert!(whole.len() <= max);
                    prop_assert_eq!(Datagram::decode(&whole), Ok(Datagram::Frame(frame.into())));
                }
                Ok((first, Some(second))) => {
                    prop_assert!(first.len() <= max && second.len() <= max);
                    let order = if swap { [&second, &first] } else { [&first, &second] };
                    let (id, which, part) = half(order[0]);
                    prop_assert_eq!(halves.join(id, which, part, 0), Ok(None));
                    let (id, which, part) = half(order[1]);
                    prop_assert_eq!(halves.join(id, which, part, 1), Ok(Some(frame.into())));
                    prop_assert!(halves.waiting.is_empty());
                }
            }
        }

        #[test]
        fn garbage_is_refused_or_read(bytes in proptest::collection::vec(any::<u8>(), 0..20)) {
            let _ = Datagram::decode(&bytes.into());
        }
    }

    #[test]
    fn a_packet_of_1280_bytes_fits_into_two_datagrams_of_a_narrow_underlay() {
        // QUIC packets of 1,200 bytes, the least there is, hold datagrams of 1,162.
        let sealed = crate::frame::MAX_HEADER_BYTES + 1_280 + crate::seal::TAG_BYTES;
        assert!(sealed <= max_frame_bytes(1_162), "{sealed}");
    }

    #[test]
    fn halves_are_bounded_in_number_and_time() {
        let mut halves = Halves::default();
        for id in 0..MAX_HALVES as u32 {
            assert_eq!(halves.join(id, false, Bytes::new(), u64::from(id)), Ok(None));
        }
        assert_eq!(halves.join(1_000, false, Bytes::new(), 1_000), Err(Refusal::HalfFrame));
        assert!(!halves.waiting.contains_key(&0), "the oldest one goes");
        assert_eq!(halves.join(1, false, Bytes::from_static(b"again"), 1_001), Ok(None));
        assert_eq!(halves.expire(HALF_TIMEOUT_US + 1_000), MAX_HALVES - 1);
        assert_eq!(halves.expire(HALF_TIMEOUT_US + 1_001), 1);
    }
}
