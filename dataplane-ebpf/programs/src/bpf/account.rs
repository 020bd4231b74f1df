//! Counters and events.

use aya_ebpf::helpers::generated::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use selvedge_abi::{
    Attachment, Direction, Judgement, Mode, Note,
    layout::{EVENTS_PER_SECOND, EdgeCounterKey, EdgeCounters, EndpointCounters, EventRecord},
    packet::Packet,
};

use super::maps;

/// Length of the window of the rate limit, as a shift of nanoseconds: 1.07 s.
const WINDOW_SHIFT: u64 = 30;

/// Counts a packet and tells what is worth telling.
#[inline(always)]
pub(super) fn packet(
    attachment: Option<&Attachment>,
    direction: Direction,
    judgement: &Judgement,
    packet: &Packet,
    bytes: u32,
) {
    if !judgement.verdict.allow {
        refusal(judgement.verdict.reason as u32);
    }
    let Some(attachment) = attachment else { return };
    if judgement.source.0 != 0 && judgement.destination.0 != 0 {
        edge(judgement, bytes);
    }
    let Some(counters) = maps::ENDPOINT_COUNTERS.get_ptr_mut(attachment.slot) else { return };
    // SAFETY: the slot of this CPU; programs of one hook do not interrupt each other on it.
    let counters = unsafe { &mut *counters };
    endpoint(counters, direction, judgement, bytes);
    let records = !matches!(judgement.verdict.mode, Mode::Enforce) && matches!(judgement.note, Note::Opened);
    if (records || !matches!(judgement.note, Note::None))
        && !event(counters, attachment, direction, judgement, packet, bytes)
    {
        counters.events_lost += 1;
    }
}

#[inline(always)]
fn refusal(reason: u32) {
    if let Some(count) = maps::REFUSALS.get_ptr_mut(reason) {
        // SAFETY: as above.
        unsafe { *count += 1 };
    }
}

#[inline(always)]
fn endpoint(counters: &mut EndpointCounters, direction: Direction, judgement: &Judgement, bytes: u32) {
    match (direction, judgement.verdict.allow) {
        (Direction::Leaving, true) => {
            counters.leaving_packets += 1;
            counters.leaving_bytes += bytes as u64;
        }
        (Direction::Arriving, true) => {
            counters.arriving_packets += 1;
            counters.arriving_bytes += bytes as u64;
        }
        (Direction::Leaving, false) => counters.leaving_refused += 1,
        (Direction::Arriving, false) => counters.arriving_refused += 1,
    }
    if matches!(judgement.note, Note::Opened) {
        counters.flows += 1;
    }
}

#[inline(always)]
fn edge(judgement: &Judgement, bytes: u32) {
    let key = EdgeCounterKey { source: judgement.source.0, destination: judgement.destination.0 };
    let refused = !judgement.verdict.allow;
    if let Some(counters) = maps::EDGE_COUNTERS.get_ptr_mut(key) {
        // SAFETY: as above.
        let counters = unsafe { &mut *counters };
        if refused {
            counters.refused += 1;
        } else {
            counters.packets += 1;
            counters.bytes += bytes as u64;
        }
        return;
    }
    let first = match refused {
        true => EdgeCounters { refused: 1, ..EdgeCounters::default() },
        false => EdgeCounters { packets: 1, bytes: bytes as u64, refused: 0 },
    };
    let _ = maps::EDGE_COUNTERS.insert(key, first, 0);
}

/// Whether it was told.
#[inline(always)]
fn event(
    counters: &mut EndpointCounters,
    attachment: &Attachment,
    direction: Direction,
    judgement: &Judgement,
    packet: &Packet,
    bytes: u32,
) -> bool {
    // SAFETY: a helper without arguments.
    let window = unsafe { bpf_ktime_get_coarse_ns() } >> WINDOW_SHIFT;
    if counters.window != window {
        counters.window = window;
        counters.told = 0;
    }
    if counters.told >= EVENTS_PER_SECOND as u64 {
        return false;
    }
    counters.told += 1;
    let Some(mut entry) = maps::EVENTS.reserve(0) else { return false };
    entry.write(record(attachment, direction, judgement, packet, bytes));
    entry.submit(0);
    true
}

#[inline(always)]
fn record(
    attachment: &Attachment,
    direction: Direction,
    judgement: &Judgement,
    packet: &Packet,
    bytes: u32,
) -> EventRecord {
    let revision = match maps::CONTROL.get(0) {
        Some(control) => control.revisions[(control.generation & 1) as usize],
        None => 0,
    };
    EventRecord {
        // SAFETY: a helper without arguments.
        time_ns: unsafe { bpf_ktime_get_ns() },
        revision,
        source: packet.source,
        destination: packet.destination,
        source_identity: judgement.source.0,
        destination_identity: judgement.destination.0,
        rule: judgement.verdict.rule,
        slot: attachment.slot,
        bytes,
        source_port: packet.source_port,
        destination_port: packet.destination_port,
        protocol: packet.protocol,
        direction: direction as u8,
        reason: judgement.verdict.reason as u8,
        mode: judgement.verdict.mode as u8,
        note: judgement.note as u8,
        zero: [0; 3],
    }
}
