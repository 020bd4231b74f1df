//! Questions on names and on the model.

use selvedge_dns::{
    Asker, ZoneIndex, answer,
    proto::{
        op::{Message, MessageType, OpCode, Query},
        rr::{Name as DnsName, RData, Record, RecordType},
    },
};
use selvedge_fabric::{
    id::ServiceRef,
    manifest,
    object::{Kind, ObjectKey, PortRange, Selector},
    query,
};

use super::{Node, Result};
use crate::{
    api::{ApiError, types},
    clock,
};

impl Node {
    pub(super) fn resolve_name(
        &self,
        name: &str,
        record_type: &str,
        asker: Option<&ServiceRef>,
    ) -> Result<types::ResolveReply> {
        let plan = self.plan();
        let full = complete(name, &plan.zone.suffix);
        let qname = DnsName::from_ascii(&full)
            .map_err(|e| ApiError::bad_request(format!("{name:?} is no DNS name: {e}")))?;
        let qtype: RecordType = record_type.to_ascii_uppercase().parse().map_err(|_| {
            ApiError::bad_request(format!(
                "{record_type:?} is no record type: write A, AAAA, SRV, TXT, PTR, …"
            ))
        })?;
        let mut question = Message::new(0, MessageType::Query, OpCode::Query);
        question.add_query(Query::query(qname, qtype));
        if let Some(service) = asker {
            self.require_service(service)?;
        }
        let asker = asker.map_or(Asker::All, |service| Asker::Service(service.clone()));
        let reply = answer(&ZoneIndex::build(&plan.zone), &question, &asker);
        Ok(types::ResolveReply {
            name: full,
            kind: qtype.to_string(),
            // The mnemonics of the IANA registry, which are the variants' names in capitals.
            rcode: format!("{:?}", reply.metadata.response_code).to_ascii_uppercase(),
            answers: reply.answers.iter().map(record).collect(),
            additional: reply.additionals.iter().map(record).collect(),
            revision: plan.revision,
        })
    }

    /// A service that does not exist sees nothing, which looks like an answer about the name.
    fn require_service(&self, service: &ServiceRef) -> Result<()> {
        let (domain, name) = (Some(service.domain.clone()), service.name.to_string());
        let key = ObjectKey { kind: Kind::Service, domain, name };
        if self.policy().objects.contains_key(&key) {
            return Ok(());
        }
        Err(ApiError::not_found(format!("there is no service {service}"))
            .remedy("`selvedge get services` lists them"))
    }

    pub(super) fn explain_flow(
        &self,
        from: &ServiceRef,
        to: &ServiceRef,
        port: PortRange,
    ) -> Result<types::ExplainReply> {
        let found = query::explain(&self.policy(), clock::unix_ms(), from, to, port);
        let mut reply = explain_reply(&found);
        if let Some(hops) = self.hops_over_overlay(&found) {
            reply.hops = hops;
        }
        Ok(reply)
    }

    pub(super) fn list_reach(
        &self,
        from: Option<&ServiceRef>,
        to: Option<&ServiceRef>,
    ) -> Result<Vec<types::ReachItem>> {
        let select = |service: Option<&ServiceRef>| service.cloned().map(Selector::Service);
        let (from, to) = (select(from), select(to));
        let rows = query::reach(&self.policy(), clock::unix_ms(), from.as_ref(), to.as_ref())
            .map_err(|e| ApiError::not_found(e.to_string()))?;
        Ok(rows.into_iter().map(reach_item).collect())
    }

    pub(super) fn assert_document(&self, document: &str) -> Result<types::AssertReply> {
        let policy = self.policy();
        let assertions = manifest::parse_assertions(document, None).map_err(ApiError::invalid)?;
        let results = query::assert(&policy, clock::unix_ms(), &assertions);
        let results: Vec<_> = results.into_iter().map(assert_result).collect();
        Ok(types::AssertReply {
            passed: results.iter().all(|r| r.passed),
            revision: policy.revision,
            results,
        })
    }
}

fn explain_reply(found: &query::Explanation) -> types::ExplainReply {
    let verdict = |outcome: query::Outcome| match outcome {
        query::Outcome::Allow => "allow".to_owned(),
        query::Outcome::Deny => "deny".to_owned(),
    };
    let hops = found.hops.iter().map(|hop| types::Hop {
        // On the model nobody stands at a place yet: the service does.
        node: hop.service.to_string(),
        zone: None,
        place: match hop.place {
            query::Place::Source => "source",
            query::Place::Transit => "transit",
            query::Place::Destination => "destination",
        }
        .to_owned(),
        verdict: verdict(hop.verdict),
        reason: hop.reason.clone(),
    });
    let near = found.alternatives.iter().map(|near| match &near.remedy {
        Some(remedy) => format!("{} ({remedy})", near.finding),
        None => near.finding.clone(),
    });
    let lines: Vec<_> = std::iter::once(found.summary()).chain(near).collect();
    types::ExplainReply {
        verdict: verdict(found.verdict),
        contract: found.contract.as_ref().map(ToString::to_string),
        rule: found.rule.clone(),
        reason: found.reason.clone(),
        revision: found.revision,
        hops: hops.collect(),
        detail: lines.join("\n"),
    }
}

fn reach_item(row: query::ReachRow) -> types::ReachItem {
    let note = row.guardrail.map(|g| format!("guardrail {g}"));
    let by_contract = row.reason == "contract";
    types::ReachItem {
        from: row.from.to_string(),
        to: row.to.to_string(),
        port: row.port,
        contract: row.contract.as_ref().map(ToString::to_string),
        note: note.or((!by_contract).then_some(row.reason)),
    }
}

fn assert_result(result: query::AssertionResult) -> types::AssertResult {
    let examples = result.counter_examples.iter().map(ToString::to_string);
    let more = result.contradictions.saturating_sub(result.counter_examples.len());
    let more = (more > 0).then(|| format!("and {more} more"));
    let detail: Vec<_> = result.error.into_iter().chain(examples).chain(more).collect();
    types::AssertResult { assertion: result.assertion, passed: result.holds, detail: detail.join("; ") }
}

/// A name without a trailing dot that does not end in the suffix is completed with it.
fn complete(name: &str, suffix: &str) -> String {
    match name.strip_suffix('.') {
        Some(_) => name.to_owned(),
        None if name == suffix || name.ends_with(&format!(".{suffix}")) || name.ends_with(".arpa") => {
            format!("{name}.")
        }
        None => format!("{name}.{suffix}."),
    }
}

fn record(record: &Record) -> types::Answer {
    types::Answer {
        name: record.name.to_string(),
        kind: record.record_type().to_string(),
        ttl: record.ttl,
        data: data(&record.data),
    }
}

/// Record data in the presentation format of zone files (RFC 1035, section 5.1).
fn data(data: &RData) -> String {
    match data {
        RData::TXT(text) => quoted(text.txt_data.iter().map(AsRef::as_ref)),
        RData::HINFO(host) => quoted([&*host.cpu, &*host.os]),
        other => other.to_string(),
    }
}

/// Character strings in quotes, so that one can tell where each ends.
fn quoted<'a>(strings: impl IntoIterator<Item = &'a [u8]>) -> String {
    let escape = |byte: &u8| match byte {
        b'"' | b'\\' => format!("\\{}", char::from(*byte)),
        b' '..=b'~' => char::from(*byte).to_string(),
        other => format!("\\{other:03}"),
    };
    let quote = |text: &[u8]| format!("\"{}\"", text.iter().map(escape).collect::<String>());
    strings.into_iter().map(quote).collect::<Vec<_>>().join(" ")
}
