//! Attachments: workloads whose every packet is decided by their identity.

pub mod resolver;
pub mod wiring;
