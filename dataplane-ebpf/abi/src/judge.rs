//! The whole decision about a packet.
//!
//! In this order: what the packet is; whether it carries the addresses of its attachment; whether it
//! belongs to a flow that was allowed, and still is under the tables of now; and otherwise whether it
//! may open one. A flow is decided again in the direction in which it was opened whenever the tables
//! have changed, so a withdrawn contract or a vanished endpoint cuts it. Only what is allowed is
//! remembered: a flood of refused packets takes nobody's place.

use crate::{
    Address, Attachment, Direction, Identity, Reason, Tables, Verdict,
    attachment::{GROUP, PROBES},
    decide,
    flow::{FlowEntry, FlowKey, REFRESH_S},
    packet::{Bytes, ETHERNET_BYTES, ETHERTYPE_ARP, Kind, Packet, be16},
};

/// Who is behind an address.
pub trait Identities {
    /// The service; `None` when nobody is.
    fn identity(&self, address: &Address) -> Option<Identity>;
}

/// The flows of one attachment.
pub trait Flows {
    /// What is remembered of a flow.
    fn flow(&self, key: &FlowKey) -> Option<FlowEntry>;
    /// Remembers a flow, at the cost of the one that was silent longest when the table is full.
    fn remember(&self, key: &FlowKey, entry: &FlowEntry);
}

/// All that a decision looks at besides packet and attachment: one generation of the tables, the flows,
/// the time.
pub trait World: Tables + Identities + Flows + Sized {
    /// The generation of the tables; 0 when none were installed yet.
    fn generation(&self) -> u64;
    /// Seconds since the machine started.
    fn now_s(&self) -> u32;
    /// [`decide()`] on these tables; the kernel has it verified by itself.
    #[inline(always)]
    fn decide(&self, source: Identity, destination: Identity, protocol: u8, port: u16) -> Verdict {
        decide(source, destination, protocol, port, self)
    }
}

/// What is worth telling about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Note {
    /// Nothing.
    #[default]
    None = 0,
    /// It opened a flow.
    Opened = 1,
    /// It was refused.
    Refused = 2,
    /// It was refused, and its flow had been allowed before.
    Cut = 3,
}

impl Note {
    /// The note with this code.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Opened,
            2 => Self::Refused,
            3 => Self::Cut,
            _ => Self::None,
        }
    }
}

/// What was decided about a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it passes, and why.
    pub verdict: Verdict,
    /// The service it comes from; 0 when unknown.
    pub source: Identity,
    /// The service it goes to; 0 when unknown.
    pub destination: Identity,
    /// What to tell about it.
    pub note: Note,
}

impl Judgement {
    /// A refusal before anything is known about the packet.
    #[must_use]
    #[inline(always)]
    pub fn refused(reason: Reason) -> Self {
        Self {
            verdict: Verdict::refused(reason),
            source: Identity(0),
            destination: Identity(0),
            note: Note::Refused,
        }
    }
}

/// Judges an Ethernet frame. `packet` is filled with what was understood of it.
#[inline(always)]
pub fn judge_frame<B: Bytes + ?Sized, W: World>(
    bytes: &B,
    direction: Direction,
    attachment: &Attachment,
    world: &W,
    packet: &mut Packet,
) -> Judgement {
    let Some(ethertype) = bytes.load::<2>(ETHERNET_BYTES - 2) else {
        return Judgement::refused(Reason::Truncated);
    };
    match be16(ethertype[0], ethertype[1]) {
        ETHERTYPE_ARP => arp(bytes, direction, attachment, packet),
        ethertype => judge(bytes, ETHERNET_BYTES, ethertype, direction, attachment, world, packet),
    }
}

/// Judges an IP packet that begins at `offset`; `ethertype` says of which version. `packet` is filled with
/// what was understood of it.
#[inline(always)]
pub fn judge<B: Bytes + ?Sized, W: World>(
    bytes: &B,
    offset: usize,
    ethertype: u16,
    direction: Direction,
    attachment: &Attachment,
    world: &W,
    packet: &mut Packet,
) -> Judgement {
    let mut judgement = Judgement::refused(Reason::Malformed);
    if let Err(reason) = bytes.parse(offset, ethertype, packet) {
        judgement.verdict = Verdict::refused(reason);
        return judgement;
    }
    if matches!(packet.kind, Kind::Solicitation | Kind::Advertisement) {
        let verdict = neighbour(packet, direction, attachment);
        conclude(&mut judgement, verdict, Note::None);
        return judgement;
    }
    if attachment.has(GROUP) && attachment.owns(&packet.source) && attachment.owns(&packet.destination) {
        identify(&mut judgement, attachment.identity, direction, attachment);
        let verdict = Verdict { allow: true, ..Verdict::refused(Reason::Own) };
        conclude(&mut judgement, verdict, Note::None);
        return judgement;
    }
    match counterpart(packet, direction, attachment) {
        Ok(peer) => through_flow(&mut judgement, packet, peer, direction, attachment, world),
        Err(reason) => judgement.verdict = Verdict::refused(reason),
    }
    judgement
}

