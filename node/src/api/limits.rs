//! Bounds of the API. Whatever arrives from outside meets one of these.

use std::time::Duration;

/// Largest request body: 10,000 objects of about 800 bytes.
pub const MAX_BODY_BYTES: usize = 8 * 1024 * 1024;
/// Requests worked on at once per listener; more are told to come again.
pub const MAX_REQUESTS: usize = 256;
/// Connections per listener; more wait in the kernel's backlog. Each listener has its own, so that a
/// flood on the network never locks the administrator out of the local socket.
pub const MAX_CONNECTIONS: usize = 512;
/// Watch streams per listener: each may hold a batch of changes in memory.
pub const MAX_WATCHES: usize = 128;
/// Longest a request may take, unless it says itself how long it waits.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest that `wait` may be asked to wait.
pub const MAX_WAIT: Duration = Duration::from_secs(3600);
/// How long a linearizable read may wait for the leader.
pub const BARRIER_TIMEOUT: Duration = Duration::from_secs(3);
/// Longest from accepting a connection to the end of its TLS handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest that the head of a request may take; also ends idle connections.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long requests under way may go on after the daemon was told to stop.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Most entries that one read of history or events gives.
pub const MAX_PAGE: usize = 1024;
/// Changes that a watch stream reads at once.
pub const WATCH_BATCH: usize = 256;
/// Pause before a woken watch stream looks: changes that come together are sent together.
pub const WATCH_PAUSE: Duration = Duration::from_millis(50);
/// Longest that a request for flows may wait for one. Below the time after which clients give up.
pub const MAX_FLOW_WAIT: Duration = Duration::from_secs(20);
/// How often a silent watch stream shows that it lives.
pub const WATCH_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Pause after a failed `accept`, which is nearly always a lack of file descriptors.
pub const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest request id taken over from a client.
pub const MAX_REQUEST_ID_BYTES: usize = 64;
/// Most of a foreign error body that is kept as detail.
pub const MAX_DETAIL_BYTES: usize = 4096;
