//! The Selvedge daemon: composition root, identity and enrollment, reconcile, API.
#![warn(missing_docs)]

pub mod api;
pub mod pki;
