//! Manifests: reading and writing documents of intent.

mod time;

pub use time::{
    MAX_DURATION_MS, MAX_INSTANT_MS, format_duration, format_instant, parse_duration, parse_instant,
};
pub(crate) use time::{duration_opt, instant_opt};
