//! The DNS through its public face: the pure function first, then the server over real sockets.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod answers;
mod client;
mod differential;
mod dig;
mod edns;
mod fixture;
mod forwarding;
mod fuzz;
mod reverse;
mod server;
mod truncation;
mod views;