#[inline(always)]
const fn conclude(judgement: &mut Judgement, verdict: Verdict, note: Note) {
    judgement.verdict = verdict;
    judgement.note = if verdict.allow { note } else { Note::Refused };
}

/// The address at the other end of the packet's flow, once the packet carries its attachment's own.
#[inline(always)]
fn counterpart(packet: &Packet, direction: Direction, attachment: &Attachment) -> Result<Address, Reason> {
    let is_error = matches!(packet.kind, Kind::Error);
    match direction {
        Direction::Leaving if !attachment.owns(&packet.source) => Err(Reason::Spoofed),
        Direction::Arriving if !attachment.owns(&packet.destination) => Err(Reason::Misdelivered),
        Direction::Arriving if attachment.owns(&packet.source) => Err(Reason::Spoofed),
        // A workload complains only about what was sent to it; routers may complain about anything.
        Direction::Leaving if is_error && !attachment.owns(&packet.quoted) => Err(Reason::UntrackedError),
        Direction::Leaving => Ok(packet.destination),
        Direction::Arriving if is_error => Ok(packet.quoted),
        Direction::Arriving => Ok(packet.source),
    }
}

/// The verdict of the packet's flow, or else whether it may open one.
#[inline(always)]
fn through_flow<W: World>(
    judgement: &mut Judgement,
    packet: &Packet,
    peer: Address,
    direction: Direction,
    attachment: &Attachment,
    world: &W,
) {
    let key = FlowKey::new(direction, peer, packet);
    let kind = packet.kind;
    let entry = match kind {
        Kind::Stateless => None,
        _ => world.flow(&key).filter(|entry| !entry.is_idle(key.protocol, world.now_s())),
    };
    // An opening that comes the other way belongs to no flow that is known.
    let entry = entry.filter(|entry| entry.opened() == direction || !matches!(kind, Kind::Opening));
    if let Some(entry) = entry
        && entry.generation == world.generation()
    {
        identify(judgement, Identity(entry.peer), direction, attachment);
        conclude(judgement, passed(&entry, kind), Note::None);
        if !matches!(kind, Kind::Error) && world.now_s() >= entry.seen_s.saturating_add(REFRESH_S) {
            world.remember(&key, &entry.seen(world.now_s()));
        }
        return;
    }
    let peer = if attachment.is_gateway(&key.peer) { None } else { world.identity(&key.peer) };
    identify(judgement, peer.unwrap_or_default(), direction, attachment);
    let opened = match (entry, kind) {
        (Some(entry), _) => entry.opened(),
        (None, Kind::Error) => {
            return conclude(judgement, Verdict::refused(Reason::UntrackedError), Note::None);
        }
        (None, _) => direction,
    };
    let mut opened = opened;
    let mut verdict = opening(&key, opened, peer, attachment, world);
    if !verdict.allow && opened != direction && !matches!(kind, Kind::Error) {
        // What may no longer be a reply may still be a flow of its own.
        let own = opening(&key, direction, peer, attachment, world);
        if own.allow {
            (verdict, opened) = (own, direction);
        }
    }
    let is_new = entry.is_none_or(|entry| entry.opened() != opened);
    conclude(judgement, verdict, if is_new { Note::Opened } else { Note::None });
    if !verdict.allow {
        if entry.is_some() {
            judgement.note = Note::Cut;
        }
    } else if !matches!(kind, Kind::Stateless) {
        let entry =
            FlowEntry::new(opened, peer.unwrap_or_default(), &verdict, world.generation(), world.now_s());
        world.remember(&key, &entry);
    }
}

#[inline(always)]
const fn passed(entry: &FlowEntry, kind: Kind) -> Verdict {
    let verdict = entry.verdict();
    match kind {
        Kind::Error => Verdict { reason: Reason::IcmpError, ..verdict },
        _ => verdict,
    }
}

