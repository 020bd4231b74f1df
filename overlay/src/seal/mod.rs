//! Secrecy between the two end nodes of a packet that goes over others.
//!
//! Nodes are admitted with an X25519 key. Two of them make a session by one round trip of Noise
//! ([`handshake`]), sealed with AES-256-GCM under explicit counters ([`session`]). Everything in the
//! frame's header but what changes on the way is authenticated with the packet, so a node on the way can
//! judge a frame and forward it, and neither read nor alter nor repeat it.
//!
//! Whoever needs a session and has none begins a handshake; a frame of a session that is not known makes
//! its receiver begin one, which is how a node that was restarted is found again. A session is used for
//! sending once the other end is known to have it, and the one before is kept for what is under way.

mod handshake;
mod replay;
mod session;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use selvedge_fabric::key::{NodeId, PublicKey};
use snow::HandshakeState;
use zeroize::Zeroizing;

use self::{
    handshake::{Ends, Message},
    session::Session,
};
use crate::{Micros, frame::Header, reason::Refusal};

pub(crate) use session::TAG_BYTES;

/// Nodes with which there are sessions; a fabric has at most 5,000 nodes.
pub(crate) const MAX_PEERS: usize = 8_192;
/// Sessions kept with one node: the newest, the one before, and one that is not confirmed yet.
const MAX_SESSIONS: usize = 3;
/// A first message is repeated after this time, while something waits for the session.
const RETRY_AFTER_US: Micros = 500_000;
/// First messages of one node are answered at most this often: each costs three scalar multiplications.
const MIN_ANSWER_INTERVAL_US: Micros = 50_000;

/// The sessions of this node.
pub(crate) struct Sessions {
    me: NodeId,
    secret: Zeroizing<[u8; 32]>,
    next_index: u32,
    peers: BTreeMap<NodeId, Peer>,
}

#[derive(Default)]
struct Peer {
    key: Option<PublicKey>,
    /// By our index, which grows.
    sessions: BTreeMap<u32, Session>,
    begun: Option<Begun>,
    answered: Option<Micros>,
}

/// A handshake that this node began.
struct Begun {
    index: u32,
    state: HandshakeState,
    at: Micros,
}

/// What sealing came to.
#[derive(Debug)]
pub(crate) enum Sealed {
    /// The frame; and, when the session should be replaced, a first message for its header.
    Frame { frame: Vec<u8>, first: Option<Vec<u8>> },
    /// There is no session; the first message of a handshake unless one is under way.
    NoSession { first: Option<Vec<u8>> },
}

/// What a handshake message came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Handshaken {
    /// Send this answer.
    Answer(Vec<u8>),
    /// There is a session now.
    Ready,
}

impl Sessions {
    /// No sessions. `first_index` should differ between starts, so that frames of before a restart are
    /// told from those after it.
    pub(crate) const fn new(me: NodeId, secret: Zeroizing<[u8; 32]>, first_index: u32) -> Self {
        Self { me, secret, next_index: first_index, peers: BTreeMap::new() }
    }

    /// Seals a packet for a node.
    pub(crate) fn seal(
        &mut self,
        key: &PublicKey,
        header: &mut Header,
        packet: &[u8],
        now: Micros,
    ) -> Result<Sealed, Refusal> {
        let to = header.destination_node;
        let peer = self.peer(to, key)?;
        let usable = |session: &&mut Session| session.confirmed && !session.is_over(now);
        let Some(session) = peer.sessions.values_mut().rev().find(usable) else {
            return Ok(Sealed::NoSession { first: self.begin(to, key, now)? });
        };
        let frame = session.seal(header, packet)?;
        let first = if session.is_old(now) { self.begin(to, key, now)? } else { None };
        Ok(Sealed::Frame { frame, first })
    }

    /// Opens a sealed payload.
    pub(crate) fn open(&mut self, header: &Header, sealed: &[u8], now: Micros) -> Result<Vec<u8>, Refusal> {
        let peer = self.peers.get_mut(&header.source_node).ok_or(Refusal::UnknownSession)?;
        let session = peer.sessions.get_mut(&header.session).filter(|session| !session.is_over(now));
        let session = session.ok_or(Refusal::UnknownSession)?;
        let packet = session.open(header, sealed)?;
        session.confirmed = true;
        Ok(packet)
    }

