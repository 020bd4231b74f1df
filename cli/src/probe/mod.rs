//! Small clients for looking at a fabric from outside, as a workload would: DNS and HTTP.

pub(crate) mod dns;
pub(crate) mod http;
