//! What the programs tell: counters, and events of flows.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::IpAddr,
    os::fd::{AsFd, OwnedFd},
};

use aya::maps::{Map, MapData, RingBuf};
use selvedge_abi::{
    Address, Direction, Identity, Mode, Note, Reason,
    layout::{EdgeCounters, EndpointCounters, EventRecord},
};
use tokio::io::unix::AsyncFd;

use crate::{Attached, Dataplane, DataplaneError};

/// Traffic of one attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointTraffic {
    /// Whose.
    pub attached: Attached,
    /// The sums over all CPUs.
    pub counters: EndpointCounters,
}

/// Everything that is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// By attachment.
    pub endpoints: Vec<EndpointTraffic>,
    /// By source and destination service.
    pub edges: BTreeMap<(Identity, Identity), EdgeCounters>,
    /// Refused packets by reason, of all attachments.
    pub refusals: BTreeMap<Reason, u64>,
}

impl Counters {
    pub(crate) fn read(plane: &Dataplane) -> Result<Self, DataplaneError> {
        let mut counters = Self::default();
        for attached in plane.attachments() {
            let values = plane.endpoint_counters().get(&attached.slot, 0);
            let values = values.map_err(DataplaneError::map("ENDPOINT_COUNTERS"))?;
            let sum = values.iter().fold(EndpointCounters::default(), |sum, cpu| add(sum, &cpu.0));
            counters.endpoints.push(EndpointTraffic { attached: *attached, counters: sum });
        }
        for entry in plane.edge_counters().iter() {
            let (key, values) = entry.map_err(DataplaneError::map("EDGE_COUNTERS"))?;
            let sum = values.iter().fold(EdgeCounters::default(), |sum, cpu| EdgeCounters {
                packets: sum.packets + cpu.0.packets,
                bytes: sum.bytes + cpu.0.bytes,
                refused: sum.refused + cpu.0.refused,
            });
            counters.edges.insert((Identity(key.0.source), Identity(key.0.destination)), sum);
        }
        for reason in Reason::ALL {
            let values = plane.refusals().get(&u32::from(reason as u8), 0);
            let sum: u64 = values.map_err(DataplaneError::map("REFUSALS"))?.iter().sum();
            if sum != 0 {
                counters.refusals.insert(reason, sum);
            }
        }
        Ok(counters)
    }
}

const fn add(a: EndpointCounters, b: &EndpointCounters) -> EndpointCounters {
    EndpointCounters {
        leaving_packets: a.leaving_packets + b.leaving_packets,
        leaving_bytes: a.leaving_bytes + b.leaving_bytes,
        arriving_packets: a.arriving_packets + b.arriving_packets,
        arriving_bytes: a.arriving_bytes + b.arriving_bytes,
        leaving_refused: a.leaving_refused + b.leaving_refused,
        arriving_refused: a.arriving_refused + b.arriving_refused,
        flows: a.flows + b.flows,
        events_lost: a.events_lost + b.events_lost,
        window: 0,
        told: 0,
    }
}

/// A flow was opened, refused or cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowEvent {
    /// When, in nanoseconds of the monotonic clock.
    pub time_ns: u64,
    /// The revision of policy that decided.
    pub revision: u64,
    /// What happened.
    pub note: Note,
    /// Which way the packet went, as seen by its attachment.
    pub direction: Direction,
    /// The attachment that decided, as in [`Attached::slot`].
    pub slot: u32,
    /// Source address; `::` when the packet was not understood.
    pub source: IpAddr,
    /// Destination address; likewise.
    pub destination: IpAddr,
    /// Source port; 0 for none.
    pub source_port: u16,
    /// Destination port; 0 for none.
    pub destination_port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// The service at the source; 0 when unknown.
    pub source_identity: Identity,
    /// The service at the destination; 0 when unknown.
    pub destination_identity: Identity,
    /// Why.
    pub reason: Reason,
    /// The mode of the rule that decided: under audit and learn, reason and mode say what was let pass.
    pub mode: Mode,
    /// The rule that decided; 0 when there was none.
    pub rule: u32,
    /// Bytes of the packet, with Ethernet header.
    pub bytes: u32,
}

