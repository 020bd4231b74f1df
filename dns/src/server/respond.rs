//! From the bytes of a query to the bytes of its reply, the same for both transports.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use hickory_proto::{
    op::{Header, Message, MessageType, Metadata, OpCode, ResponseCode},
    serialize::binary::{BinDecodable, BinDecoder},
};
use tokio::sync::watch;

use crate::{
    answer::{self, Fault},
    asker::Asker,
    forward::{Forwarder, Ticket},
    index::ZoneIndex,
    metrics::{Dropped, Metrics},
    wire,
};

/// What carries a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Udp,
    Tcp,
}

/// What becomes of a query.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// No reply at all.
    Drop,
    /// This reply, now.
    Reply(Vec<u8>),
    /// A reply when an upstream has answered: see [`Responder::finish`].
    Later(Box<Later>),
}

/// A query that waits for an upstream.
#[derive(Debug)]
pub(crate) struct Later {
    query: Message,
    limit: u16,
    ticket: Ticket,
}

/// All that is needed to reply.
pub(crate) struct Responder {
    pub(crate) index: watch::Receiver<Arc<ZoneIndex>>,
    /// What the host's own queries count as.
    pub(crate) host: Asker,
    /// Our own addresses: queries from them are the host's.
    pub(crate) local: Box<[IpAddr]>,
    pub(crate) forwarder: Option<Arc<Forwarder>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Responder {
    pub(crate) fn respond(&self, packet: &[u8], source: SocketAddr, transport: Transport) -> Outcome {
        let Ok(header) = Header::read(&mut BinDecoder::new(packet)) else {
            return self.dropped(Dropped::Short);
        };
        if header.metadata.message_type == MessageType::Response {
            return self.dropped(Dropped::Response);
        }
        match decode(packet, &header) {
            Ok(query) => self.look_up(query, source.ip().to_canonical(), transport),
            Err(fault) => {
                let mut reply = bare_reply(&header.metadata);
                fault.tell(&mut reply);
                self.reply(&reply, u16::MAX)
            }
        }
    }

    /// Waits for the upstreams and gives the reply.
    pub(crate) async fn finish(&self, later: Box<Later>) -> Option<Vec<u8>> {
        let forwarder = self.forwarder.as_ref()?;
        let reply = forwarder.resolve(&later.query, later.ticket).await;
        self.seal(&reply, later.limit)
    }

    fn dropped(&self, reason: Dropped) -> Outcome {
        self.metrics.dropped(reason);
        Outcome::Drop
    }

    fn look_up(&self, query: Message, source: IpAddr, transport: Transport) -> Outcome {
        let limit = match transport {
            Transport::Udp => wire::udp_limit(&query),
            Transport::Tcp => u16::MAX,
        };
        let index = self.index.borrow().clone();
        let known = index.asker(source).or_else(|| self.is_host(source).then_some(&self.host));
        // Strangers must not use us as an open resolver.
        let forwarder = self.forwarder.as_ref().filter(|_| known.is_some());
        let question = answer::question(&query).ok();
        if let Some(question) = question {
            self.metrics.query(question.query_type);
        }
        let foreign = query.metadata.recursion_desired && question.is_some_and(|q| !index.owns(&q.name));
        match forwarder {
            Some(forwarder) if foreign => match forwarder.begin(&query) {
                Ok(ticket) => Outcome::Later(Box::new(Later { query, limit, ticket })),
                Err(reply) => self.reply(&reply, limit),
            },
            _ => {
                let mut reply = answer::answer(&index, &query, known.unwrap_or(&Asker::Nothing));
                reply.metadata.recursion_available = forwarder.is_some();
                self.reply(&reply, limit)
            }
        }
    }

    fn is_host(&self, source: IpAddr) -> bool {
        source.is_loopback() || self.local.contains(&source)
    }

    fn reply(&self, reply: &Message, limit: u16) -> Outcome {
        self.seal(reply, limit).map_or(Outcome::Drop, Outcome::Reply)
    }

    fn seal(&self, reply: &Message, limit: u16) -> Option<Vec<u8>> {
        let (bytes, rcode) = match wire::encode(reply, limit) {
            Ok(bytes) => (bytes, reply.metadata.response_code),
            Err(error) => {
                tracing::warn!(%error, "a reply cannot be encoded");
                let mut bare = bare_reply(&reply.metadata);
                bare.metadata.response_code = ResponseCode::ServFail;
                let Ok(bytes) = wire::encode(&bare, limit) else {
                    self.metrics.dropped(Dropped::Unencodable);
                    return None;
                };
                (bytes, ResponseCode::ServFail)
            }
        };
        self.metrics.reply(rcode, is_truncated(&bytes));
        Some(bytes)
    }
}

/// Decodes a query. Its counts are checked first, because the codec reserves room for as many questions
/// as the header claims.
fn decode(packet: &[u8], header: &Header) -> Result<Message, Fault> {
    let fault = if header.metadata.op_code == OpCode::Query { Fault::Form } else { Fault::OpCode };
    if header.counts.queries > 1 {
        return Err(fault);
    }
    Message::from_vec(packet).map_err(|_| fault)
}

/// A reply to what could not be decoded beyond its header.
fn bare_reply(query: &Metadata) -> Message {
    let mut reply = Message::new(query.id, MessageType::Response, query.op_code);
    reply.metadata = Metadata::response_from_request(query);
    reply
}

/// The TC bit of an encoded message (RFC 1035, section 4.1.1).
fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0b10 != 0)
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::Query,
        rr::{Name, RecordType},
    };
    use selvedge_fabric::{
        event::{EventSink, Severity},
        plan::Zone,
    };

    use super::*;

    struct Deaf;

    impl EventSink for Deaf {
        fn emit(&self, _: Severity, _: &'static str, _: &str, _: String) {}
    }

    fn responder() -> Responder {
        let attached = ("10.0.0.9".parse().unwrap(), "worker@shop".parse().unwrap());
        let zone =
            Zone { suffix: "fabric.internal".to_owned(), askers: [attached].into(), ..Zone::default() };
        let metrics = Arc::new(Metrics::default());
        let upstreams = vec![([192, 0, 2, 53], 53).into()];
        Responder {
            index: watch::channel(Arc::new(ZoneIndex::build(&zone))).1,
            host: Asker::All,
            local: [[10, 0, 0, 1].into()].into(),
            forwarder: Some(Arc::new(Forwarder::new(upstreams, metrics.clone(), Arc::new(Deaf)))),
            metrics,
        }
    }

    fn ask(source: &str, name: &str) -> Outcome {
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.metadata.recursion_desired = true;
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        responder().respond(&query.to_vec().unwrap(), source.parse().unwrap(), Transport::Udp)
    }

    #[test]
    fn the_host_and_attached_services_are_forwarded_for_and_strangers_are_not() {
        for known in
            ["127.0.0.1:4000", "[::1]:4000", "10.0.0.1:4000", "10.0.0.9:4000", "[::ffff:10.0.0.9]:4000"]
        {
            assert!(matches!(ask(known, "www.example."), Outcome::Later(_)), "{known}");
        }
        let Outcome::Reply(reply) = ask("10.0.0.2:4000", "www.example.") else {
            panic!("a stranger is answered at once")
        };
        let reply = Message::from_vec(&reply).unwrap();
        assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
        assert!(!reply.metadata.recursion_available);
    }

    #[test]
    fn names_of_ours_wait_for_nobody() {
        for name in ["fabric.internal.", "no.such.FABRIC.internal."] {
            assert!(matches!(ask("127.0.0.1:4000", name), Outcome::Reply(_)), "{name}");
        }
    }
}
