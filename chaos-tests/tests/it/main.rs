//! The acceptance of a fabric of real processes. Each test brings a fabric up through `selvedge
//! playground`; see the crate's documentation for the environment variables that make them stricter.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod autopilot;
mod capture;
mod certificates;
mod change;
mod cloud_gone;
mod cold_start;
mod data_dir;
mod dns_tools;
mod drills;
mod drills_fabric;
mod emergency;
mod histories;
mod hostile_nodes;
mod joining;
mod loss;
mod matrix;
mod mtu;
mod one_host;
mod overlay;
mod playground;
mod process_tree;
mod recovery;
mod reroute;
mod revocation;
mod rogue;
mod rolling;
mod siege;
mod siege_nodes;
mod snapshot;
mod two_clouds;
mod wide_area;
mod workload_alone;
