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

#[cfg(test)]
mod tests {
    use std::iter;

    use hickory_proto::{
        op::{Edns, MessageType, OpCode, Query},
        rr::{
            Name,
            rdata::{A, SOA},
        },
    };

    use super::*;

    fn query(name: &str) -> Message {
        let mut query = Message::new(1, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), RecordType::A));
        query
    }

    fn key(name: &str) -> CacheKey {
        CacheKey::of(&query(name)).unwrap()
    }

    fn record(ttl_s: u32, data: RData) -> Record {
        Record::from_rdata(Name::root(), ttl_s, data)
    }

    fn found(ttls_s: &[u32]) -> Message {
        let mut message = query("www.example.");
        message.answers = ttls_s.iter().map(|ttl_s| record(*ttl_s, RData::A(A::new(192, 0, 2, 1)))).collect();
        message
    }

    fn absent(ttl_s: u32, minimum: u32) -> Message {
        let mut message = query("www.example.");
        message.metadata.response_code = ResponseCode::NXDomain;
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, minimum);
        message.authorities = vec![record(ttl_s, RData::SOA(soa))];
        message
    }

    #[test]
    fn answers_are_kept_as_long_as_the_least_of_all_bounds() {
        let failure = |rcode| {
            let mut message = absent(60, 60);
            message.metadata.response_code = rcode;
            message
        };
        let mut cut = found(&[60]);
        cut.metadata.truncation = true;
        let mut alias_to_nothing = absent(20, 60);
        alias_to_nothing.answers = found(&[9]).answers;
        for (what, message, lifetime) in [
            ("least TTL", found(&[60, 7]), Some(7)),
            ("capped", found(&[1_000_000]), Some(MAX_TTL_S)),
            ("TTL 0", found(&[0]), Some(0)),
            ("SOA TTL", absent(5, 60), Some(5)),
            ("SOA minimum", absent(60, 6), Some(6)),
            ("capped absence", absent(9999, 9999), Some(MAX_NEGATIVE_TTL_S)),
            ("alias to nothing", alias_to_nothing, Some(9)),
            ("empty without SOA", found(&[]), None),
            ("SERVFAIL", failure(ResponseCode::ServFail), None),
            ("REFUSED", failure(ResponseCode::Refused), None),
            ("cut", cut, None),
        ] {
            assert_eq!(lifetime_s(&message), lifetime, "{what}");
        }
    }

    #[test]
    fn ttls_fall_with_age_until_the_answer_is_gone() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(key("www.example."), &found(&[10, 9999]), start);
        let ttls_at = |cache: &mut Cache, age_s| {
            let kept = cache.get(&key("WWW.example."), start + Duration::from_secs(age_s))?;
            Some(kept.answers.iter().map(|r| r.ttl).collect::<Vec<_>>())
        };
        assert_eq!(ttls_at(&mut cache, 0), Some(vec![10, MAX_TTL_S]));
        assert_eq!(ttls_at(&mut cache, 9), Some(vec![1, MAX_TTL_S - 9]));
        assert_eq!(ttls_at(&mut cache, 10), None);
        assert!(cache.entries.is_empty() && cache.by_end.is_empty());
    }

    #[test]
    fn what_may_not_be_kept_is_not() {
        let mut cache = Cache::default();
        cache.put(key("a."), &found(&[0]), Instant::now());
        cache.put(key("b."), &found(&vec![60; MAX_RECORDS + 1]), Instant::now());
        assert!(cache.entries.is_empty());
    }

    #[test]
    fn a_full_cache_forgets_what_ends_first() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for n in 0..MAX_ENTRIES {
            cache.put(key(&format!("n{n}.")), &found(&[if n == 77 { 5 } else { 60 }]), now);
        }
        cache.put(key("one-more."), &found(&[60]), now);
        assert_eq!((cache.entries.len(), cache.by_end.len()), (MAX_ENTRIES, MAX_ENTRIES));
        assert!(cache.get(&key("n77."), now).is_none() && cache.get(&key("one-more."), now).is_some());
        cache.put(key("one-more."), &found(&[60]), now);
        assert_eq!(cache.by_end.len(), MAX_ENTRIES, "replacing leaves nothing behind");
    }

    #[test]
    fn askers_for_signatures_get_answers_of_their_own() {
        let mut signed = query("www.example.");
        let mut edns = Edns::new();
        edns.set_dnssec_ok(true);
        signed.edns = Some(edns);
        assert_ne!(CacheKey::of(&signed), CacheKey::of(&query("www.example.")));
        let mut twice = query("www.example.");
        twice.queries.extend(iter::once(twice.queries[0].clone()).collect::<Vec<_>>());
        assert_eq!(CacheKey::of(&twice), None);
    }
}
