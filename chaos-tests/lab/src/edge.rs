//! The edge of a cloud, where addresses are translated. Pure.
//!
//! A public host has an address of the wide area for its own: one to one, without state, as clouds call
//! it an elastic address. The others go out by the address of the cloud, each flow by a port of its own
//! (masquerade), and nothing comes in but the answers: only from the very address and port that was
//! written to (RFC 4787's address and port-dependent filtering, the strictest kind). So every cloud
//! can use the same addresses inside.
//!
//! A packet from inside to a public address of the same cloud comes back inside, translated at both ends.

use std::{collections::BTreeMap, net::Ipv4Addr, time::Duration};

use crate::frame::{End, ICMP, Ipv4, TCP, UDP, readdress, readdress_quoted};

/// Most flows of a cloud that are masqueraded at a time.
pub const MAX_FLOWS: usize = 4_096;
/// A masqueraded flow that is silent for so long is forgotten (RFC 4787, REQ-5: not under two minutes).
pub const FLOW_IDLE: Duration = Duration::from_secs(120);
/// The lowest port for a flow whose own is taken.
const FIRST_PORT: u16 = 1_024;

/// A public address and the host that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Pair {
    inside: Ipv4Addr,
    public: Ipv4Addr,
}

/// A flow as one side of the edge sees it: protocol, the cloud's end, the far end. An echo has its
/// identifier for a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Flow {
    protocol: u8,
    near: (Ipv4Addr, u16),
    far: (Ipv4Addr, u16),
}

#[derive(Debug)]
struct Masked {
    /// The port of the cloud's address that stands for it.
    port: u16,
    /// When a packet of it last went out.
    used: Duration,
}

/// Why a packet does not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Barred {
    /// It is malformed, or of a protocol that cannot be masqueraded.
    Unsuitable,
    /// It answers no flow from inside, and nobody has the address it is for.
    Uncalled,
    /// No flow more fits in.
    Full,
}

/// The edge of one cloud.
#[derive(Debug)]
pub struct Edge {
    /// What hosts without an address of their own go out by.
    address: Ipv4Addr,
    public: Vec<Pair>,
    flows: BTreeMap<Flow, Masked>,
    /// The same flows as the wide area sees them: whom they belong to inside.
    back: BTreeMap<Flow, (Ipv4Addr, u16)>,
}

impl Edge {
    /// An edge that masquerades by this address.
    #[must_use]
    pub const fn new(address: Ipv4Addr) -> Self {
        Self { address, public: Vec::new(), flows: BTreeMap::new(), back: BTreeMap::new() }
    }

    /// Gives a host inside a public address of its own.
    pub fn publish(&mut self, inside: Ipv4Addr, public: Ipv4Addr) {
        self.public.push(Pair { inside, public });
    }

    /// Translates where a packet comes from, as it leaves the cloud.
    ///
    /// # Errors
    /// Why it must not.
    pub fn leave(&mut self, now: Duration, packet: &mut [u8]) -> Result<(), Barred> {
        let header = Ipv4::parse(packet).ok_or(Barred::Unsuitable)?;
        if !is_inside(header.source) {
            // The gateway speaks for itself.
            return Ok(());
        }
        if let Some(pair) = self.public.iter().find(|pair| pair.inside == header.source) {
            let public = pair.public;
            if header.is_error() {
                readdress_quoted(packet, End::Destination, public, None);
            }
            readdress(packet, End::Source, public, None);
            return Ok(());
        }
        if let Some(quoted) = header.quoted {
            return self.leave_error(packet, quoted);
        }
        let flow = flow(&header, End::Source).ok_or(Barred::Unsuitable)?;
        let port = self.port(now, flow)?;
        readdress(packet, End::Source, self.address, Some(port));
        Ok(())
    }

