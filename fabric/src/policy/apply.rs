//! From envelope to outcome: what is the same for every command.

use super::{HistoryEntry, PolicyState};
use crate::{
    UnixMs,
    command::{Applied, Change, ChangeAction, Command, Envelope, Limits, Refusal},
};

/// What a command did, before it gets a revision.
#[derive(Debug, Default)]
pub(super) struct Done {
    /// What changed; nothing leaves the revision as it is.
    pub(super) changes: Vec<Change>,
    /// A line for the history.
    pub(super) summary: String,
}

impl Done {
    /// One change of something that is no object.
    pub(super) fn one(action: ChangeAction, what: String, summary: String) -> Self {
        Self { changes: vec![Change { action, what, key: None, before: None, after: None }], summary }
    }
}

impl PolicyState {
    /// Applies one command. A refusal leaves intent as it was; only its outcome is remembered and the
    /// clock moves on. A command whose id is remembered gets the outcome it had and does nothing.
    ///
    /// # Errors
    /// The refusal, with every problem it found.
    pub fn apply(&mut self, envelope: &Envelope) -> Result<Applied, Refusal> {
        if let Some((_, outcome)) = self.remembered.iter().find(|(id, _)| *id == envelope.id) {
            return outcome.clone();
        }
        // Leaders have different clocks: after a change of leader time must not run backwards, or a
        // token that has ended could be used again.
        self.clock_ms = self.clock_ms.max(envelope.at_ms);
        let now_ms = self.clock_ms;
        let outcome = self.carry_out(&envelope.command, now_ms).map(|done| self.commit(envelope, done));
        self.remember(envelope.id, &outcome);
        outcome
    }

    fn carry_out(&mut self, command: &Command, now_ms: UnixMs) -> Result<Done, Refusal> {
        match (command, &self.params) {
            (Command::Init { .. }, None) => {}
            (Command::Init { .. }, Some(params)) => {
                return Err(Refusal::Lifecycle(format!(
                    "this is the fabric {} already; make a new one in an empty data directory",
                    params.name
                )));
            }
            (_, None) => {
                return Err(Refusal::Lifecycle(
                    "the fabric is not initialised yet; run selvedge fabric init on its first processor"
                        .to_owned(),
                ));
            }
            (_, Some(_)) => {}
        }
        match command {
            Command::Init { params, first } => self.init(params, first, now_ms),
            Command::Apply(apply) => self.apply_objects(apply, now_ms),
            Command::Rollback { to, base } => self.roll_back(*to, *base, now_ms),
            Command::CreateJoinToken(token) => self.create_join_token(token, now_ms),
            Command::CreateServiceToken(token) => self.create_service_token(token, now_ms),
            Command::CreateApiToken(token) => self.create_api_token(token, now_ms),
            Command::RevokeToken { id } => self.revoke_token(*id),
            Command::Admit(admit) => self.admit(admit, now_ms),
            Command::SealIssuer { node, sealed } => self.seal_issuer(node, sealed),
            Command::SetNodeState { node, state } => self.set_node_state(node, *state),
            Command::RemoveNode { node } => self.remove_node(node),
            Command::ReleaseBlocks { blocks } => Ok(self.release_blocks(blocks)),
            Command::StepRollout { contract, revision, since_ms, step } => {
                self.step_rollout(contract, (*revision, *since_ms), step, now_ms)
            }
        }
    }

    /// Gives what was done its revision and its place in the history.
    fn commit(&mut self, envelope: &Envelope, done: Done) -> Applied {
        if !done.changes.is_empty() {
            self.revision = self.revision.saturating_add(1);
            self.record(HistoryEntry {
                revision: self.revision,
                at_ms: self.clock_ms,
                actor: super::history::cut(&envelope.actor, Limits::ACTOR_BYTES),
                summary: done.summary,
                changes: done.changes.clone(),
            });
        }
        Applied { revision: self.revision, changes: done.changes }
    }
}
