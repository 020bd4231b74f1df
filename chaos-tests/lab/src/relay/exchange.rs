//! Who is asked to carry a frame where: a switch between clouds with an edge at each of its ports. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    net::Ipv4Addr,
    time::Duration,
};

use crate::{
    Barred, Capture, Conditions, Edge, LabError, Ports, Site, Wide,
    frame::{ETHERNET_BYTES, IPV4, Mac, destination, ethertype},
};

/// The neighbour by which a gateway reaches its own cloud's public addresses: the edge itself.
pub const HAIRPIN_MAC: Mac = [0x02, 0x73, 0x65, 0x6c, 0xff, 0xff];

/// Most frames that wait to come back; they are asked for after every few.
const MAX_RETURNING: usize = 4_096;

/// The link-layer address of a cloud's gateway in the wide area.
#[must_use]
pub const fn gateway_mac(site: Site) -> Mac {
    [0x02, 0x73, 0x65, 0x6c, 0x00, site.0]
}

/// How many packets edges did not let pass, by why.
pub type Refusals = BTreeMap<Barred, u64>;

/// Frames of all clouds. Times are durations since any one moment and never go backwards.
#[derive(Debug)]
pub struct Exchange {
    wide: Wide,
    edges: Vec<Edge>,
    /// Frames that come back into the cloud that they left.
    returning: VecDeque<(Site, Vec<u8>)>,
    refused: Refusals,
    capture: Option<Capture>,
}

impl Exchange {
    /// An exchange of so many edges, of which the first is site 0.
    ///
    /// # Errors
    /// When the conditions are none.
    pub fn new(seed: u64, conditions: Conditions, edges: Vec<Edge>) -> Result<Self, LabError> {
        let wide = Wide::new(seed, conditions)?;
        Ok(Self { wide, edges, returning: VecDeque::new(), refused: Refusals::new(), capture: None })
    }

    /// What happens to frames on their way.
    pub const fn wide(&mut self) -> &mut Wide {
        &mut self.wide
    }

    /// Gives a host of a cloud a public address of its own.
    pub fn publish(&mut self, site: Site, inside: Ipv4Addr, public: Ipv4Addr) {
        if let Some(edge) = self.edges.get_mut(usize::from(site.0)) {
            edge.publish(inside, public);
        }
    }

    /// Takes every frame down from now on; what was taken down before is thrown away.
    pub fn watch(&mut self, ports: Ports) {
        self.capture = Some(Capture::new(ports));
    }

    /// Ends the capture.
    pub const fn captured(&mut self) -> Option<Capture> {
        self.capture.take()
    }

    /// Packets that edges did not let pass so far.
    #[must_use]
    pub const fn refused(&self) -> &Refusals {
        &self.refused
    }

    /// Takes a frame from a cloud's gateway.
    pub fn take(&mut self, now: Duration, from: Site, frame: &[u8]) {
        let Some(to) = destination(frame) else { return };
        let mut frame = frame.to_vec();
        if ethertype(&frame) == Some(IPV4)
            && let Some(edge) = self.edges.get_mut(usize::from(from.0))
            && let Err(why) = edge.leave(now, &mut frame[ETHERNET_BYTES..])
        {
            *self.refused.entry(why).or_default() += 1;
            return;
        }
        if to == HAIRPIN_MAC {
            // It never was in the wide area.
            frame[..6].copy_from_slice(&gateway_mac(from));
            frame[6..12].copy_from_slice(&HAIRPIN_MAC);
            if self.enter(now, from, &mut frame) && self.returning.len() < MAX_RETURNING {
                self.returning.push_back((from, frame));
            }
            return;
        }
        if let Some(capture) = &mut self.capture {
            capture.record(now, from, &frame);
        }
        let is_for_all = to[0] & 1 == 1;
        for site in (0..self.edges.len()).map(|n| Site(n as u8)).filter(|site| *site != from) {
            if is_for_all || to == gateway_mac(site) {
                self.wide.push(now, from, site, frame.clone());
            }
        }
    }

    /// The next frame that has arrived by `now`, and at which cloud.
    pub fn give(&mut self, now: Duration) -> Option<(Site, Vec<u8>)> {
        if let Some(returned) = self.returning.pop_front() {
            return Some(returned);
        }
        loop {
            let (to, mut frame) = self.wide.pop(now)?;
            if self.enter(now, to, &mut frame) {
                return Some((to, frame));
            }
        }
    }

    /// When there is a frame to give, if one is under way.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        if self.returning.is_empty() { self.wide.next_due() } else { Some(Duration::ZERO) }
    }

    /// Whether a frame may go into a cloud.
    fn enter(&mut self, now: Duration, to: Site, frame: &mut [u8]) -> bool {
        if ethertype(frame) != Some(IPV4) {
            return true;
        }
        let Some(edge) = self.edges.get_mut(usize::from(to.0)) else { return false };
        let entered = edge.enter(now, &mut frame[ETHERNET_BYTES..]);
        if let Err(why) = entered {
            *self.refused.entry(why).or_default() += 1;
        }
        entered.is_ok()
    }
}

#[cfg(test)]
mod tests;
