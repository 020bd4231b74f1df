//! Values that are written as text within specs: ports, role bindings, selectors.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::id::{ContractRef, Name, ObjectRef, ServiceRef};

/// A role that a service plays in a contract. After validation the contract always has its domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RoleBinding {
    /// The contract.
    pub contract: ContractRef,
    /// The role in it.
    pub role: Name,
}

/// `*`, `*@domain` or `service@domain`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Selector {
    /// Every service.
    All,
    /// Every service of a domain.
    Domain(Name),
    /// One service.
    Service(ServiceRef),
}

/// Transport protocols that a contract can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP and ICMPv6.
    Icmp,
    /// Every protocol.
    Any,
}

/// A protocol and an inclusive range of ports: `tcp/80`, `tcp/8000-8100`, `udp/53`, `icmp`, `any`.
/// `icmp` and `any` have the range 0–65535.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PortRange {
    /// The protocol.
    pub protocol: Protocol,
    /// First port.
    pub low: u16,
    /// Last port, not below the first.
    pub high: u16,
}

impl PortRange {
    /// Whether every port of `other` lies in this range.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let protocol = self.protocol == Protocol::Any || self.protocol == other.protocol;
        protocol && self.low <= other.low && other.high <= self.high
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Icmp => "icmp",
            Self::Any => "any",
        })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.low, self.high) {
            (0, u16::MAX) => write!(f, "{}", self.protocol),
            (low, high) if low == high => write!(f, "{}/{low}", self.protocol),
            (low, high) => write!(f, "{}/{low}-{high}", self.protocol),
        }
    }
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is not a port; write tcp/80, tcp/8000-8100, udp/53, icmp or any");
        let (protocol, ports) = match text.split_once('/') {
            Some((p, ports)) => (p, Some(ports)),
            None => (text, None),
        };
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            "any" => Protocol::Any,
            _ => return Err(bad()),
        };
        let with_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp);
        let Some(ports) = ports else { return Ok(Self { protocol, low: 0, high: u16::MAX }) };
        if !with_ports {
            return Err(bad());
        }
        let (low, high) = ports.split_once('-').unwrap_or((ports, ports));
        // Rust's own parser also takes a sign and leading zeros.
        let parse = |p: &str| p.parse::<u16>().ok().filter(|n| n.to_string() == p).ok_or_else(bad);
        let (low, high) = (parse(low)?, parse(high)?);
        if low > high || low == 0 { Err(bad()) } else { Ok(Self { protocol, low, high }) }
    }
}

impl fmt::Display for RoleBinding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.role, self.contract)
    }
}

impl RoleBinding {
    /// Parses `role:contract[@domain]`; a contract without a domain is one of `home`.
    ///
    /// # Errors
    /// When the text has another form.
    pub fn parse_in(text: &str, home: Option<&Name>) -> Result<Self, String> {
        let (role, contract) =
            text.split_once(':').ok_or_else(|| format!("{text:?} must have the form role:contract"))?;
        let role = Name::new(role).map_err(|e| e.to_string())?;
        let contract = ObjectRef::parse_in(contract, home).map_err(|e| e.to_string())?;
        Ok(Self { contract, role })
    }
}

impl FromStr for RoleBinding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse_in(text, None)
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("*"),
            Self::Domain(domain) => write!(f, "*@{domain}"),
            Self::Service(service) => write!(f, "{service}"),
        }
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix('*') {
            Some("") => Ok(Self::All),
            Some(rest) => match rest.strip_prefix('@') {
                Some(domain) => Name::new(domain).map(Self::Domain).map_err(|e| e.to_string()),
                None => Err(format!("{text:?} must be *, *@domain or service@domain")),
            },
            None => text.parse().map(Self::Service).map_err(|e: crate::id::IdError| e.to_string()),
        }
    }
}

impl Selector {
    /// Whether it selects `service`.
    #[must_use]
    pub fn selects(&self, service: &ServiceRef) -> bool {
        match self {
            Self::All => true,
            Self::Domain(domain) => *domain == service.domain,
            Self::Service(one) => one == service,
        }
    }
}

/// Serde by way of the text form.
macro_rules! text_serde {
    ($($t:ty),*) => {$(
        impl TryFrom<String> for $t {
            type Error = String;
            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }
        impl From<$t> for String {
            fn from(value: $t) -> Self {
                value.to_string()
            }
        }
    )*};
}
text_serde!(PortRange, RoleBinding, Selector);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_read_as_they_are_written() {
        for good in ["tcp/80", "tcp/8000-8100", "udp/53", "icmp", "any", "tcp"] {
            assert_eq!(good.parse::<PortRange>().map(|p| p.to_string()).as_deref(), Ok(good));
        }
        for bad in [
            "",
            "80",
            "tcp/",
            "tcp/0",
            "tcp/9-8",
            "tcp/65536",
            "icmp/8",
            "TCP/80",
            "tcp/1-2-3",
            "tcp/+1",
            "tcp/080",
        ] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn bindings_and_selectors_are_read_as_they_are_written() {
        assert_eq!("server:a@b".parse::<RoleBinding>().map(|b| b.to_string()).as_deref(), Ok("server:a@b"));
        assert!("server".parse::<RoleBinding>().is_err());
        for good in ["*", "*@app", "web@app"] {
            assert_eq!(good.parse::<Selector>().map(|s| s.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "web", "**", "*app", "*@", "web@*"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
