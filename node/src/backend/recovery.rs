//! A lost majority: what is said of it, and recovery by the recovery key.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use selvedge_consensus::{
    Replica, TransferError,
    recovery::{Draft, FenceError, LostEntry, Party, RecoverError},
};
use selvedge_fabric::{
    Epoch,
    id::NodeName,
    key::PublicKey,
    statement::{Base, Recovery, SignedRecovery, VoterSet},
};

use super::{Node, Result};
use crate::{
    api::{ApiError, Caller, Code, types},
    clock,
};

/// What goes on without a quorum.
const WORKS: &str = "traffic, DNS, endpoints, reads and renewal of certificates go on; changes of intent and \
                     admission of nodes do not";

/// Time for this node to hear a new leader.
const TRANSFER_HEARD: Duration = Duration::from_secs(3);

impl Node {
    /// The lost majority as this node sees it.
    pub(super) fn lost_majority(&self) -> Option<types::LostMajority> {
        let quorum = self.quorum();
        let lost = quorum.lost.as_ref()?;
        let silent = |s: &selvedge_consensus::Silent| types::SilentVoter {
            name: s.name.to_string(),
            heard: s.heard_ms.map(types::rfc3339),
        };
        Some(types::LostMajority {
            seen_by: self.identity.node.to_string(),
            since: types::rfc3339(lost.since_ms),
            since_ms_ago: clock::unix_ms().saturating_sub(lost.since_ms),
            voters: lost.voters,
            missing: lost.missing.iter().map(silent).collect(),
            works: WORKS.to_owned(),
            remedy: remedy(),
        })
    }

    pub(super) fn lost_majority_alarm(&self) -> Option<types::Alarm> {
        let lost = self.lost_majority()?;
        let missing: Vec<_> = lost
            .missing
            .iter()
            .map(|m| match &m.heard {
                Some(heard) => format!("{} (last heard {heard})", m.name),
                None => format!("{} (not heard since this node started)", m.name),
            })
            .collect();
        Some(types::Alarm {
            code: "majority-lost".to_owned(),
            message: format!(
                "{} does not hear {} of {} voters: {}; without a majority since {}. {}. {}",
                lost.seen_by,
                lost.missing.len(),
                lost.voters,
                missing.join(", "),
                lost.since,
                lost.works,
                lost.remedy
            ),
        })
    }

    fn replica_here(&self) -> Result<&Replica> {
        self.source.replica().ok_or_else(|| {
            ApiError::new(Code::Refused, "this is a workload node, which has no part in agreement")
                .remedy("ask a processor: use its local socket, or --api with its address")
        })
    }

    pub(super) async fn draft_recovery(&self, survivors: Vec<NodeName>) -> Result<types::RecoveryDraft> {
        let survivors: BTreeSet<NodeName> = survivors.into_iter().collect();
        let draft = self.replica_here()?.draft_recovery(&survivors, rand::random()).await;
        draft.map(|draft| tell(&draft)).map_err(|e| refusal(&e))
    }

    pub(super) async fn carry_out_recovery(
        &self,
        caller: &Caller,
        statement: &types::RecoveryStatement,
    ) -> Result<types::RecoveryReply> {
        caller.require_admin("recover the fabric")?;
        let signed = parse(statement)?;
        let recovered = self.replica_here()?.recover(signed).await.map_err(|e| refusal(&e))?;
        let texts = |names: &[NodeName]| names.iter().map(ToString::to_string).collect();
        Ok(types::RecoveryReply {
            fence_epoch: statement.fence_epoch,
            leader: recovered.leader.to_string(),
            took_over: texts(&recovered.took_over),
            missing: texts(&recovered.missing),
            took_ms: u64::try_from(recovered.took.as_millis()).unwrap_or(u64::MAX),
        })
    }

    pub(super) async fn transfer_to(&self, to: &NodeName) -> Result<types::QuorumReport> {
        let done = self.replica_here()?.transfer(to).await;
        done.map_err(|error| {
            let code = match &error {
                TransferError::NoLeader => Code::NoQuorum,
                TransferError::NotTaken { .. } => Code::Unavailable,
                _ => Code::Refused,
            };
            ApiError::new(code, error.to_string())
        })?;
        // This node may hear of it a moment later than the leader that handed over.
        let mut status = self.source.status();
        let leads = status.wait_for(|s| s.leader.as_ref() == Some(to));
        let _ = tokio::time::timeout(TRANSFER_HEARD, leads).await;
        Ok(self.report_quorum())
    }

    /// The same change on several nodes is one item.
    pub(super) async fn list_lost(&self) -> Result<Vec<types::LostChange>> {
        let mut changes: BTreeMap<(Epoch, Epoch, LostKey), (bool, BTreeSet<String>)> = BTreeMap::new();
        for (node, lost) in self.replica_here()?.lost().await {
            for entry in lost.entries {
                let (key, committed) = split(entry);
                let (known, nodes) = changes.entry((lost.began, lost.ended, key)).or_default();
                *known |= committed;
                nodes.insert(node.to_string());
            }
        }
        let change =
            |((began_epoch, ended_epoch, key), (committed, nodes)): (_, (bool, BTreeSet<String>))| {
                let LostKey { revision, at_ms, actor, summary } = key;
                types::LostChange {
                    ended_epoch,
                    began_epoch,
                    revision,
                    time: types::rfc3339(at_ms),
                    actor,
                    summary,
                    committed,
                    nodes: nodes.into_iter().collect(),
                }
            };
        Ok(changes.into_iter().map(change).collect())
    }
}

