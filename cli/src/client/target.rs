//! Where a node is asked.

use std::{fmt, path::PathBuf, str::FromStr};

use hyper::Uri;
use selvedge_fabric::id::NodeName;

use crate::failure::Failure;

/// Port of the API when the address names none.
const API_PORT: u16 = 7443;

/// Where a node is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// The local socket.
    Unix(PathBuf),
    /// TLS on the network.
    Https {
        /// Host name or address, without brackets.
        host: String,
        /// Port.
        port: u16,
        /// The node that must answer; any processor when absent.
        node: Option<NodeName>,
    },
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{}", path.display()),
            Self::Https { host, port, node } => {
                let node = node.as_ref().map(|n| format!("{n}@")).unwrap_or_default();
                let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
                write!(f, "https://{node}{host}:{port}")
            }
        }
    }
}

impl FromStr for Target {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let bad = |why: &str| {
            Failure::usage(format!("API address {text:?}: {why}")).remedy("write https://node.example:7443")
        };
        let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = full.parse().map_err(|_| bad("not an address"))?;
        if uri.scheme_str() != Some("https") {
            return Err(bad("the API speaks TLS only"));
        }
        if !matches!(uri.path(), "" | "/") || uri.query().is_some() {
            return Err(bad("must have no path"));
        }
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| bad("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let before_host = uri.authority().and_then(|a| a.as_str().rsplit_once('@'));
        let node = before_host.map(|(node, _)| node.parse()).transpose();
        let node = node.map_err(|_| bad("what stands before @ must be the name of a node"))?;
        Ok(Self::Https { host, port: uri.port_u16().unwrap_or(API_PORT), node })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_defaults_and_no_path() {
        let text = |t: &str| t.parse::<Target>().map(|t| t.to_string()).map_err(|f| f.code);
        assert_eq!(text("https://a.example"), Ok("https://a.example:7443".into()));
        assert_eq!(text("10.0.0.1:99"), Ok("https://10.0.0.1:99".into()));
        assert_eq!(text("https://[fd00::1]:7443/"), Ok("https://[fd00::1]:7443".into()));
        assert_eq!(text("w1@10.0.0.1"), Ok("https://w1@10.0.0.1:7443".into()));
        assert_eq!(text("https://w1@[fd00::1]:99"), Ok("https://w1@[fd00::1]:99".into()));
        for bad in [
            "https://user:secret@a",
            "https://@a",
            "http://a",
            "https://a/v1",
            "https://",
            "",
            "https://a?x=1",
            "ftp://a",
        ] {
            assert_eq!(text(bad), Err(2), "{bad}");
        }
    }
}
