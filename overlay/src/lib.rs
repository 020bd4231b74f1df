//! Links between nodes, frames, end-to-end sealing, the router with transit authorization, TUN.
//!
//! A packet of a workload comes out of the TUN, is judged by this node's own tables, and goes as a
//! *frame* over links to the node of its destination. A frame has a header that every node on the way
//! judges by its own tables, and the packet: in clear only over the direct link of its two end nodes,
//! which QUIC keeps secret; over others it is sealed, so that they can authorize it and neither read,
//! alter nor repeat it.
//!
//! The heart is [`Router`], a machine without IO, clock or runtime. Around it is [`Overlay`], which ties
//! it to the transport's links and to a TUN. What the router knows of nodes, addresses and contracts is
//! the routing half of the plan; what it measures becomes facts that the other nodes' plans are made of.
//!
//! What never happens here: a packet is forwarded that this node's tables do not allow; a packet leaves
//! unsealed over a third node; a path enters a place that its contract avoids; a queue grows without
//! bound.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should"))]

#[cfg(target_os = "linux")]
mod device;
mod frame;
mod icmp;
mod judge;
mod link;
mod neighbours;
mod packet;
mod peek;
mod reason;
mod route;
mod router;
mod seal;
mod shell;
#[cfg(test)]
mod testing;
mod tun;
mod wait;
mod wire;

#[cfg(target_os = "linux")]
pub use crate::device::{Device, DeviceOptions};
pub use crate::{
    peek::{Peeked, peek},
    reason::{Counters, Refusal},
    router::{
        Difference, LinkState, LinkStatus, Output, QUALITY_INTERVAL_US, RouteStatus, Router, Settings,
        facts_differ,
    },
    shell::{Options, Overlay},
    tun::{ChannelTun, Replaceable, Tun, TunPeer},
};

/// Microseconds of a monotonic clock.
pub type Micros = u64;
