//! Messages to bytes, within the size that the asker can take.

use hickory_proto::{
    ProtoError,
    op::{Edns, Header, HeaderCounts, Message},
    rr::Record,
    serialize::binary::{BinEncodable, BinEncoder},
};

/// Time to live of everything in the zone, and of its absence, in seconds: a dead endpoint must be
/// forgotten by every cache within the bound that the fabric promises.
pub const TTL_S: u32 = 1;

/// Largest UDP payload we send or advertise, in bytes: it fits every path without fragments (DNS Flag
/// Day 2020), and a fragmented answer is both fragile and forgeable.
pub const MAX_UDP_PAYLOAD_BYTES: u16 = 1232;

/// UDP payload that every asker takes, in bytes (RFC 1035, section 2.3.4).
const MIN_UDP_PAYLOAD_BYTES: u16 = 512;

/// The largest reply, in bytes, that may go back over UDP to the sender of `query`.
#[must_use]
pub fn udp_limit(query: &Message) -> u16 {
    let wanted = query.edns.as_ref().map_or(MIN_UDP_PAYLOAD_BYTES, Edns::max_payload);
    wanted.clamp(MIN_UDP_PAYLOAD_BYTES, MAX_UDP_PAYLOAD_BYTES)
}

/// Encodes `message` in at most `limit` bytes.
///
/// When it does not fit, additional records go first and without a word, for they are only a courtesy
/// (RFC 2181, section 9). When answers or authorities do not fit, as many whole records as do are sent,
/// in order, with TC set: an asker that ignores TC still gets the nearest endpoints. The OPT record has
/// its room reserved, because without it the asker would take us for a server without EDNS.
///
/// # Errors
/// When a record cannot be encoded at all, or not even header and question fit.
pub fn encode(message: &Message, limit: u16) -> Result<Vec<u8>, ProtoError> {
    let opt = message.edns.clone().map(|mut edns| {
        edns.set_rcode_high(message.metadata.response_code.high());
        Record::from(&edns)
    });
    let mut bytes = Vec::with_capacity(usize::from(limit.min(MAX_UDP_PAYLOAD_BYTES)));
    let mut encoder = BinEncoder::new(&mut bytes);
    encoder.set_max_size(limit.saturating_sub(encoded_bytes(opt.as_ref())?));

    let header = encoder.place::<Header>()?;
    let queries = encoder.emit_all(message.queries.iter())?;
    let (answers, cut) = emit(&mut encoder, &message.answers)?;
    let (authorities, cut) = if cut { (0, true) } else { emit(&mut encoder, &message.authorities)? };
    let (mut additionals, _) = if cut { (0, true) } else { emit(&mut encoder, &message.additionals)? };
    if let Some(opt) = &opt {
        encoder.set_max_size(limit);
        additionals += encoder.emit_all(std::iter::once(opt))?;
    }

    let mut metadata = message.metadata;
    metadata.truncation |= cut;
    let counts = HeaderCounts {
        queries: count(queries)?,
        answers: count(answers)?,
        authorities: count(authorities)?,
        additionals: count(additionals)?,
    };
    header.replace(&mut encoder, Header { metadata, counts })?;
    Ok(bytes)
}

/// Emits as many whole records as fit; tells how many, and whether some were left out.
fn emit(encoder: &mut BinEncoder<'_>, records: &[Record]) -> Result<(usize, bool), ProtoError> {
    match encoder.emit_all(records.iter()) {
        Ok(count) => Ok((count, false)),
        Err(ProtoError::NotAllRecordsWritten { count, .. }) => Ok((count, true)),
        Err(error) => Err(error),
    }
}

fn encoded_bytes(record: Option<&Record>) -> Result<u16, ProtoError> {
    let Some(record) = record else { return Ok(0) };
    let mut bytes = Vec::new();
    record.emit(&mut BinEncoder::new(&mut bytes))?;
    count(bytes.len())
}

fn count(n: usize) -> Result<u16, ProtoError> {
    u16::try_from(n).map_err(|_| ProtoError::Message("a count or length exceeds 16 bits"))
}
