//! The ground that fabrics are tried on: clouds that all use 10.0.0.0/16 inside, joined by a wide area
//! that delays, loses, reorders and is cut, all by a seed.
//!
//! ```text
//!  cloud aws                                                     cloud gcp
//!  host 10.0.0.11 ─┐                                             ┌─ host 10.0.0.11
//!  host 10.0.0.12 ─┤ switch, gateway ─ TAP ═ relay ═ TAP ─ gateway, switch
//!  host 10.0.0.13 ─┘   10.0.0.1                                  └─ host 10.0.0.12
//! ```
//!
//! * [`Clouds`] and [`Host`]: the whole of it, in network namespaces, with real packets. Needs root and
//!   iproute2, and nothing else: no nftables, no bridge of the machine, no name under `/run/netns`. What is
//!   made here has no name in the system and ends with its owner, also when that is killed.
//! * A host is [`Reach::Public`] and has an address in 198.18.0.0/16 for its own, or it is
//!   [`Reach::Behind`] its cloud's: translation is done by the [`Edge`] of each cloud.
//! * [`Wide`], [`Edge`], [`Exchange`] and [`Capture`] are pure: time and seed are arguments. [`Relay`] is the
//!   thread around them.
//! * [`Namespace`] alone is good for a workload of an own network, see [`Namespace::path`].
//!
//! ```no_run
//! use selvedge_lab::{Clouds, Conditions, Ports, Reach};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mut clouds = Clouds::new(&["aws", "gcp"], 7, Conditions::ORDINARY)?;
//! let server = clouds.host("aws", "server", Reach::Public)?;
//! let client = clouds.host("gcp", "client", Reach::Behind)?;
//! clouds.watch(Ports::default());
//! let address = server.public.expect("it is public").to_string();
//! client.namespace.command("ping").args(["-c", "1", &address]).status()?;
//! clouds.cut("aws", "gcp", true)?;
//! # Ok(())
//! # }
//! ```
//!
//! The underlay is IPv4 alone.
#![warn(missing_docs)]

mod capture;
mod clouds;
mod edge;
mod error;
mod frame;
mod namespace;
mod relay;
mod wide;

pub use capture::{Capture, Frame, Kind, MAX_KEPT_BYTES, Ports};
pub use clouds::{Clouds, Host, MAX_CLOUDS, MAX_HOSTS, MTU, Reach};
pub use edge::{Barred, Edge, FLOW_IDLE, MAX_FLOWS, is_inside};
pub use error::LabError;
pub use frame::{ETHERNET_BYTES, Mac};
pub use namespace::Namespace;
pub use relay::{Exchange, HAIRPIN_MAC, Refusals, Relay, gateway_mac};
pub use wide::{Conditions, MAX_UNDER_WAY_BYTES, MAX_WAIT, Site, Tally, Wide};
