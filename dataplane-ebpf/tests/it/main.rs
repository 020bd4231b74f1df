//! Tests of the data plane: the twin anywhere, the kernel's part as root.
#![allow(clippy::unwrap_used, reason = "tests")]

mod differential;
mod frames;
mod group;
mod support;
mod swap;
mod veth;
