//! Who asks, and what follows from it.

use std::{fmt, str::FromStr};

use selvedge_fabric::id::{IdError, ServiceRef};

/// Who asks. It decides which names exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// Somebody without an identity: sees the apex and the name server, and no service.
    Nothing,
    /// An operator: sees everything.
    All,
    /// A service: sees the contracts it may reach, and what serves them.
    Service(ServiceRef),
}

/// Which view queries from the host itself get (`dns.hostView`).
///
/// Processes on the host that are not attached have no identity, so by default they see nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum HostView {
    /// Nothing of the services.
    #[default]
    None,
    /// Everything.
    All,
    /// What this service sees.
    Service(ServiceRef),
}

/// Text that is no [`HostView`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the host view must be none, all or a service (name@domain): {0}")]
pub struct HostViewError(#[from] IdError);

impl HostView {
    /// The asker that the host's own queries count as.
    #[must_use]
    pub fn asker(&self) -> Asker {
        match self {
            Self::None => Asker::Nothing,
            Self::All => Asker::All,
            Self::Service(service) => Asker::Service(service.clone()),
        }
    }
}

impl FromStr for HostView {
    type Err = HostViewError;

    fn from_str(text: &str) -> Result<Self, HostViewError> {
        match text {
            "none" => Ok(Self::None),
            "all" => Ok(Self::All),
            service => Ok(Self::Service(service.parse()?)),
        }
    }
}

impl fmt::Display for HostView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.pad("none"),
            Self::All => f.pad("all"),
            Self::Service(service) => write!(f, "{service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_view_reads_as_it_is_written() {
        for text in ["none", "all", "worker@voting-app"] {
            assert_eq!(text.parse::<HostView>().unwrap().to_string(), text);
        }
        let refused = "worker".parse::<HostView>().unwrap_err().to_string();
        assert!(refused.contains("none, all or a service"), "{refused}");
    }
}
