//! What can go wrong on the ground.

use std::io;

/// Why the ground is not what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// Namespaces and devices are for root.
    #[error("network namespaces need root; run this as root, or with sudo")]
    NotRoot,
    /// The kernel refused.
    #[error("cannot {what}: {source}")]
    Kernel {
        /// What was tried, and on what.
        what: String,
        /// What it said.
        source: io::Error,
    },
    /// The program that sets interfaces and routes up cannot be run.
    #[error("cannot run `ip` ({0}); install iproute2")]
    NoIp(io::Error),
    /// It complained.
    #[error("ip {words}: {said}")]
    Ip {
        /// What it was asked for.
        words: String,
        /// What it said.
        said: String,
    },
    /// No cloud has this name.
    #[error("there is no cloud {0}; there are {1}")]
    NoCloud(String, String),
    /// More clouds than the wide area has addresses for.
    #[error("{0} clouds are too many; at most {1} fit into 198.18.0.0/16")]
    TooManyClouds(usize, usize),
    /// More hosts than a cloud has public addresses for.
    #[error("cloud {0} is full: it has {1} hosts")]
    TooManyHosts(String, usize),
    /// A condition that is no probability.
    #[error("{what} is {value}; give a probability from 0 to 1")]
    Probability {
        /// Of what.
        what: &'static str,
        /// What was given.
        value: f64,
    },
}

impl LabError {
    /// For `map_err`: the kernel refused to do `what`.
    pub(crate) fn kernel<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Kernel { what, source: source.into() }
    }
}