    /// The first message of a handshake, unless one was sent a moment ago.
    pub(crate) fn begin(
        &mut self,
        to: NodeId,
        key: &PublicKey,
        now: Micros,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let index = self.next_index;
        let peer = self.peer(to, key)?;
        if peer.begun.as_ref().is_some_and(|begun| now < begun.at.saturating_add(RETRY_AFTER_US)) {
            return Ok(None);
        }
        let ends = Ends { me: self.me, secret: &self.secret, peer: to, peer_key: key };
        let (state, message) = handshake::begin(&ends, index)?;
        self.next_index = index.wrapping_add(1);
        self.peer(to, key)?.begun = Some(Begun { index, state, at: now });
        Ok(Some(message))
    }

    /// Takes a handshake message of a node.
    pub(crate) fn handshake(
        &mut self,
        from: NodeId,
        key: &PublicKey,
        message: &[u8],
        now: Micros,
    ) -> Result<Handshaken, Refusal> {
        match handshake::kind_of(message)? {
            Message::First => self.answer(from, key, message, now),
            Message::Second { index } => self.finish(from, key, index, message, now),
        }
    }

    /// Forgets nodes that are gone, keys that were replaced, and what is over.
    pub(crate) fn retain(&mut self, key_of: impl Fn(NodeId) -> Option<PublicKey>, now: Micros) {
        self.peers.retain(|node, peer| {
            peer.sessions.retain(|_, session| !session.is_over(now));
            let key = key_of(*node);
            key.is_some() && key == peer.key && !(peer.sessions.is_empty() && peer.begun.is_none())
        });
    }

    fn answer(
        &mut self,
        from: NodeId,
        key: &PublicKey,
        message: &[u8],
        now: Micros,
    ) -> Result<Handshaken, Refusal> {
        let index = self.next_index;
        let peer = self.peer(from, key)?;
        if peer.answered.is_some_and(|at| now < at.saturating_add(MIN_ANSWER_INTERVAL_US)) {
            return Err(Refusal::HandshakeRate);
        }
        peer.answered = Some(now);
        let ends = Ends { me: self.me, secret: &self.secret, peer: from, peer_key: key };
        let (keys, reply) = handshake::answer(&ends, message, index)?;
        let session = Session::new(&keys, false, now)?;
        self.next_index = index.wrapping_add(1);
        self.peer(from, key)?.insert(index, session);
        Ok(Handshaken::Answer(reply))
    }

    fn finish(
        &mut self,
        from: NodeId,
        key: &PublicKey,
        index: u32,
        message: &[u8],
        now: Micros,
    ) -> Result<Handshaken, Refusal> {
        let peer = self.peer(from, key)?;
        let begun = peer.begun.take_if(|begun| begun.index == index).ok_or(Refusal::BadHandshake)?;
        let session = Session::new(&handshake::finish(begun.state, message)?, true, now)?;
        peer.insert(index, session);
        Ok(Handshaken::Ready)
    }

    fn peer(&mut self, node: NodeId, key: &PublicKey) -> Result<&mut Peer, Refusal> {
        if !self.peers.contains_key(&node) && self.peers.len() >= MAX_PEERS {
            return Err(Refusal::SessionWait);
        }
        let peer = self.peers.entry(node).or_default();
        if peer.key.as_ref() != Some(key) {
            *peer = Peer { key: Some(*key), ..Peer::default() };
        }
        Ok(peer)
    }
}

impl Peer {
    /// Adds a session. One that was never confirmed gives way first: answers to repeated first messages
    /// of somebody else must not push out what is in use.
    fn insert(&mut self, index: u32, session: Session) {
        if !session.confirmed {
            self.sessions.retain(|_, other| other.confirmed);
        }
        self.sessions.insert(index, session);
        while self.sessions.len() > MAX_SESSIONS {
            self.sessions.pop_first();
        }
    }
}