impl From<&EventRecord> for FlowEvent {
    fn from(record: &EventRecord) -> Self {
        Self {
            time_ns: record.time_ns,
            revision: record.revision,
            note: Note::from_code(record.note),
            direction: Direction::from_code(record.direction),
            slot: record.slot,
            source: record.source.into(),
            destination: record.destination.into(),
            source_port: record.source_port,
            destination_port: record.destination_port,
            protocol: record.protocol,
            source_identity: Identity(record.source_identity),
            destination_identity: Identity(record.destination_identity),
            reason: Reason::from_code(record.reason),
            mode: Mode::from_code(record.mode),
            rule: record.rule,
            bytes: record.bytes,
        }
    }
}

/// The bytes of a record, field by field: the ring buffer hands out bytes of any alignment.
fn decode(bytes: &[u8]) -> Option<EventRecord> {
    if bytes.len() < size_of::<EventRecord>() {
        return None;
    }
    let long = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let short = |at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let address = |at: usize| Some(Address::ipv6(*bytes.get(at..)?.first_chunk()?));
    Some(EventRecord {
        time_ns: long(0)?,
        revision: long(8)?,
        source: address(16)?,
        destination: address(32)?,
        source_identity: word(48)?,
        destination_identity: word(52)?,
        rule: word(56)?,
        slot: word(60)?,
        bytes: word(64)?,
        source_port: short(68)?,
        destination_port: short(70)?,
        protocol: *bytes.get(72)?,
        direction: *bytes.get(73)?,
        reason: *bytes.get(74)?,
        mode: *bytes.get(75)?,
        note: *bytes.get(76)?,
        zero: [0; 3],
    })
}

/// Reads events. What nobody reads is lost, and counted per attachment.
pub struct Events {
    ring: RingBuf<MapData>,
    /// Another descriptor of the ring, to wait on.
    descriptor: Option<OwnedFd>,
    ready: Option<AsyncFd<OwnedFd>>,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

impl Events {
    pub(crate) fn new(ring: MapData) -> Result<Self, DataplaneError> {
        let descriptor = ring.fd().as_fd().try_clone_to_owned();
        let descriptor = descriptor.map_err(DataplaneError::system("duplicate a descriptor"))?;
        let ring = RingBuf::try_from(Map::RingBuf(ring)).map_err(DataplaneError::map("EVENTS"))?;
        Ok(Self { ring, descriptor: Some(descriptor), ready: None })
    }

    /// An event that is there already.
    pub fn try_next(&mut self) -> Option<FlowEvent> {
        loop {
            let record = decode(&self.ring.next()?);
            if let Some(record) = record {
                return Some(FlowEvent::from(&record));
            }
        }
    }

    /// The next event. Cancel-safe. Must be called within one tokio runtime, with I/O enabled.
    ///
    /// # Errors
    /// When the runtime cannot watch the ring.
    pub async fn next(&mut self) -> io::Result<FlowEvent> {
        loop {
            if let Some(event) = self.try_next() {
                return Ok(event);
            }
            if let Some(descriptor) = self.descriptor.take() {
                self.ready = Some(watch(descriptor)?);
            }
            match &self.ready {
                Some(ready) => ready.readable().await?.clear_ready(),
                None => return Err(io::Error::other("the ring of events could not be watched")),
            }
        }
    }
}

#[allow(unsafe_code, reason = "tokio asks for a promise about the descriptor")]
fn watch(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` names the same open descriptor until it is dropped, and `AsyncFd` owns it.
    unsafe { AsyncFd::register(descriptor) }.map_err(io::Error::from)
}
