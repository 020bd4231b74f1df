//! Who asks.

use selvedge_fabric::{
    command::Rights,
    id::{EndpointId, ServiceRef},
    key::TokenId,
};

use super::error::ApiError;

/// Who asks, as far as the node has proof of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A process on this host that the file permissions let open the local socket: it may do everything,
    /// as whoever may open that socket could read the data directory too.
    Local {
        /// Its user id.
        uid: u32,
    },
    /// The holder of an API token.
    Token {
        /// The token.
        id: TokenId,
        /// Who it stands for.
        name: String,
        /// What it may do.
        rights: Rights,
    },
    /// An endpoint on this node, known by its attached source address; workload API only.
    Endpoint {
        /// The endpoint.
        endpoint: EndpointId,
        /// The service it proved.
        service: ServiceRef,
    },
}

impl Caller {
    /// The name under which the history remembers what this caller did.
    #[must_use]
    pub fn actor(&self) -> String {
        match self {
            Self::Local { uid } => format!("local:{uid}"),
            Self::Token { name, .. } => name.clone(),
            Self::Endpoint { endpoint, .. } => format!("endpoint:{endpoint}"),
        }
    }

    /// Whether the caller may do everything.
    #[must_use]
    pub const fn is_admin(&self) -> bool {
        matches!(self, Self::Local { .. } | Self::Token { rights: Rights::Admin, .. })
    }

    /// Refuses a caller that may not do everything.
    ///
    /// # Errors
    /// [`super::Code::Forbidden`], naming what was tried.
    pub fn require_admin(&self, what: &str) -> Result<(), ApiError> {
        if self.is_admin() {
            return Ok(());
        }
        let detail = format!("{} may not {what}", self.actor());
        Err(ApiError::forbidden(detail).remedy("use the local socket or an API token with admin rights"))
    }

    /// Refuses a caller that may change nothing at all. Which domains the others may change is judged
    /// against the policy, in [`super::rights`].
    ///
    /// # Errors
    /// [`super::Code::Forbidden`], naming what was tried.
    pub fn require_writer(&self, what: &str) -> Result<(), ApiError> {
        match self {
            Self::Local { .. } | Self::Token { rights: Rights::Admin | Rights::Domain, .. } => Ok(()),
            Self::Token { .. } | Self::Endpoint { .. } => {
                let detail = format!("{} may read but not {what}", self.actor());
                Err(ApiError::forbidden(detail).remedy("use an API token with domain or admin rights"))
            }
        }
    }
}
