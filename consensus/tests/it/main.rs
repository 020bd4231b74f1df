//! Replicas as a whole: on a virtual network with faults, on the real transport over loopback, and on a
//! file system whose power is cut.
#![allow(clippy::unwrap_used, reason = "a test that fails should say where")]

mod bundles;
mod damage;
mod disk_full;
mod elections;
mod fabric;
mod faults;
mod gaps;
mod loopback;
mod power_cut;
mod recovery;
mod virtual_net;
