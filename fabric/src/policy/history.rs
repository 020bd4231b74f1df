//! What was: the history of revisions, bounded, and the outcomes of recent commands.

use std::collections::BTreeMap;

use super::{HistoryEntry, PolicyState};
use crate::{
    Revision,
    command::{Applied, Change, Limits, Refusal},
    key::CommandId,
    object::{ObjectKey, Spec},
};

impl PolicyState {
    pub(super) fn record(&mut self, entry: HistoryEntry) {
        self.history.push_back(entry);
        let mut changes: usize = self.history.iter().map(|e| e.changes.len()).sum();
        while self.history.len() > 1
            && (self.history.len() > Limits::HISTORY || changes > Limits::HISTORY_CHANGES)
        {
            changes -= self.history.pop_front().map_or(0, |e| e.changes.len());
        }
    }

    /// Remembers an outcome for a client that repeats its command. The objects' contents are left out:
    /// they are in the history, and thousands of copies of them would be in every snapshot.
    pub(super) fn remember(&mut self, id: CommandId, outcome: &Result<Applied, Refusal>) {
        let light = outcome.as_ref().map_err(Clone::clone).map(|applied| Applied {
            revision: applied.revision,
            changes: applied
                .changes
                .iter()
                .map(|c| Change { before: None, after: None, key: c.key.clone(), what: c.what.clone(), ..*c })
                .collect(),
        });
        self.remembered.push_back((id, light));
        let size = |outcome: &Result<Applied, Refusal>| match outcome {
            Ok(applied) => applied.changes.len(),
            Err(Refusal::Invalid(problems)) => problems.len(),
            Err(_) => 0,
        };
        let mut changes: usize = self.remembered.iter().map(|(_, outcome)| size(outcome)).sum();
        while self.remembered.len() > 1
            && (self.remembered.len() > Limits::REMEMBERED_COMMANDS || changes > Limits::REMEMBERED_CHANGES)
        {
            changes -= self.remembered.pop_front().map_or(0, |(_, outcome)| size(&outcome));
        }
    }

    /// The objects as they were at an earlier revision: the present ones with every later change undone,
    /// newest first.
    pub(super) fn objects_at(&self, to: Revision) -> Result<BTreeMap<ObjectKey, Spec>, Refusal> {
        if to > self.revision {
            return Err(Refusal::NotFound(format!(
                "there is no revision {to} yet; the fabric is at revision {}",
                self.revision
            )));
        }
        let oldest = self.history.front().map_or(self.revision, |entry| entry.revision.saturating_sub(1));
        if to < oldest {
            return Err(Refusal::NotFound(format!(
                "revision {to} is no longer in the history, which reaches back to revision {oldest}; \
                 apply an export of it instead"
            )));
        }
        let mut objects = self.objects.clone();
        for entry in self.history.iter().rev().take_while(|entry| entry.revision > to) {
            for change in entry.changes.iter().rev() {
                let Some(key) = &change.key else { continue };
                match &change.before {
                    Some(before) => objects.insert(key.clone(), before.spec.clone()),
                    None => objects.remove(key),
                };
            }
        }
        Ok(objects)
    }
}

/// At most `max_bytes` of `text`, cut between characters.
pub(super) fn cut(text: &str, max_bytes: usize) -> String {
    let end = (0..=max_bytes.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap_or(0);
    text[..end].to_owned()
}
