//! One session between two end nodes: two keys, a counter, a replay window.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{handshake::Keys, replay::Window};
use crate::{Micros, frame::Header, reason::Refusal};

/// Bytes by which sealing lengthens a packet.
pub(crate) const TAG_BYTES: usize = 16;
/// A session is replaced after this time, so that a key that leaks opens little.
pub(crate) const REKEY_AFTER_US: Micros = 120_000_000;
/// Past this, it is used no more: its replacement had a minute to come.
pub(crate) const EXPIRES_AFTER_US: Micros = 180_000_000;
/// A session is replaced after so many packets: far below 2^32.5 full ones, where AES-GCM's advantage
/// bounds begin to matter (RFC 9001, appendix B.1.1).
pub(crate) const REKEY_AFTER_PACKETS: u64 = 1 << 28;

/// One session.
pub(crate) struct Session {
    remote_index: u32,
    send: LessSafeKey,
    receive: LessSafeKey,
    next_counter: u64,
    window: Window,
    made: Micros,
    /// Whether the other end is known to have it: the one who answered learns that by the first packet.
    pub(super) confirmed: bool,
}

impl Session {
    pub(super) fn new(keys: &Keys, confirmed: bool, now: Micros) -> Result<Self, Refusal> {
        let key = |bytes: &[u8; 32]| {
            UnboundKey::new(&AES_256_GCM, bytes).map(LessSafeKey::new).map_err(|_| Refusal::BadHandshake)
        };
        Ok(Self {
            remote_index: keys.remote_index,
            send: key(&keys.send)?,
            receive: key(&keys.receive)?,
            next_counter: 1,
            window: Window::default(),
            made: now,
            confirmed,
        })
    }

    /// Whether it should be replaced.
    pub(super) const fn is_old(&self, now: Micros) -> bool {
        now >= self.made.saturating_add(REKEY_AFTER_US) || self.next_counter >= REKEY_AFTER_PACKETS
    }

    /// Whether it is used no more.
    pub(super) const fn is_over(&self, now: Micros) -> bool {
        now >= self.made.saturating_add(EXPIRES_AFTER_US) || self.next_counter >= 2 * REKEY_AFTER_PACKETS
    }

    /// Seals a packet: a whole frame, whose header is told session and counter.
    pub(super) fn seal(&mut self, header: &mut Header, packet: &[u8]) -> Result<Vec<u8>, Refusal> {
        (header.session, header.counter) = (self.remote_index, self.next_counter);
        self.next_counter += 1;
        let mut frame = Vec::with_capacity(header.len() + packet.len() + TAG_BYTES);
        header.encode(&mut frame);
        let start = frame.len();
        frame.extend_from_slice(packet);
        let associated = Aad::from(header.associated());
        let tag = self
            .send
            .seal_in_place_separate_tag(nonce(header.counter), associated, &mut frame[start..])
            .map_err(|_| Refusal::Altered)?;
        frame.extend_from_slice(tag.as_ref());
        Ok(frame)
    }

    /// Opens what the other end sealed.
    pub(super) fn open(&mut self, header: &Header, sealed: &[u8]) -> Result<Vec<u8>, Refusal> {
        if !self.window.may_be_new(header.counter) {
            return Err(Refusal::Replayed);
        }
        let mut packet = sealed.to_vec();
        let associated = Aad::from(header.associated());
        let len = self
            .receive
            .open_in_place(nonce(header.counter), associated, &mut packet)
            .map_err(|_| Refusal::Altered)?
            .len();
        packet.truncate(len);
        // Noted only now: a forged counter must not shut out genuine ones.
        if self.window.take(header.counter) { Ok(packet) } else { Err(Refusal::Replayed) }
    }
}

/// Each counter is used once under each key, and each direction has its own key.
fn nonce(counter: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}