/// What makes a lost change the same on two nodes. The place in the log is left out: it is not known where the
/// change was found in the history alone.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct LostKey {
    revision: Option<u64>,
    at_ms: u64,
    actor: String,
    summary: String,
}

fn split(entry: LostEntry) -> (LostKey, bool) {
    let LostEntry { revision, at_ms, actor, summary, committed, .. } = entry;
    (LostKey { revision, at_ms, actor, summary }, committed)
}

fn remedy() -> String {
    "Bring voters back or restore their network. If they are lost for good: selvedge quorum recover --recovery-key \
     FILE, on one of the processors that are left"
        .to_owned()
}

/// What is known of the recovery that began an epoch.
pub(super) fn note(signed: &SignedRecovery) -> types::RecoveryNote {
    types::RecoveryNote {
        at: types::rfc3339(signed.recovery.at_ms),
        base_revision: signed.recovery.base.revision,
        base_index: signed.recovery.base.index,
    }
}

fn tell(draft: &Draft) -> types::RecoveryDraft {
    let (base, voters) = (&draft.plan.base, &draft.plan.voters);
    let source = draft.parties.iter().find(|p| p.name == draft.plan.source).and_then(|p| p.position);
    let newest = source.map_or_else(String::new, |p| format!(", made {}", types::rfc3339(p.clock_ms)));
    let unreached: Vec<_> =
        draft.parties.iter().filter(|p| p.position.is_none()).map(|p| p.name.to_string()).collect();
    let may_be_lost = if unreached.is_empty() {
        "nothing: every processor was reached".to_owned()
    } else {
        format!(
            "whatever {} agreed on after revision {}{newest}, and did not reach any processor that answers",
            unreached.join(", "),
            base.revision
        )
    };
    types::RecoveryDraft {
        fabric_id: draft.fabric.to_string(),
        recovery_key: draft.recovery_key.to_string(),
        candidates: draft.parties.iter().map(candidate).collect(),
        source: draft.plan.source.to_string(),
        base_term: base.term,
        base_index: base.index,
        base_revision: base.revision,
        base_hash: base.image.to_string(),
        fence_epoch: voters.epoch,
        sequence: voters.sequence,
        voters: draft.plan.names.iter().map(ToString::to_string).collect(),
        voter_keys: voters.voters.iter().map(ToString::to_string).collect(),
        may_be_lost,
    }
}

fn candidate(party: &Party) -> types::RecoveryCandidate {
    let known = types::RecoveryCandidate {
        name: party.name.to_string(),
        zone: party.zone.clone(),
        voter: party.voter,
        ..types::RecoveryCandidate::default()
    };
    let Some(position) = party.position else { return known };
    types::RecoveryCandidate {
        reached: true,
        fence_epoch: position.epoch,
        term: position.term,
        index: position.index,
        committed: position.committed,
        revision: position.revision,
        newest: (position.clock_ms > 0).then(|| types::rfc3339(position.clock_ms)),
        hash: position.image.to_string(),
        ..known
    }
}

fn refusal(error: &RecoverError) -> ApiError {
    let code = match error {
        RecoverError::Quorum | RecoverError::Plan(_) => Code::Refused,
        RecoverError::Fence(FenceError::Statement(_) | FenceError::Image) => Code::Refused,
        RecoverError::Fence(FenceError::Lower { .. }) | RecoverError::NoState => Code::Conflict,
        RecoverError::NoPolicy
        | RecoverError::Fence(
            FenceError::NoKey | FenceError::Stopping | FenceError::Store(_) | FenceError::Start(_),
        )
        | RecoverError::NoLeader { .. }
        | RecoverError::Local(_) => Code::Unavailable,
    };
    ApiError::new(code, error.to_string())
}

fn parse(statement: &types::RecoveryStatement) -> Result<SignedRecovery> {
    let bad = |what: &str, why: &dyn std::fmt::Display| ApiError::bad_request(format!("{what}: {why}"));
    let keys: std::result::Result<BTreeSet<PublicKey>, _> =
        statement.voter_keys.iter().map(|key| key.parse()).collect();
    let voters = VoterSet {
        epoch: statement.fence_epoch,
        sequence: statement.sequence,
        voters: keys.map_err(|e| bad("voter_keys", &e))?,
    };
    let base = Base {
        term: statement.base_term,
        index: statement.base_index,
        revision: statement.base_revision,
        image: statement.base_hash.parse().map_err(|e| bad("base_hash", &e))?,
    };
    let fabric = statement.fabric_id.parse().map_err(|e| bad("fabric_id", &e))?;
    let signature = statement.signature.parse().map_err(|e| bad("signature", &e))?;
    Ok(SignedRecovery { recovery: Recovery { fabric, base, voters, at_ms: statement.at_ms }, signature })
}
