//! What one node makes of the facts it has: who lives, where, with which endpoints.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{
    UnixMs,
    id::{EndpointId, Name, NodeName},
    key::PublicKey,
    record::{EndpointFact, Enforced, LinkFact, Load},
};

mod verify;

#[cfg(test)]
mod tests;

pub(crate) use verify::still_stands;
pub use verify::{EndpointError, verify_endpoint};

/// A snapshot of the facts as one node sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct View {
    /// Grows with every change.
    pub generation: u64,
    /// This node.
    pub me: Option<NodeName>,
    /// Sees nobody although others are admitted: says nothing about their death.
    pub isolated: bool,
    /// Clouds of which nearly all processors are gone, as one event.
    pub clouds_down: BTreeMap<Name, UnixMs>,
    /// Every admitted node.
    pub nodes: BTreeMap<NodeName, NodeView>,
}

/// One node as another sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// Its key.
    pub key: PublicKey,
    /// Its state.
    pub state: Liveness,
    /// Its newest incarnation.
    pub incarnation: u64,
    /// Where it is reached on the fabric port.
    pub addresses: Vec<SocketAddr>,
    /// Where its gossip port is reached.
    pub gossip: Vec<SocketAddr>,
    /// Where its API is reached.
    pub api: Vec<SocketAddr>,
    /// Measured round trip from this node, microseconds.
    pub rtt_us: Option<u32>,
    /// The policy it says it enforces.
    pub enforced: Option<Enforced>,
    /// Its load.
    pub load: Option<Load>,
    /// The links that it measures.
    pub links: Vec<LinkFact>,
    /// When a fact of it was last heard, by this node's clock. May lie before this node's start.
    pub heard_ms: Option<UnixMs>,
    /// Two live holders of its key: none of its facts are used.
    pub quarantined: bool,
    /// Its endpoints, verified.
    pub endpoints: BTreeMap<EndpointId, EndpointFact>,
}

/// Whether a node lives, as another sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Liveness {
    /// It answers.
    Alive,
    /// It has not answered lately.
    Suspect,
    /// Not heard of since this node started; still served.
    Unknown,
    /// It is gone.
    Down,
    /// It left of its own will.
    Left,
}

impl std::fmt::Display for Liveness {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Unknown => "unknown",
            Self::Down => "down",
            Self::Left => "left",
        })
    }
}
