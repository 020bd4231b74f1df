//! The handshake that makes a session: Noise KK (both keys are known from admission) with X25519,
//! ChaCha20-Poly1305 and SHA-256, one round trip. What carries packets afterwards is AES-256-GCM under
//! the two keys into which the handshake splits.
//!
//! ```text
//! initiator → responder   1, noise(index of the initiator)
//! responder → initiator   2, index of the initiator, noise(index of the responder)
//! ```

use selvedge_fabric::key::{NodeId, PublicKey};
use snow::{Builder, HandshakeState, params::NoiseParams};
use zeroize::Zeroizing;

use crate::reason::Refusal;

const PATTERN: &str = "Noise_KK_25519_ChaChaPoly_SHA256";
/// Both ends mix it in, with their ids: a message for another protocol or pair opens nothing.
const PROLOGUE: &[u8] = b"selvedge overlay session 1";
const TAG_FIRST: u8 = 1;
const TAG_SECOND: u8 = 2;
/// An ephemeral key, an index and an authentication tag.
const NOISE_BYTES: usize = 32 + 4 + 16;
const FIRST_BYTES: usize = 1 + NOISE_BYTES;
const SECOND_BYTES: usize = 1 + 4 + NOISE_BYTES;

/// A secret that is wiped when it is dropped.
type Key = Zeroizing<[u8; 32]>;

/// The two ends of a session, as one of them sees them.
pub(crate) struct Ends<'a> {
    pub(crate) me: NodeId,
    pub(crate) secret: &'a [u8; 32],
    pub(crate) peer: NodeId,
    pub(crate) peer_key: &'a PublicKey,
}

/// What a finished handshake gives: the other's index, and a key for each direction.
pub(crate) struct Keys {
    pub(crate) remote_index: u32,
    pub(crate) send: Key,
    pub(crate) receive: Key,
}

/// The first message, and what is needed to read the answer.
pub(crate) fn begin(ends: &Ends<'_>, index: u32) -> Result<(HandshakeState, Vec<u8>), Refusal> {
    let mut state = state(ends, true)?;
    let mut message = vec![0; FIRST_BYTES];
    message[0] = TAG_FIRST;
    write(&mut state, index, &mut message[1..])?;
    Ok((state, message))
}

/// Reads a first message and writes the answer.
pub(crate) fn answer(ends: &Ends<'_>, message: &[u8], index: u32) -> Result<(Keys, Vec<u8>), Refusal> {
    let mut state = state(ends, false)?;
    let remote_index = read(&mut state, &message[1..])?;
    let mut reply = vec![0; SECOND_BYTES];
    reply[0] = TAG_SECOND;
    reply[1..5].copy_from_slice(&remote_index.to_be_bytes());
    write(&mut state, index, &mut reply[5..])?;
    let (to_responder, to_initiator) = split(&mut state)?;
    Ok((Keys { remote_index, send: to_initiator, receive: to_responder }, reply))
}

/// Reads the answer.
pub(crate) fn finish(mut state: HandshakeState, message: &[u8]) -> Result<Keys, Refusal> {
    let remote_index = read(&mut state, &message[5..])?;
    let (to_responder, to_initiator) = split(&mut state)?;
    Ok(Keys { remote_index, send: to_responder, receive: to_initiator })
}

/// Which message it is: a first one, or the answer for one of our indices.
pub(crate) enum Message {
    First,
    Second { index: u32 },
}

pub(crate) fn kind_of(message: &[u8]) -> Result<Message, Refusal> {
    match (message.first(), message.len()) {
        (Some(&TAG_FIRST), FIRST_BYTES) => Ok(Message::First),
        (Some(&TAG_SECOND), SECOND_BYTES) => {
            let index = message[1..5].try_into().map_err(|_| Refusal::Malformed)?;
            Ok(Message::Second { index: u32::from_be_bytes(index) })
        }
        _ => Err(Refusal::Malformed),
    }
}

fn state(ends: &Ends<'_>, initiator: bool) -> Result<HandshakeState, Refusal> {
    let (from, to) = if initiator { (ends.me, ends.peer) } else { (ends.peer, ends.me) };
    let prologue = [PROLOGUE, &from.0.to_be_bytes(), &to.0.to_be_bytes()].concat();
    let params: NoiseParams = PATTERN.parse().map_err(bad)?;
    let builder = Builder::new(params)
        .prologue(&prologue)
        .and_then(|b| b.local_private_key(ends.secret))
        .and_then(|b| b.remote_public_key(&ends.peer_key.0))
        .map_err(bad)?;
    if initiator { builder.build_initiator() } else { builder.build_responder() }.map_err(bad)
}

fn write(state: &mut HandshakeState, index: u32, out: &mut [u8]) -> Result<(), Refusal> {
    state.write_message(&index.to_be_bytes(), out).map(|_| ()).map_err(bad)
}

fn read(state: &mut HandshakeState, message: &[u8]) -> Result<u32, Refusal> {
    let mut payload = [0; NOISE_BYTES];
    let len = state.read_message(message, &mut payload).map_err(bad)?;
    payload[..len].try_into().map(u32::from_be_bytes).map_err(|_| Refusal::BadHandshake)
}

/// The two keys. Keys of low order need no care: a node that was admitted with one gives away its own
/// secrets and nobody else's, and an ephemeral one leaves what the admitted keys prove.
fn split(state: &mut HandshakeState) -> Result<(Key, Key), Refusal> {
    if !state.is_handshake_finished() {
        return Err(Refusal::BadHandshake);
    }
    let (first, second) = state.dangerously_get_raw_split();
    Ok((Zeroizing::new(first), Zeroizing::new(second)))
}

fn bad(_: snow::Error) -> Refusal {
    Refusal::BadHandshake
}
