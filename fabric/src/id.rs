//! Validated names. A value of these types is always well formed.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: a DNS label (RFC 1035, section 2.3.4).
pub const MAX_NAME_BYTES: usize = 63;

/// Why a string is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The name is empty or longer than [`MAX_NAME_BYTES`].
    #[error("{0:?} must have 1 to {MAX_NAME_BYTES} characters")]
    Length(String),
    /// A character that a DNS label may not hold.
    #[error("{0:?} may hold only a-z, 0-9 and '-', and must start and end with a letter or digit")]
    Characters(String),
    /// Not of the form `name@domain`.
    #[error("{0:?} must have the form name@domain")]
    Reference(String),
    /// Not of the form `cloud` or `cloud/region`.
    #[error("{0:?} must have the form cloud or cloud/region")]
    Zone(String),
    /// Not a key or id in the expected text form.
    #[error("{what} {text:?} is malformed: {why}")]
    Encoding {
        /// What was expected.
        what: &'static str,
        /// What was found.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

/// A lower-case DNS label: `[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?` (RFC 1123, section 2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

impl Name {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// When it is not a lower-case DNS label.
    pub fn new(text: &str) -> Result<Self, IdError> {
        let edge = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
        if text.is_empty() || text.len() > MAX_NAME_BYTES {
            return Err(IdError::Length(text.to_owned()));
        }
        let bytes = text.as_bytes();
        let inner = bytes.iter().all(|&c| edge(c) || c == b'-');
        if !inner || !edge(bytes[0]) || !edge(bytes[bytes.len() - 1]) {
            return Err(IdError::Characters(text.to_owned()));
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A failure domain: `cloud` or `cloud/region`. Its first part is the *cloud* that placement, DNS
/// and drills speak of.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ZoneName {
    cloud: Name,
    region: Option<Name>,
}

impl ZoneName {
    /// The zone that stands for a whole cloud.
    #[must_use]
    pub const fn of_cloud(cloud: Name) -> Self {
        Self { cloud, region: None }
    }

    /// The cloud this zone belongs to.
    #[must_use]
    pub const fn cloud(&self) -> &Name {
        &self.cloud
    }

    /// Whether `other` is this zone or, when this one stands for a whole cloud, lies in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        self.cloud == other.cloud && (self.region.is_none() || self.region == other.region)
    }

    /// The region, if the zone names one.
    #[must_use]
    pub const fn region(&self) -> Option<&Name> {
        self.region.as_ref()
    }
}

impl fmt::Display for ZoneName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.region {
            Some(region) => write!(f, "{}/{region}", self.cloud),
            None => write!(f, "{}", self.cloud),
        }
    }
}

impl FromStr for ZoneName {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut parts = text.split('/');
        let cloud = Name::new(parts.next().unwrap_or_default())?;
        let region = parts.next().map(Name::new).transpose()?;
        match parts.next() {
            None => Ok(Self { cloud, region }),
            Some(_) => Err(IdError::Zone(text.to_owned())),
        }
    }
}

/// `name@domain`: a contract, service or template of a domain.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ObjectRef {
    /// The domain the object lives in.
    pub domain: Name,
    /// The object's own name.
    pub name: Name,
}

/// A service, `name@domain`.
pub type ServiceRef = ObjectRef;
/// A contract, `name@domain`.
pub type ContractRef = ObjectRef;

impl ObjectRef {
    /// The object `name` of `domain`.
    #[must_use]
    pub const fn new(name: Name, domain: Name) -> Self {
        Self { domain, name }
    }

    /// Parses `name@domain`, or `name` as an object of `home` when one is given.
    ///
    /// # Errors
    /// When the text has neither form, or a part is not a valid name.
    pub fn parse_in(text: &str, home: Option<&Name>) -> Result<Self, IdError> {
        match (text.split_once('@'), home) {
            (Some((name, domain)), _) => Ok(Self::new(Name::new(name)?, Name::new(domain)?)),
            (None, Some(home)) => Ok(Self::new(Name::new(text)?, home.clone())),
            (None, None) => Err(IdError::Reference(text.to_owned())),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.domain)
    }
}

impl FromStr for ObjectRef {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse_in(text, None)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for Name {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::new(text)
    }
}

/// The name of a node: unique in the fabric, also the first label of its DNS name.
pub type NodeName = Name;
/// The name of an endpoint: unique in the fabric, also the first label of its DNS name.
pub type EndpointId = Name;

/// Serde and Debug by way of the text form.
macro_rules! text_form {
    ($($t:ty),*) => {$(
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl TryFrom<String> for $t {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }
        impl From<$t> for String {
            fn from(id: $t) -> Self {
                id.to_string()
            }
        }
    )*};
}
text_form!(Name, ZoneName, ObjectRef);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "0", "http-proxy", &"x".repeat(63)] {
            assert_eq!(Name::new(good).map(String::from), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"x".repeat(64)] {
            assert!(Name::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_have_a_cloud_and_perhaps_a_region() {
        let zone: ZoneName = "aws/us-east-1".parse().expect("a zone");
        assert_eq!((zone.cloud().as_str(), zone.to_string().as_str()), ("aws", "aws/us-east-1"));
        assert!("aws/a/b".parse::<ZoneName>().is_err());
        assert!("/a".parse::<ZoneName>().is_err());
    }

    #[test]
    fn references_take_the_home_domain() {
        let home = Name::new("voting-app").expect("a name");
        let short = ObjectRef::parse_in("worker", Some(&home)).expect("a reference");
        assert_eq!(short.to_string(), "worker@voting-app");
        assert!(ObjectRef::parse_in("worker", None).is_err());
        assert!("a@b@c".parse::<ObjectRef>().is_err());
    }
}
