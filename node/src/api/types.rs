//! What goes over the wire. Scripts rely on the field names; add fields, never rename one.
//!
//! Times are RFC 3339 text in UTC, durations are milliseconds (`_ms`), names are text. Requests refuse
//! fields that they do not know, so that a misspelt option is an error and not a surprise.

mod drill;
mod endpoint;
mod fabric;
mod intent;
mod query;
mod recovery;
mod token;
mod workload;

pub use drill::{CutDirection, IsolationCut, IsolationLease, IsolationReport, IsolationRequest};
pub use endpoint::{
    AttachPlace, AttachReply, AttachRequest, Attachment, Check, CheckKind, Endpoint, EndpointPort,
    RegisterRequest, Registered,
};
pub use fabric::{
    Alarm, Counts, EventItem, Link, Me, Member, NodeState, NodeStateRequest, QuorumReport, Readiness,
    Replica, RevocationDraft, RevocationReply, RevocationStatement, Route, Status, TaskHealth, ZoneHealth,
    ZoneState,
};
pub use intent::{
    ApplyReply, Change, DeleteRequest, Description, HistoryItem, Manifest, ManifestFile, ManifestFiles,
    Metadata, ObjectName, RollbackRequest, Straggler, WaitReply,
};
pub use query::{
    Answer, AssertReply, AssertResult, ExplainReply, FlowItem, FlowPage, Hop, ReachItem, ResolveReply,
};
pub use recovery::{
    LostChange, LostMajority, RecoveryCandidate, RecoveryDraft, RecoveryNote, RecoveryReply, RecoveryRequest,
    RecoveryStatement, SilentVoter, TransferRequest,
};
pub use token::{TokenCreated, TokenItem, TokenRequest};
pub use workload::{DiscoverReply, Discovered, SelfReply, ServiceStat};

use selvedge_fabric::UnixMs;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

/// RFC 3339 with exactly three digits after the second: columns of times line up and sort as text.
const MILLISECONDS: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// `at_ms` as RFC 3339 text in UTC. Times that RFC 3339 cannot say (after the year 9999) are given as
/// the last it can.
#[must_use]
pub fn rfc3339(at_ms: UnixMs) -> String {
    const LAST: &str = "9999-12-31T23:59:59.999Z";
    let nanos = i128::from(at_ms) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|t| t.format(MILLISECONDS).ok())
        .unwrap_or_else(|| LAST.to_owned())
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times_are_rfc_3339_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(1_700_000_000_250), "2023-11-14T22:13:20.250Z");
        assert!(rfc3339(u64::MAX).starts_with("9999-"));
    }
}
