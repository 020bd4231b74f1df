//! What crosses the wide area, frame by frame, and what it looks like.
//!
//! A fabric says nothing there but QUIC, the TLS of its API, and what every network says to find its
//! neighbours; the rest is [`Kind::Foreign`], or an ICMP error, which hosts send when a node is gone. QUIC
//! is told by its ports and the form of its packets (RFC 8999, RFC 9000), TLS by following the records of
//! each connection (RFC 8446). What looks so could still be something else in disguise, so look for the
//! clear text as well.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
    time::Duration,
};

use crate::{Site, frame};

mod kind;

pub use kind::Kind;
use kind::Observer;

/// Most that a capture keeps: minutes of a small fabric that is busy.
pub const MAX_KEPT_BYTES: usize = 512 << 20;
/// What a record of a file of packets costs beside its bytes.
const RECORD_BYTES: usize = 16;

/// On which ports the fabric speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports {
    /// UDP: links, gossip.
    pub quic: BTreeSet<u16>,
    /// TCP: the API.
    pub tls: BTreeSet<u16>,
}

impl Default for Ports {
    /// Those that nodes use unless told otherwise.
    fn default() -> Self {
        Self { quic: [7400, 7401].into(), tls: [7443].into() }
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// When it came to the relay, since the relay began.
    pub at: Duration,
    /// From which cloud.
    pub from: Site,
    /// What it looks like.
    pub kind: Kind,
    /// All of it, from the Ethernet header on, with the addresses of the wide area.
    pub bytes: Vec<u8>,
}

/// What crossed the wide area while it was watched; what was lost on the way is in it too.
#[derive(Debug)]
pub struct Capture {
    observer: Observer,
    frames: Vec<Frame>,
    kept_bytes: usize,
    counts: BTreeMap<Kind, u64>,
    missed: u64,
}

impl Capture {
    /// An empty one.
    #[must_use]
    pub fn new(ports: Ports) -> Self {
        let observer = Observer::new(ports);
        Self { observer, frames: Vec::new(), kept_bytes: 0, counts: BTreeMap::new(), missed: 0 }
    }

    /// Takes a frame down.
    pub fn record(&mut self, at: Duration, from: Site, bytes: &[u8]) {
        let kind = self.observer.kind(bytes);
        *self.counts.entry(kind).or_default() += 1;
        if self.kept_bytes + bytes.len() > MAX_KEPT_BYTES {
            self.missed += 1;
            return;
        }
        self.kept_bytes += bytes.len();
        self.frames.push(Frame { at, from, kind, bytes: bytes.to_vec() });
    }

    /// The frames that were kept, in the order in which they came.
    #[must_use]
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// How many of each kind there were, those that were not kept included.
    #[must_use]
    pub const fn counts(&self) -> &BTreeMap<Kind, u64> {
        &self.counts
    }

    /// How many there were no room for. Unless this is 0, that a thing is not in the frames proves nothing.
    #[must_use]
    pub const fn missed(&self) -> u64 {
        self.missed
    }

    /// The first frame that holds these bytes anywhere.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<&Frame> {
        self.frames.iter().find(|frame| frame.contains(bytes))
    }

    /// Writes the frames as a file for tcpdump and Wireshark (pcap, link type Ethernet).
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_pcap(&self, mut to: impl Write) -> io::Result<()> {
        // Magic, version 2.4, no time zone, no accuracy, longest frame, link type 1.
        let header: [u32; 6] = [0xa1b2_c3d4, 2 | 4 << 16, 0, 0, 0x0004_0000, 1];
        header.iter().try_for_each(|word| to.write_all(&word.to_le_bytes()))?;
        for frame in &self.frames {
            let length = frame.bytes.len() as u32;
            let words = [frame.at.as_secs() as u32, frame.at.subsec_micros(), length, length];
            let mut record = [0; RECORD_BYTES];
            for (at, word) in words.into_iter().enumerate() {
                record[at * 4..at * 4 + 4].copy_from_slice(&word.to_le_bytes());
            }
            to.write_all(&record)?;
            to.write_all(&frame.bytes)?;
        }
        to.flush()
    }
}

impl Frame {
    /// Whether these bytes are anywhere in it. No bytes are in none.
    #[must_use]
    pub fn contains(&self, bytes: &[u8]) -> bool {
        !bytes.is_empty() && self.bytes.windows(bytes.len()).any(|window| window == bytes)
    }

    /// What it is, for people: addresses, protocol, ports, and how it begins.
    #[must_use]
    pub fn describe(&self) -> String {
        let start = &self.bytes[..self.bytes.len().min(frame::ETHERNET_BYTES + 64)];
        let hex: String = start.iter().map(|byte| format!("{byte:02x}")).collect();
        let ip = self.bytes.get(frame::ETHERNET_BYTES..).and_then(frame::Ipv4::parse);
        let what = match (ip, frame::ethertype(&self.bytes)) {
            (Some(ip), Some(frame::IPV4)) => {
                format!("{} > {} protocol {} ports {:?}", ip.source, ip.destination, ip.protocol, ip.ports)
            }
            (_, kind) => format!("ethertype {:#06x}", kind.unwrap_or_default()),
        };
        format!("{what}, {} bytes: {hex}", self.bytes.len())
    }
}

#[cfg(test)]
mod tests;