#[inline(always)]
const fn identify(judgement: &mut Judgement, peer: Identity, direction: Direction, attachment: &Attachment) {
    (judgement.source, judgement.destination) = match direction {
        Direction::Leaving => (attachment.identity, peer),
        Direction::Arriving => (peer, attachment.identity),
    };
}

/// Whether a flow may be opened in a direction.
#[inline(always)]
fn opening<W: World>(
    key: &FlowKey,
    opened: Direction,
    peer: Option<Identity>,
    attachment: &Attachment,
    world: &W,
) -> Verdict {
    if attachment.is_gateway(&key.peer) {
        let allow = match opened {
            Direction::Leaving => attachment.offers(key.protocol, key.peer_port),
            Direction::Arriving => attachment.has(PROBES),
        };
        let reason = if allow { Reason::Gateway } else { Reason::GatewayPort };
        return Verdict { allow, ..Verdict::refused(reason) };
    }
    if world.generation() == 0 {
        return Verdict::refused(Reason::NoTables);
    }
    let (from, to) = match (opened, peer) {
        (Direction::Leaving, Some(peer)) => (attachment.identity, peer),
        (Direction::Arriving, Some(peer)) => (peer, attachment.identity),
        (Direction::Leaving, None) => return Verdict::refused(Reason::UnknownDestination),
        (Direction::Arriving, None) => return Verdict::refused(Reason::UnknownSource),
    };
    world.decide(from, to, key.protocol, key.port(opened))
}

/// Neighbour discovery passes between a workload and its gateway.
#[inline(always)]
fn neighbour(packet: &Packet, direction: Direction, attachment: &Attachment) -> Verdict {
    let (mine, theirs) = match direction {
        Direction::Leaving => (&packet.source, &packet.destination),
        Direction::Arriving => (&packet.destination, &packet.source),
    };
    let own = |a: &Address| attachment.owns(a) || a.is_link_local();
    let gateway = |a: &Address| attachment.is_gateway(a) || a.is_link_local();
    let silent = |a: &Address| a.is_none() || a.is_link_multicast();
    let target = &packet.quoted;
    let leaving = matches!(direction, Direction::Leaving);
    let answers = matches!(packet.kind, Kind::Advertisement);
    // Whoever answers, answers for itself; who asks may also ask for itself (duplicate detection).
    let about = if answers == leaving { own(target) } else { gateway(target) || own(target) && leaving };
    if leaving && !own(mine) && !mine.is_none() {
        return Verdict::refused(Reason::Spoofed);
    }
    let between = (own(mine) || silent(mine)) && (gateway(theirs) || silent(theirs));
    let allow = between && about;
    let reason = if allow { Reason::Gateway } else { Reason::LinkControl };
    Verdict { allow, ..Verdict::refused(reason) }
}

/// ARP (RFC 826) passes between a workload and its gateway; so does asking for one's own address
/// (RFC 5227).
#[inline(always)]
fn arp<B: Bytes + ?Sized>(
    bytes: &B,
    direction: Direction,
    attachment: &Attachment,
    packet: &mut Packet,
) -> Judgement {
    let Some(h) = bytes.load::<28>(ETHERNET_BYTES) else { return Judgement::refused(Reason::Truncated) };
    // Ethernet and IPv4, and the lengths of their addresses.
    let plain = be16(h[0], h[1]) == 1 && be16(h[2], h[3]) == 0x0800 && h[4] == 6 && h[5] == 4;
    if !plain {
        return Judgement::refused(Reason::Malformed);
    }
    let sender = Address::ipv4([h[14], h[15], h[16], h[17]]);
    let target = Address::ipv4([h[24], h[25], h[26], h[27]]);
    let is_probe = sender.same(&Address::ipv4([0; 4]));
    let reason = match direction {
        Direction::Leaving if !attachment.owns(&sender) && !is_probe => Reason::Spoofed,
        Direction::Leaving if attachment.is_gateway(&target) || attachment.owns(&target) => Reason::Gateway,
        Direction::Arriving if attachment.is_gateway(&sender) && attachment.owns(&target) => Reason::Gateway,
        Direction::Leaving | Direction::Arriving => Reason::LinkControl,
    };
    let mut judgement = Judgement::refused(reason);
    (packet.source, packet.destination) = (sender, target);
    judgement.verdict.allow = matches!(reason, Reason::Gateway);
    if judgement.verdict.allow {
        judgement.note = Note::None;
    }
    judgement
}
