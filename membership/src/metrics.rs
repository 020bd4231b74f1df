//! Counters, shared between the task that counts and whoever asks.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What happened since the start.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Metrics {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Metrics {
            /// Every counter with its name, for exposition.
            #[must_use]
            pub fn iter(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }

        #[derive(Debug, Default)]
        pub(crate) struct Counters {
            $(pub(crate) $name: Counter,)*
        }

        impl Counters {
            pub(crate) fn snapshot(&self) -> Metrics {
                Metrics { $($name: self.$name.0.load(Relaxed),)* }
            }
        }
    };
}

/// A number that others may read at any time.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    pub(crate) fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }
}

counters! {
    /// Records that are held now.
    records,
    /// Connections of the gossip port now.
    gossip_peers,
    /// Newer records that were taken.
    records_taken,
    /// Dropped: of nodes that are not admitted, revoked or removed.
    dropped_not_admitted,
    /// Dropped: bad signature, malformed, or beyond a bound.
    dropped_bad,
    /// Dropped: of a fence epoch or incarnation that cannot be.
    dropped_version,
    /// Dropped: their node sends faster than it may.
    dropped_flood,
    /// Dropped: no room.
    dropped_full,
    /// Bytes on the gossip port that were no message.
    malformed_messages,
    /// Rumors left to anti-entropy because too many waited.
    dropped_rumors,
    /// Commands to the carrier that were dropped because it was busy.
    dropped_commands,
    /// Connections refused because the key is not admitted.
    refused_peers,
    /// Probe datagrams that were dropped: queue full or malformed.
    dropped_probes,
    /// Endpoints that are announced and not believed.
    disbelieved_endpoints,
    /// Views published.
    views,
}
