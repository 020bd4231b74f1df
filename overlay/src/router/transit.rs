//! Frames that come from other nodes: carried on, or arrived.

use std::sync::Arc;

use bytes::Bytes;
use selvedge_fabric::{id::ContractRef, key::NodeId};

use super::{Output, Router};
use crate::{
    Micros,
    frame::{Header, Kind},
    judge::{agrees, judge_frame},
    link::Link,
    packet::Packet,
    reason::Refusal,
    seal::Handshaken,
    wire::Datagram,
};

impl Router {
    /// Takes a datagram that came on the link to a node.
    pub fn handle_datagram(&mut self, from: NodeId, bytes: &Bytes, now: Micros) {
        if !self.routing.nodes.contains_key(&from) {
            self.counters.refuse(Refusal::UnknownNode);
            return;
        }
        let link = self.links.entry(from).or_insert_with(|| Link::new(now));
        link.rx_bytes += bytes.len() as u64;
        match Datagram::decode(bytes) {
            Ok(Datagram::Probe(number)) => {
                let bytes = Datagram::echo(number);
                link.tx_bytes += bytes.len() as u64;
                self.out.push_back(Output::Datagram { to: from, bytes });
            }
            Ok(Datagram::Echo(number)) => self.probe_answered(from, number, now),
            Ok(Datagram::Frame(frame)) => self.handle_frame(from, &frame, now, now),
            Ok(Datagram::Half { id, second, part }) => match link.halves.join(id, second, part, now) {
                Ok(Some(frame)) => self.handle_frame(from, &frame, now, now),
                Ok(None) => {}
                Err(why) => self.counters.refuse(why),
            },
            Err(why) => self.counters.refuse(why),
        }
    }

    /// Takes a frame that came at `since`. One that only an older policy refuses waits for the newer.
    pub(super) fn handle_frame(&mut self, from: NodeId, frame: &Bytes, since: Micros, now: Micros) {
        let header = match Header::decode(frame) {
            Ok(header) => header,
            Err(why) => return self.counters.refuse(why),
        };
        match self.take_frame(from, &header, frame, now) {
            Ok(()) => {}
            Err(why) if self.may_wait(&header, why) => {
                if since < now {
                    self.waiting_for_policy.put_back(from, since, frame.clone());
                } else if !self.waiting_for_policy.push(from, frame.clone(), now) {
                    self.counters.refuse(Refusal::PolicyWaitFull);
                }
            }
            Err(why) => self.counters.refuse(why),
        }
    }

    /// Whether a frame may wait: its sender knew a newer policy, or facts that are still under way here.
    fn may_wait(&self, header: &Header, why: Refusal) -> bool {
        let facts = matches!(why, Refusal::UnknownAddress | Refusal::UnknownNode);
        facts || (why.may_pass_later() && header.revision > self.routing.revision)
    }

    fn take_frame(
        &mut self,
        from: NodeId,
        header: &Header,
        frame: &Bytes,
        now: Micros,
    ) -> Result<(), Refusal> {
        let routing = Arc::clone(&self.routing);
        let contract = judge_frame(&routing, header, from)?;
        if header.destination_node == self.me {
            self.arrive(from, header, &frame[header.len()..], now)
        } else {
            self.carry(from, header, contract, frame)
        }
    }

    /// Carries a frame of others on.
    fn carry(
        &mut self,
        from: NodeId,
        header: &Header,
        contract: Option<&ContractRef>,
        frame: &Bytes,
    ) -> Result<(), Refusal> {
        if header.kind == Kind::Plain {
            return Err(Refusal::Unsealed);
        }
        let hop = self.route(header, contract, Some(from))?;
        let mut frame = frame.to_vec();
        Header { hop_limit: hop.hop_limit, passed: hop.passed, ..*header }.rewrite(&mut frame);
        self.send_frame(hop.next, &frame)?;
        self.counters.carried += 1;
        Ok(())
    }

    /// Takes a frame that is for this node.
    fn arrive(&mut self, from: NodeId, header: &Header, payload: &[u8], now: Micros) -> Result<(), Refusal> {
        match header.kind {
            Kind::Plain if from != header.source_node => Err(Refusal::Unsealed),
            Kind::Plain => self.deliver(header, payload.to_vec()),
            Kind::Sealed => match self.sessions.open(header, payload, now) {
                Ok(packet) => self.deliver(header, packet),
                Err(Refusal::UnknownSession) => {
                    self.renew_session(header, now)?;
                    Err(Refusal::UnknownSession)
                }
                Err(why) => Err(why),
            },
            Kind::Handshake => self.take_handshake(header, payload, now),
        }
    }

    /// An empty packet only confirms a session.
    fn deliver(&mut self, header: &Header, packet: Vec<u8>) -> Result<(), Refusal> {
        if packet.is_empty() {
            return Ok(());
        }
        if !agrees(header, &Packet::parse(&packet)?) {
            return Err(Refusal::HeaderMismatch);
        }
        self.counters.delivered += 1;
        self.out.push_back(Output::Packet(packet.into()));
        Ok(())
    }

    /// The other end uses a session that this one has lost: it gets a new one.
    fn renew_session(&mut self, header: &Header, now: Micros) -> Result<(), Refusal> {
        let routing = Arc::clone(&self.routing);
        let peer = header.source_node;
        let key = &routing.nodes.get(&peer).ok_or(Refusal::UnknownNode)?.sealing_key;
        match self.sessions.begin(peer, key, now)? {
            Some(message) => self.answer_with_handshake(header, &message),
            None => Ok(()),
        }
    }

    fn take_handshake(&mut self, header: &Header, message: &[u8], now: Micros) -> Result<(), Refusal> {
        let routing = Arc::clone(&self.routing);
        let peer = header.source_node;
        let key = &routing.nodes.get(&peer).ok_or(Refusal::UnknownNode)?.sealing_key;
        match self.sessions.handshake(peer, key, message, now)? {
            Handshaken::Answer(reply) => self.answer_with_handshake(header, &reply),
            Handshaken::Ready => {
                self.confirm_session(header, now)?;
                self.flush_waiting(peer, now);
                Ok(())
            }
        }
    }
}
