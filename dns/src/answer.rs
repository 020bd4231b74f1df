//! A question and who asks it, to an answer.

use hickory_proto::{
    op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType, rdata::HINFO},
};

use crate::{
    asker::Asker,
    ede::{self, Ede},
    index::{Place, RrSet, ZoneIndex},
    wire::{MAX_UDP_PAYLOAD_BYTES, TTL_S},
};

/// Answers `query` as `asker` may see the zone.
///
/// Pure and total: whatever the message, the reply is a message. It is whole; [`crate::encode`] fits it
/// into what the transport carries. RA is left off: whether other names are forwarded is the server's
/// to know.
#[must_use]
pub fn answer(index: &ZoneIndex, query: &Message, asker: &Asker) -> Message {
    let mut reply = reply_to(query);
    match question(query) {
        Ok(question) => match index.find(&question.name, asker) {
            Some(place) => fill(&mut reply, index, question, &place),
            None => refuse_foreign(&mut reply),
        },
        Err(fault) => fault.tell(&mut reply),
    }
    reply
}

/// An empty reply: header, question and EDNS as the query asks for them.
pub(crate) fn reply_to(query: &Message) -> Message {
    let mut reply = Message::new(query.metadata.id, MessageType::Response, query.metadata.op_code);
    reply.metadata = Metadata::response_from_request(&query.metadata);
    // The question goes back byte for byte: askers vary the case and compare (draft dns-0x20).
    reply.queries.clone_from(&query.queries);
    reply.edns = query.edns.as_ref().map(|asked| {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP_PAYLOAD_BYTES).set_dnssec_ok(asked.flags().dnssec_ok);
        edns
    });
    reply
}

/// Why a query gets no look-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Not a query, not one question, or a question for what only goes beside questions.
    Form,
    /// EDNS of a version that does not exist yet (RFC 6891, section 6.1.3).
    EdnsVersion,
    /// NOTIFY, UPDATE and the like.
    OpCode,
    /// CHAOS and the like: we tell neither version nor host name.
    Class,
    /// Zone transfers.
    Transfer,
}

impl Fault {
    pub(crate) fn tell(self, reply: &mut Message) {
        let (rcode, why) = match self {
            Self::Form => (ResponseCode::FormErr, None),
            Self::EdnsVersion => (ResponseCode::BADVERS, None),
            Self::OpCode => (ResponseCode::NotImp, Some((Ede::NotSupported, "only queries are supported"))),
            Self::Class => (ResponseCode::Refused, Some((Ede::NotSupported, "only class IN is served"))),
            Self::Transfer => (ResponseCode::Refused, Some((Ede::Prohibited, "zone transfers are refused"))),
        };
        reply.metadata.response_code = rcode;
        if let Some((code, text)) = why {
            ede::explain(reply, code, text);
        }
    }
}

/// The one question of a query that can be looked up.
///
/// # Errors
/// What is wrong with the query.
pub(crate) fn question(query: &Message) -> Result<&Query, Fault> {
    if query.metadata.message_type != MessageType::Query {
        return Err(Fault::Form);
    }
    if query.edns.as_ref().is_some_and(|edns| edns.version() != 0) {
        return Err(Fault::EdnsVersion);
    }
    if query.metadata.op_code != OpCode::Query {
        return Err(Fault::OpCode);
    }
    let [question] = query.queries.as_slice() else { return Err(Fault::Form) };
    match (question.query_class, question.query_type) {
        (_, RecordType::OPT | RecordType::TSIG | RecordType::SIG | RecordType::ZERO) => Err(Fault::Form),
        (DNSClass::IN, RecordType::AXFR | RecordType::IXFR) => Err(Fault::Transfer),
        (DNSClass::IN, _) => Ok(question),
        _ => Err(Fault::Class),
    }
}

fn fill(reply: &mut Message, index: &ZoneIndex, question: &Query, place: &Place<'_>) {
    reply.metadata.authoritative = true;
    let Some(sets) = place.sets else {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return deny(reply, index, place);
    };
    if question.query_type == RecordType::ANY && !sets.is_empty() {
        return reply.answers.push(minimal_any(question));
    }
    match sets.iter().find(|set| set.rtype == question.query_type) {
        Some(set) => put(reply, question, set),
        None => deny(reply, index, place),
    }
}

fn put(reply: &mut Message, question: &Query, set: &RrSet) {
    let owned = |data: &RData| Record::from_rdata(question.name.clone(), TTL_S, data.clone());
    reply.answers.extend(set.data.iter().map(owned));
    reply.additionals.extend(set.glue.iter().cloned());
}

/// A negative answer carries the SOA record, by which it may be cached (RFC 2308, section 3).
fn deny(reply: &mut Message, index: &ZoneIndex, place: &Place<'_>) {
    reply.authorities.extend(index.soa(place.apex.clone().into_owned()));
}

/// ANY gets one synthesized record: all of them would only serve amplification (RFC 8482, section 4.2).
fn minimal_any(question: &Query) -> Record {
    let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
    Record::from_rdata(question.name.clone(), TTL_S, RData::HINFO(hinfo))
}

fn refuse_foreign(reply: &mut Message) {
    reply.metadata.response_code = ResponseCode::Refused;
    ede::explain(reply, Ede::NotAuthoritative, "not a name of this fabric, and nothing forwards it");
}
