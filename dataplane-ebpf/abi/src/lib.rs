//! Verdicts on packets: types and the `decide` function that the eBPF programs, the userspace twin,
//! `explain`, the router and the simulation all share. `no_std`, no allocation, no panics.
#![no_std]
#![warn(missing_docs)]

/// The number that stands for a service in verdict tables. 0 is nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Identity(pub u32);
