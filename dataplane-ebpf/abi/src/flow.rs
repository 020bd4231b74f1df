//! Flows: what was decided when the first packet came, and for how long it holds.

use crate::{Address, Identity, Mode, Reason, Verdict, packet::Packet};

/// Which way a packet goes, as its attachment sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the workload.
    Leaving = 1,
    /// To the workload.
    Arriving = 2,
}

impl Direction {
    /// The other one.
    #[must_use]
    #[inline(always)]
    pub const fn reversed(self) -> Self {
        match self {
            Self::Leaving => Self::Arriving,
            Self::Arriving => Self::Leaving,
        }
    }

    /// The direction with this code.
    #[must_use]
    #[inline(always)]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Leaving,
            _ => Self::Arriving,
        }
    }
}

/// A flow of an attachment, the same for both directions. Each attachment has a table of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(C)]
pub struct FlowKey {
    /// The address at the other end.
    pub peer: Address,
    /// The workload's port; the identifier for echo.
    pub local_port: u16,
    /// The port at the other end; the identifier for echo.
    pub peer_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Which of the workload's addresses: 4 or 6.
    pub family: u8,
    zero: u16,
}

impl FlowKey {
    /// The flow of a packet.
    #[must_use]
    #[inline(always)]
    pub const fn new(direction: Direction, peer: Address, packet: &Packet) -> Self {
        let (local_port, peer_port) = match direction {
            Direction::Leaving => (packet.source_port, packet.destination_port),
            Direction::Arriving => (packet.destination_port, packet.source_port),
        };
        let family = if peer.is_ipv4() { 4 } else { 6 };
        Self { peer, local_port, peer_port, protocol: packet.flow_protocol, family, zero: 0 }
    }

    /// The port that a flow opened in this direction speaks to.
    #[must_use]
    #[inline(always)]
    pub const fn port(&self, opened: Direction) -> u16 {
        match opened {
            Direction::Leaving => self.peer_port,
            Direction::Arriving => self.local_port,
        }
    }
}

/// What was decided about a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(C)]
pub struct FlowEntry {
    /// The generation of the tables under which it was decided.
    pub generation: u64,
    /// When a packet was last seen, in seconds since the machine started; up to [`REFRESH_S`] late.
    pub seen_s: u32,
    /// Who is at the other end; 0 for the gateway.
    pub peer: u32,
    /// The rule that decided.
    pub rule: u32,
    opened: u8,
    reason: u8,
    mode: u8,
    zero: u8,
}

/// How late [`FlowEntry::seen_s`] may be: an entry is not written for every packet.
pub const REFRESH_S: u32 = 8;
/// How long a TCP flow without packets is remembered: RFC 5382, REQ-5, asks for 2 hours 4 minutes.
pub const TCP_IDLE_S: u32 = 7_500;
/// How long a UDP flow without packets is remembered: RFC 4787, REQ-5, recommends 5 minutes.
pub const UDP_IDLE_S: u32 = 300;
/// How long an echo without packets is remembered: RFC 5508, REQ-1, asks for 60 seconds.
pub const ICMP_IDLE_S: u32 = 60;
/// The same for protocols of which no more is known.
pub const OTHER_IDLE_S: u32 = 600;

impl FlowEntry {
    /// An entry for a flow opened in this direction and allowed.
    #[must_use]
    #[inline(always)]
    pub const fn new(
        opened: Direction,
        peer: Identity,
        verdict: &Verdict,
        generation: u64,
        now_s: u32,
    ) -> Self {
        Self {
            generation,
            seen_s: now_s,
            peer: peer.0,
            rule: verdict.rule,
            opened: opened as u8,
            reason: verdict.reason as u8,
            mode: verdict.mode as u8,
            zero: 0,
        }
    }

    /// The entry after another packet.
    #[must_use]
    #[inline(always)]
    pub const fn seen(self, now_s: u32) -> Self {
        Self { seen_s: now_s, ..self }
    }

    /// Who opened it.
    #[must_use]
    #[inline(always)]
    pub const fn opened(&self) -> Direction {
        Direction::from_code(self.opened)
    }

    /// The verdict on a packet of this flow: that of its opening, as [`Reason::Flow`].
    #[must_use]
    #[inline(always)]
    pub const fn verdict(&self) -> Verdict {
        Verdict { allow: true, reason: Reason::Flow, mode: Mode::from_code(self.mode), rule: self.rule }
    }

    /// Why it was allowed when it was opened.
    #[must_use]
    pub fn reason(&self) -> Reason {
        Reason::from_code(self.reason)
    }

    /// Whether it was silent for so long that it counts no more.
    #[must_use]
    #[inline(always)]
    pub const fn is_idle(&self, protocol: u8, now_s: u32) -> bool {
        let limit = match protocol {
            6 => TCP_IDLE_S,
            17 => UDP_IDLE_S,
            1 | 58 => ICMP_IDLE_S,
            _ => OTHER_IDLE_S,
        };
        now_s.saturating_sub(self.seen_s) > limit
    }
}
