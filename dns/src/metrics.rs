//! Counters of the server, for telemetry.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use hickory_proto::{op::ResponseCode, rr::RecordType};

/// Labels of query types; what is rarer counts as `other`.
const KINDS: [&str; 10] = ["a", "aaaa", "srv", "txt", "ptr", "soa", "ns", "any", "https", "other"];
/// Labels of response codes.
const RCODES: [&str; 8] =
    ["noerror", "formerr", "servfail", "nxdomain", "notimp", "refused", "badvers", "other"];

/// Why a packet or connection got no reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// Shorter than a header: there is no id to reply to.
    Short,
    /// A response; replying would make loops.
    Response,
    /// From port 0, where nobody listens.
    SourcePort,
    /// From our own address and port.
    Loop,
    /// Could not be encoded even as an error.
    Unencodable,
    /// The socket did not take the reply at once.
    SendFailed,
    /// Too many TCP connections, in all or of this source.
    TcpLimit,
    /// A TCP frame of impossible length.
    TcpFrame,
    /// A socket error while receiving.
    Receive,
}

const DROPS: [&str; 9] = [
    "short",
    "response",
    "source-port",
    "loop",
    "unencodable",
    "send-failed",
    "tcp-limit",
    "tcp-frame",
    "receive",
];

/// Events of the forwarder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forwarding {
    /// Sent to an upstream.
    Sent,
    /// Answered from the cache.
    CacheHit,
    /// No upstream answered in time.
    Failed,
    /// Refused because too many queries wait for upstreams.
    Full,
}

const FORWARDING: [&str; 4] = ["sent", "cache-hit", "failed", "full"];

/// What the server counts.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    queries: [AtomicU64; KINDS.len()],
    replies: [AtomicU64; RCODES.len()],
    drops: [AtomicU64; DROPS.len()],
    forwarding: [AtomicU64; FORWARDING.len()],
    truncated: AtomicU64,
    tcp_connections: AtomicU64,
}

/// The counters at one moment. All but `tcp_connections` only ever grow. Every label is present,
/// whether or not it was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MetricsSnapshot {
    /// Queries that could be decoded, by type, lower case; `other` for rare types.
    pub queries: BTreeMap<&'static str, u64>,
    /// Replies by response code, lower case.
    pub replies: BTreeMap<&'static str, u64>,
    /// Packets and connections without a reply, by reason.
    pub drops: BTreeMap<&'static str, u64>,
    /// Queries for other names, by fate.
    pub forwarding: BTreeMap<&'static str, u64>,
    /// Replies that did not fit and went out with TC set.
    pub truncated: u64,
    /// TCP connections open now.
    pub tcp_connections: u64,
}

impl Metrics {
    pub(crate) fn query(&self, rtype: RecordType) {
        let kind = match rtype {
            RecordType::A => 0,
            RecordType::AAAA => 1,
            RecordType::SRV => 2,
            RecordType::TXT => 3,
            RecordType::PTR => 4,
            RecordType::SOA => 5,
            RecordType::NS => 6,
            RecordType::ANY => 7,
            RecordType::HTTPS => 8,
            _ => 9,
        };
        self.queries[kind].fetch_add(1, Relaxed);
    }

    pub(crate) fn reply(&self, rcode: ResponseCode, truncated: bool) {
        let kind = match rcode {
            ResponseCode::NoError => 0,
            ResponseCode::FormErr => 1,
            ResponseCode::ServFail => 2,
            ResponseCode::NXDomain => 3,
            ResponseCode::NotImp => 4,
            ResponseCode::Refused => 5,
            ResponseCode::BADVERS => 6,
            _ => 7,
        };
        self.replies[kind].fetch_add(1, Relaxed);
        self.truncated.fetch_add(u64::from(truncated), Relaxed);
    }

    pub(crate) fn dropped(&self, reason: Dropped) {
        self.drops[reason as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn forwarding(&self, fate: Forwarding) {
        self.forwarding[fate as usize].fetch_add(1, Relaxed);
    }

    pub(crate) fn tcp_opened(&self) {
        self.tcp_connections.fetch_add(1, Relaxed);
    }

    pub(crate) fn tcp_closed(&self) {
        self.tcp_connections.fetch_sub(1, Relaxed);
    }

    pub(crate) fn snapshot(&self) -> MetricsSnapshot {
        MetricsSnapshot {
            queries: labelled(&KINDS, &self.queries),
            replies: labelled(&RCODES, &self.replies),
            drops: labelled(&DROPS, &self.drops),
            forwarding: labelled(&FORWARDING, &self.forwarding),
            truncated: self.truncated.load(Relaxed),
            tcp_connections: self.tcp_connections.load(Relaxed),
        }
    }
}

fn labelled(labels: &[&'static str], counters: &[AtomicU64]) -> BTreeMap<&'static str, u64> {
    labels.iter().copied().zip(counters.iter().map(|counter| counter.load(Relaxed))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_land_under_their_labels() {
        let metrics = Metrics::default();
        metrics.query(RecordType::MX);
        metrics.reply(ResponseCode::BADVERS, true);
        metrics.dropped(Dropped::Receive);
        metrics.forwarding(Forwarding::Full);
        let snapshot = metrics.snapshot();
        assert_eq!(snapshot.queries["other"], 1);
        assert_eq!(snapshot.replies["badvers"], 1);
        assert_eq!(snapshot.drops["receive"], 1);
        assert_eq!(snapshot.forwarding["full"], 1);
        assert_eq!(snapshot.truncated, 1);
    }
}
