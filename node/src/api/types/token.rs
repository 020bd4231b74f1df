//! Tokens.

use selvedge_fabric::command::Rights;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Asks for a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum TokenRequest {
    /// Admits nodes.
    Join {
        /// `processor` or `workload`.
        role: String,
        /// The zone it admits to.
        zone: String,
        /// How many nodes it admits; 1 when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        uses: Option<u32>,
        /// How long it lasts; an hour when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
        /// Seed addresses to write into it; the live processors' when empty.
        #[serde(default)]
        seeds: Vec<String>,
    },
    /// Proves that an endpoint is of a service.
    Service {
        /// The service, `name@domain`.
        service: String,
        /// Nodes on which it may be used; any when both lists are empty.
        #[serde(default)]
        nodes: Vec<String>,
        /// Zones or clouds in which it may be used.
        #[serde(default)]
        zones: Vec<String>,
        /// How long it lasts; 30 days when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
    /// Opens the API.
    Api {
        /// Who it stands for; domains list such names as admins.
        name: String,
        /// `admin`, `domain` or `read`.
        #[schema(value_type = String)]
        rights: Rights,
        /// How long it lasts; 90 days when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        ttl_ms: Option<u64>,
    },
}

/// A new token. The text is shown this once.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// Its id, by which it is listed and revoked.
    pub id: String,
    /// The token itself: a secret.
    pub token: String,
    /// `join`, `service` or `api`.
    pub kind: String,
    /// When it ends.
    pub expires: String,
    /// The revision that made it known.
    #[serde(default)]
    pub revision: selvedge_fabric::Revision,
}

impl std::fmt::Debug for TokenCreated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenCreated({} {})", self.kind, self.id)
    }
}

/// A token without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenItem {
    /// Its id.
    pub id: String,
    /// `join`, `service` or `api`.
    pub kind: String,
    /// What it is for: `processor in aws`, the service, or the name with its rights.
    pub subject: String,
    /// When it ends.
    pub expires: String,
    /// It has ended.
    pub expired: bool,
    /// How many nodes a join token may still admit.
    #[serde(default)]
    pub uses_left: Option<u32>,
    /// Where a service token may be used; anywhere when empty.
    #[serde(default)]
    pub scope: Vec<String>,
}
