//! Who can reach what.

use selvedge_abi::{Class, Identity, Range};
use serde::{Deserialize, Serialize};

use super::{QueryError, allowed, pairs_with_rules, ports_text, selected};
use crate::{
    UnixMs,
    compile::{Origin, VerdictTables, compile},
    id::{ContractRef, ServiceRef},
    object::Selector,
    policy::PolicyState,
};

/// Most rows of one answer.
pub const MAX_REACH_ROWS: usize = 200_000;

/// One thing that is allowed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReachRow {
    /// Who opens the flow.
    pub from: ServiceRef,
    /// Who accepts it.
    pub to: ServiceRef,
    /// On which ports: `tcp/5432`, `tcp/8000-8100`, `icmp`, `any`; `other` for protocols without a name
    /// here.
    pub port: String,
    /// The contract that allows it.
    pub contract: Option<ContractRef>,
    /// The guardrail that allows it, when no contract does.
    pub guardrail: Option<String>,
    /// Why: `contract`, `guardrail-allow`, `audited` or `learned`.
    pub reason: String,
}

/// Everything that is allowed from some services to some services, in order.
///
/// # Errors
/// When a selector selects nothing, or the rows are more than [`MAX_REACH_ROWS`].
pub fn reach(
    policy: &PolicyState,
    now_ms: UnixMs,
    from: Option<&Selector>,
    to: Option<&Selector>,
) -> Result<Vec<ReachRow>, QueryError> {
    let tables = compile(policy, now_ms);
    for selector in [from, to].into_iter().flatten() {
        selected(&tables, selector)?;
    }
    let (from, to) = (from.unwrap_or(&Selector::All), to.unwrap_or(&Selector::All));
    let mut rows = Vec::new();
    for (source, destination) in pairs_with_rules(policy, &tables, from, to) {
        rows.extend(rows_of(&tables, source, destination));
        if rows.len() > MAX_REACH_ROWS {
            return Err(QueryError::TooManyRows);
        }
    }
    rows.sort();
    Ok(rows)
}

fn rows_of(tables: &VerdictTables, source: Identity, destination: Identity) -> Vec<ReachRow> {
    let (Some(from), Some(to)) = (tables.service(source), tables.service(destination)) else {
        return Vec::new();
    };
    let allowed = allowed(tables, source, destination);
    // What a rule on `any` allows is one row, unless a guardrail took a part of it.
    let whole = |range: &Range| {
        let same = |r: &Range| (r.low, r.high, r.rule) == (0, u16::MAX, range.rule);
        allowed.iter().filter(|(_, r)| same(r)).count() == Class::ALL.len()
    };
    let row = |(class, range): &(Class, Range)| {
        let port = match (whole(range), class) {
            (true, Class::Other) => "any".to_owned(),
            (true, Class::Tcp | Class::Udp | Class::Icmp) => return None,
            (false, _) => ports_text(*class, range.low, range.high),
        };
        let verdict = range.verdict();
        let (contract, guardrail) = match tables.rule(verdict.rule).map(|rule| &rule.origin) {
            Some(Origin::Contract(contract)) => (Some(contract.clone()), None),
            Some(Origin::Guardrail(name)) => (None, Some(name.clone())),
            None => (None, None),
        };
        let reason = verdict.reason.name().to_owned();
        Some(ReachRow { from: from.clone(), to: to.clone(), port, contract, guardrail, reason })
    };
    allowed.iter().filter_map(row).collect()
}