    /// Translates for whom a packet is, as it enters the cloud.
    ///
    /// # Errors
    /// Why it must not.
    pub fn enter(&mut self, now: Duration, packet: &mut [u8]) -> Result<(), Barred> {
        let header = Ipv4::parse(packet).ok_or(Barred::Unsuitable)?;
        if let Some(pair) = self.public.iter().find(|pair| pair.public == header.destination) {
            let inside = pair.inside;
            if header.is_error() {
                readdress_quoted(packet, End::Source, inside, None);
            }
            readdress(packet, End::Destination, inside, None);
            return Ok(());
        }
        if header.destination != self.address {
            return Err(Barred::Uncalled);
        }
        let told = header.quoted.map(|at| Ipv4::parse(&packet[at..header.end]));
        let flow = match told {
            // An error about what went out: the quoted packet's source is the cloud's end.
            Some(quoted) => quoted.and_then(|quoted| flow(&quoted, End::Source)),
            None => flow(&header, End::Destination),
        };
        let flow = flow.ok_or(Barred::Unsuitable)?;
        let (inside, port) = self.owner(now, flow).ok_or(Barred::Uncalled)?;
        if header.is_error() {
            readdress_quoted(packet, End::Source, inside, Some(port));
            readdress(packet, End::Destination, inside, None);
        } else {
            readdress(packet, End::Destination, inside, Some(port));
        }
        Ok(())
    }

    /// Whose flow inside this is, as the wide area sees it.
    fn owner(&self, now: Duration, seen: Flow) -> Option<(Ipv4Addr, u16)> {
        let near = *self.back.get(&seen)?;
        let masked = self.flows.get(&Flow { near, ..seen })?;
        (now.saturating_sub(masked.used) < FLOW_IDLE).then_some(near)
    }

    /// An error from inside about a packet of a masqueraded flow.
    fn leave_error(&self, packet: &mut [u8], quoted: usize) -> Result<(), Barred> {
        let quoted = Ipv4::parse(&packet[quoted..]).ok_or(Barred::Unsuitable)?;
        let flow = flow(&quoted, End::Destination).ok_or(Barred::Unsuitable)?;
        let masked = self.flows.get(&flow).ok_or(Barred::Uncalled)?;
        readdress_quoted(packet, End::Destination, self.address, Some(masked.port));
        readdress(packet, End::Source, self.address, None);
        Ok(())
    }

    /// The port that stands for a flow from inside, its own if that is free.
    fn port(&mut self, now: Duration, flow: Flow) -> Result<u16, Barred> {
        if let Some(masked) = self.flows.get_mut(&flow) {
            masked.used = now;
            return Ok(masked.port);
        }
        if self.flows.len() >= MAX_FLOWS {
            self.forget(now);
        }
        if self.flows.len() >= MAX_FLOWS {
            return Err(Barred::Full);
        }
        // There are more ports than flows, so one is free.
        let own = flow.near.1;
        let others = FIRST_PORT..=u16::MAX;
        let seen = |port| Flow { near: (self.address, port), ..flow };
        let port = std::iter::once(own).chain(others).find(|&port| !self.back.contains_key(&seen(port)));
        let port = port.ok_or(Barred::Full)?;
        self.back.insert(seen(port), flow.near);
        self.flows.insert(flow, Masked { port, used: now });
        Ok(port)
    }

    fn forget(&mut self, now: Duration) {
        let (address, back) = (self.address, &mut self.back);
        self.flows.retain(|flow, masked| {
            let keep = now.saturating_sub(masked.used) < FLOW_IDLE;
            if !keep {
                back.remove(&Flow { near: (address, masked.port), ..*flow });
            }
            keep
        });
    }
}

/// Whether an address is one that every cloud uses inside, 10.0.0.0/16.
#[must_use]
pub const fn is_inside(address: Ipv4Addr) -> bool {
    let [first, second, ..] = address.octets();
    first == 10 && second == 0
}

/// The flow of a packet whose `near` end is the cloud's.
fn flow(header: &Ipv4, near: End) -> Option<Flow> {
    if ![TCP, UDP, ICMP].contains(&header.protocol) {
        return None;
    }
    let (source, destination) = header.ports?;
    let (source, destination) = ((header.source, source), (header.destination, destination));
    let (near, mut far) = match near {
        End::Source => (source, destination),
        End::Destination => (destination, source),
    };
    if header.protocol == ICMP {
        // Its identifier is one number, and not the far end's to choose.
        far.1 = 0;
    }
    Some(Flow { protocol: header.protocol, near, far })
}

#[cfg(test)]
mod tests;
