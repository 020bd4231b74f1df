//! What upstreams said, for as long as they allow and we find prudent.
//!
//! A plain value: the time is an argument.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{LowerName, RData, Record, RecordType},
};

/// Most answers kept.
const MAX_ENTRIES: usize = 4096;
/// Most records in an answer that is kept: with [`MAX_ENTRIES`] it bounds the memory.
const MAX_RECORDS: usize = 64;
/// Longest time that an answer is kept, in seconds, whatever its TTL: names move when clouds fail.
const MAX_TTL_S: u32 = 300;
/// Longest time that an absence is kept, in seconds.
const MAX_NEGATIVE_TTL_S: u32 = 30;

/// What an answer depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheKey {
    name: LowerName,
    rtype: RecordType,
    /// With the DO bit, answers carry signatures.
    dnssec_ok: bool,
    /// With the CD bit, they may be bogus.
    checking_disabled: bool,
}

impl CacheKey {
    /// The key of a query; `None` when it has not exactly one question.
    pub(crate) fn of(query: &Message) -> Option<Self> {
        let [question] = query.queries.as_slice() else { return None };
        Some(Self {
            name: LowerName::new(&question.name),
            rtype: question.query_type,
            dnssec_ok: query.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok),
            checking_disabled: query.metadata.checking_disabled,
        })
    }
}

#[derive(Debug)]
struct Kept {
    message: Message,
    since: Instant,
    /// Also the entry's place in [`Cache::by_end`].
    end: (Instant, u64),
}

/// The answers kept, and the order in which they end.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: HashMap<CacheKey, Kept>,
    by_end: BTreeMap<(Instant, u64), CacheKey>,
    /// Tells entries apart that end at the same time.
    sequence: u64,
}

impl Cache {
    /// The answer to `key`, if it is kept and still good, its TTLs less by its age.
    pub(crate) fn get(&mut self, key: &CacheKey, now: Instant) -> Option<Message> {
        let kept = self.entries.get(key)?;
        if kept.end.0 <= now {
            self.remove(&key.clone());
            return None;
        }
        let age_s = u32::try_from(now.saturating_duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut message = kept.message.clone();
        for record in sections(&mut message) {
            record.decrement_ttl(age_s);
        }
        Some(message)
    }

    /// Keeps an answer, if it may be kept. When the cache is full, the one that ends first makes room.
    pub(crate) fn put(&mut self, key: CacheKey, message: &Message, now: Instant) {
        let Some(ttl_s) = lifetime_s(message).filter(|&ttl_s| ttl_s > 0) else { return };
        let mut message = message.clone();
        if sections(&mut message).count() > MAX_RECORDS {
            return;
        }
        for record in sections(&mut message) {
            record.ttl = record.ttl.min(MAX_TTL_S);
        }
        self.remove(&key);
        while self.entries.len() >= MAX_ENTRIES {
            let Some((_, first)) = self.by_end.pop_first() else { break };
            self.entries.remove(&first);
        }
        self.sequence += 1;
        let end = (now + Duration::from_secs(ttl_s.into()), self.sequence);
        self.by_end.insert(end, key.clone());
        self.entries.insert(key, Kept { message, since: now, end });
    }

    fn remove(&mut self, key: &CacheKey) {
        if let Some(kept) = self.entries.remove(key) {
            self.by_end.remove(&kept.end);
        }
    }
}

fn sections(message: &mut Message) -> impl Iterator<Item = &mut Record> {
    let Message { answers, authorities, additionals, .. } = message;
    answers.iter_mut().chain(authorities).chain(additionals)
}

/// How long an answer may be kept, in seconds: the least TTL of its answers; for an absence the lesser
/// of the SOA record's TTL and its minimum (RFC 2308, section 5). Failures are not kept.
fn lifetime_s(message: &Message) -> Option<u32> {
    let answers = message.answers.iter().map(|record| record.ttl).min();
    let soa = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(record.ttl.min(soa.minimum)),
        _ => None,
    });
    match (message.metadata.response_code, answers, soa) {
        (_, _, _) if message.metadata.truncation => None,
        (ResponseCode::NoError, Some(ttl_s), None) => Some(ttl_s.min(MAX_TTL_S)),
        // An alias may lead to nothing: then both bounds hold.
        (ResponseCode::NoError | ResponseCode::NXDomain, answers, Some(soa)) => {
            Some(answers.unwrap_or(u32::MAX).min(soa).min(MAX_NEGATIVE_TTL_S))
        }
        _ => None,
    }
}
