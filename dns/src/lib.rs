//! The embedded DNS: answers from the plan, a server, and a forwarder for other names.
//!
//! Name resolution is on the path of every connection, so it must not need anything that can be
//! away: no quorum, no peer, no lock that a writer holds for long. The crate is therefore cut in two.
//!
//! * **The core is pure.** [`ZoneIndex::build`] turns the zone of a plan into a hash index, once per
//!   plan; [`answer`] maps (index, message, asker) to a message. Neither reads a clock or a socket, so
//!   the simulator judges with the very code that serves.
//! * **The shell does the input and output.** [`Dns`] owns the sockets, swaps the index when a new plan
//!   arrives and hands other names to the forwarder. A query only ever reads a finished index.
//!
//! Who asks decides what exists. An [`Asker`] that may not reach a contract gets, for its name and for
//! all that hangs on it, the same NXDOMAIN as for a name that was never there: a resolver that tells
//! "forbidden" from "absent" is a directory for intruders.
//!
//! Every answer lives one second at most ([`TTL_S`]), positive or negative, because an endpoint that
//! died must be forgotten everywhere within the bound that the fabric promises.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may stop at the first surprise"))]

mod answer;
mod asker;
mod build;
mod ede;
mod forward;
mod index;
mod key;
mod metrics;
mod reverse;
mod server;
mod text;
mod wire;

pub use answer::answer;
pub use asker::{Asker, HostView, HostViewError};
pub use hickory_proto as proto;
pub use index::ZoneIndex;
pub use metrics::MetricsSnapshot;
pub use server::{Dns, DnsError, MAX_ADDRESSES, MAX_WORKERS, Options};
pub use wire::{MAX_UDP_PAYLOAD_BYTES, TTL_S, encode, udp_limit};
