//! Isolation of this node for a drill, as the API speaks of it.

use std::collections::BTreeMap;

use selvedge_fabric::{
    id::Name,
    isolation::{Claim, ClaimError, Cut, DEFAULT_LEASE_MS, Whom},
};

use super::{Node, Result};
use crate::{
    api::{ApiError, Caller, Code, types},
    isolation::{InForce, IsolationError},
};

impl Node {
    pub(super) fn report_isolation(&self) -> types::IsolationReport {
        types::IsolationReport {
            node: self.identity.node.to_string(),
            allowed: self.isolation.is_allowed(),
            lease: self.isolation.in_force().map(|held| shown(&held)),
        }
    }

    pub(super) fn isolate_for_drill(
        &self,
        caller: &Caller,
        request: &types::IsolationRequest,
    ) -> Result<types::IsolationReport> {
        caller.require_admin("isolate nodes for a drill")?;
        self.isolation.claim(parse(request)?, &caller.actor()).map_err(refused)?;
        Ok(self.report_isolation())
    }

    pub(super) fn end_drill(&self, caller: &Caller, holder: Option<&str>) -> Result<types::IsolationReport> {
        caller.require_admin("end drills")?;
        self.isolation.end(holder, &caller.actor());
        Ok(self.report_isolation())
    }

    pub(super) fn drill_alarm(&self) -> Option<types::Alarm> {
        let held = self.isolation.in_force()?;
        let message = format!(
            "an exercise: drill {} of {} {}, until {} unless it is renewed; to end it now: selvedge drill stop",
            held.lease.drill,
            held.lease.by,
            held.described(),
            types::rfc3339(held.until_ms()),
        );
        Some(types::Alarm { code: "drill".to_owned(), message })
    }
}

fn parse(request: &types::IsolationRequest) -> Result<Claim> {
    let drill = Name::new(&request.drill).map_err(|e| ApiError::bad_request(format!("drill: {e}")))?;
    let mut cuts: BTreeMap<Whom, Cut> = BTreeMap::new();
    for (number, wanted) in request.cuts.iter().enumerate() {
        let whom = wanted.whom.parse();
        let whom = whom.map_err(|e: String| ApiError::bad_request(format!("cuts[{number}].whom: {e}")))?;
        let cut = cuts.entry(whom).or_default();
        *cut = cut.or(match wanted.direction {
            types::CutDirection::Both => Cut::BOTH,
            types::CutDirection::To => Cut { to: true, from: false },
            types::CutDirection::From => Cut { to: false, from: true },
        });
    }
    let lease_ms = request.lease_ms.unwrap_or(DEFAULT_LEASE_MS);
    Ok(Claim { drill, holder: request.holder.clone(), lease_ms, cuts })
}

fn refused(error: IsolationError) -> ApiError {
    let text = error.to_string();
    match error {
        IsolationError::NotAllowed(_) => ApiError::new(Code::Refused, text).remedy(
            "where drills are wanted, say [drills] allow = true in the node's configuration and restart it",
        ),
        IsolationError::Claim(error) => match error {
            ClaimError::Held { .. } => ApiError::new(Code::Conflict, text)
                .remedy("wait until it has ended, or end it: selvedge drill stop"),
            ClaimError::Stopped(_) => ApiError::new(Code::Conflict, text),
            ClaimError::Length { .. } | ClaimError::TooMany(_) | ClaimError::Holder => {
                ApiError::bad_request(text)
            }
        },
    }
}

fn shown(held: &InForce) -> types::IsolationLease {
    let cut = |(whom, cut): (&Whom, &Cut)| types::IsolationCut {
        whom: whom.to_string(),
        direction: match (cut.to, cut.from) {
            (true, false) => types::CutDirection::To,
            (false, true) => types::CutDirection::From,
            _ => types::CutDirection::Both,
        },
    };
    types::IsolationLease {
        drill: held.lease.drill.to_string(),
        by: held.lease.by.clone(),
        left_ms: u64::try_from(held.left.as_millis()).unwrap_or(u64::MAX),
        until: types::rfc3339(held.until_ms()),
        cuts: held.lease.cuts.iter().map(cut).collect(),
    }
}
