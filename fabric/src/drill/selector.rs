//! Which nodes or clouds a step means, without knowing the fabric.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::span::text_serde;
use crate::id::Name;

/// The largest number of a cloud or node.
const MAX_NUMBER: u32 = 999;

/// Nodes, by what they are at the moment when they are needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selector {
    /// `all`: every node.
    All,
    /// `others`: every cloud that the other sides of a cut or partition do not name; only there.
    Others,
    /// `leader`: the node that leads.
    Leader,
    /// `node/NAME`: this node.
    Node(Name),
    /// `node#2`: the second node in the order of names.
    NodeNumber(u32),
    /// `cloud/NAME`: every node of this cloud.
    Cloud(Name),
    /// `cloud#2`: every node of the second cloud; those that the command line names come first, then the
    /// others in the order of names.
    CloudNumber(u32),
    /// `cloud#leader`: every node of the cloud in which the leader is.
    LeaderCloud,
}

impl Selector {
    /// Whether it stands for whole clouds.
    #[must_use]
    pub const fn is_cloud(&self) -> bool {
        matches!(self, Self::Cloud(_) | Self::CloudNumber(_) | Self::LeaderCloud | Self::Others)
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || {
            format!(
                "{text:?} names no nodes; write all, others, leader, node/NAME, node#1, cloud/NAME, cloud#1 or \
                 cloud#leader"
            )
        };
        let number = |digits: &str| {
            let number = digits.parse().ok().filter(|n| (1..=MAX_NUMBER).contains(n));
            number.filter(|_| digits.bytes().all(|b| b.is_ascii_digit())).ok_or_else(bad)
        };
        let name = |name: &str| Name::new(name).map_err(|error| format!("{text:?}: {error}"));
        match text {
            "all" => return Ok(Self::All),
            "others" => return Ok(Self::Others),
            "leader" => return Ok(Self::Leader),
            "cloud#leader" => return Ok(Self::LeaderCloud),
            _ => {}
        }
        match (text.split_once('/'), text.split_once('#')) {
            (Some(("node", rest)), _) => name(rest).map(Self::Node),
            (Some(("cloud", rest)), _) => name(rest).map(Self::Cloud),
            (_, Some(("node", rest))) => number(rest).map(Self::NodeNumber),
            (_, Some(("cloud", rest))) => number(rest).map(Self::CloudNumber),
            _ => Err(bad()),
        }
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Others => f.write_str("others"),
            Self::Leader => f.write_str("leader"),
            Self::LeaderCloud => f.write_str("cloud#leader"),
            Self::Node(name) => write!(f, "node/{name}"),
            Self::Cloud(name) => write!(f, "cloud/{name}"),
            Self::NodeNumber(number) => write!(f, "node#{number}"),
            Self::CloudNumber(number) => write!(f, "cloud#{number}"),
        }
    }
}

text_serde!(Selector);

impl JsonSchema for Selector {
    fn schema_name() -> Cow<'static, str> {
        "Selector".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "pattern": "^(all|others|leader|cloud#leader|(node|cloud)#[0-9]{1,3}|(node|cloud)/[a-z0-9-]{1,63})$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again() {
        for text in
            ["all", "others", "leader", "node/aws-p1", "node#3", "cloud/aws", "cloud#1", "cloud#leader"]
        {
            let selector: Selector = text.parse().expect(text);
            assert_eq!(selector.to_string(), text);
        }
        for bad in ["", "aws", "cloud#0", "cloud#", "cloud#+1", "cloud#1000", "node/", "node/A", "zone/aws"] {
            assert!(bad.parse::<Selector>().is_err(), "{bad}");
        }
    }
}
