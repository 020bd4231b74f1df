//! Isolation of this node for a drill.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which direction is cut.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CutDirection {
    /// Both.
    #[default]
    Both,
    /// What this node says does not reach them.
    To,
    /// What they say does not reach this node.
    From,
}

/// Somebody from whom this node is cut off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IsolationCut {
    /// `all`, `cloud/NAME` or `node/NAME`.
    pub whom: String,
    /// In which direction.
    #[serde(default)]
    pub direction: CutDirection,
}

/// Takes this node for a drill, renews that, or changes what is cut.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct IsolationRequest {
    /// The drill, for people.
    pub drill: String,
    /// A random word of 1 to 64 letters, digits or `-`, the same in every request of one run: nobody else may
    /// renew or release.
    pub holder: String,
    /// How long it lasts unless it is renewed, 1,000 to 600,000 milliseconds; 5,000 unless said.
    #[serde(default)]
    pub lease_ms: Option<u64>,
    /// All that is cut from now on, at most 256; none only keeps other drills away.
    #[serde(default)]
    pub cuts: Vec<IsolationCut>,
}

/// A drill that has this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IsolationLease {
    /// The drill.
    pub drill: String,
    /// On whose behalf.
    pub by: String,
    /// How long it lasts from now, unless it is renewed.
    pub left_ms: u64,
    /// When that is.
    pub until: String,
    /// What is cut.
    pub cuts: Vec<IsolationCut>,
}

/// What drills do to this node, and may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IsolationReport {
    /// The node.
    pub node: String,
    /// Whether its configuration lets drills have it.
    pub allowed: bool,
    /// The drill that has it.
    #[serde(default)]
    pub lease: Option<IsolationLease>,
}
