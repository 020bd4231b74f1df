//! Intent: objects, changes, history.

use selvedge_fabric::{
    Revision, command,
    manifest::{self, API_VERSION},
    object::Object,
    policy::HistoryEntry,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::rfc3339;

/// An object as people write it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always `selvedge/v1`.
    pub api_version: String,
    /// The kind, for instance `Contract`.
    pub kind: String,
    /// Which object.
    pub metadata: Metadata,
    /// What it says; the fields depend on the kind.
    #[schema(value_type = Object)]
    pub spec: Value,
}

/// Which object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// The domain it lives in, if its kind has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
}

/// Several files of manifests that are applied together.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestFiles {
    /// The files.
    pub files: Vec<ManifestFile>,
}

/// A file of manifests.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// Its name, for problems.
    pub name: String,
    /// What it holds, YAML or JSON.
    pub text: String,
}

/// What an apply, a delete or a rollback did, or would do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplyReply {
    /// The revision after it; the present one when nothing changed or it was a dry run.
    pub revision: Revision,
    /// What changed; empty when everything was so already.
    pub changes: Vec<Change>,
    /// Nothing was written.
    #[serde(default)]
    pub dry_run: bool,
}

/// One object that changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// `created`, `updated` or `deleted`.
    pub action: String,
    /// The kind; `Node` or `Token` for what is no object.
    pub kind: String,
    /// The name.
    pub name: String,
    /// The domain, for kinds that live in one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<String>,
    /// The object before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Manifest>,
    /// The object after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Manifest>,
}

/// Asks for objects to be deleted, all or nothing.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteRequest {
    /// Which.
    pub objects: Vec<ObjectName>,
    /// Refuse unless this is the present revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<Revision>,
    /// Tell what would be deleted, write nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// A word on why, for the history.
    #[serde(default)]
    pub message: String,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    /// The kind, in any case.
    pub kind: String,
    /// `name`, or `name@domain` for kinds that live in a domain.
    pub name: String,
}

/// Asks for the objects of an earlier revision.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    /// The revision to return to.
    pub to: Revision,
    /// Refuse unless this is the present revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub if_revision: Option<Revision>,
}

/// One revision of the history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HistoryItem {
    /// The revision.
    pub revision: Revision,
    /// When it was made.
    pub time: String,
    /// Who made it.
    pub actor: String,
    /// A line on what.
    pub summary: String,
    /// What changed.
    pub changes: Vec<Change>,
}

/// An object with what surrounds it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Description {
    /// The object.
    pub object: Manifest,
    /// The revision that last changed it, when the history still knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_change: Option<HistoryItem>,
    /// Objects it refers to, as `Kind name@domain`.
    pub refers_to: Vec<String>,
    /// Objects that refer to it, as `Kind name@domain`.
    pub referred_by: Vec<String>,
    /// Endpoints of the service, or those that serve the contract.
    pub endpoints: Vec<super::Endpoint>,
    /// The revision at which this was read.
    pub revision: Revision,
}

/// Whether a revision is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WaitReply {
    /// Every node that counts enforces the revision.
    pub enforced: bool,
    /// The revision waited for.
    pub revision: Revision,
    /// Who does not, when the time was up.
    pub stragglers: Vec<Straggler>,
}

/// A node that does not enforce a revision yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Straggler {
    /// The node.
    pub name: String,
    /// Its state as seen from here, for instance `down`.
    pub state: String,
    /// What it enforces as far as is known.
    #[serde(default)]
    pub enforced_revision: Option<Revision>,
}

impl From<&Object> for Manifest {
    fn from(object: &Object) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: object.key.kind.to_string(),
            metadata: Metadata {
                name: object.key.name.clone(),
                domain: object.key.domain.as_ref().map(ToString::to_string),
            },
            spec: manifest::to_value(object)["spec"].take(),
        }
    }
}

impl From<&command::Change> for Change {
    fn from(change: &command::Change) -> Self {
        let action = match change.action {
            command::ChangeAction::Created => "created",
            command::ChangeAction::Updated => "updated",
            command::ChangeAction::Deleted => "deleted",
        };
        let (kind, name, domain) = match &change.key {
            Some(key) => {
                (key.kind.to_string(), key.name.clone(), key.domain.as_ref().map(ToString::to_string))
            }
            None => {
                let (kind, name) = change.what.split_once(' ').unwrap_or(("", &change.what));
                (kind.to_owned(), name.to_owned(), None)
            }
        };
        Self {
            action: action.to_owned(),
            kind,
            name,
            domain,
            before: change.before.as_ref().map(Manifest::from),
            after: change.after.as_ref().map(Manifest::from),
        }
    }
}

impl From<&HistoryEntry> for HistoryItem {
    fn from(entry: &HistoryEntry) -> Self {
        Self {
            revision: entry.revision,
            time: rfc3339(entry.at_ms),
            actor: entry.actor.clone(),
            summary: entry.summary.clone(),
            changes: entry.changes.iter().map(Change::from).collect(),
        }
    }
}

impl From<&command::Applied> for ApplyReply {
    fn from(applied: &command::Applied) -> Self {
        let changes = applied.changes.iter().map(Change::from).collect();
        Self { revision: applied.revision, changes, dry_run: false }
    }
}
