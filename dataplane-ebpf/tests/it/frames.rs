//! Frames of every kind, most of them nearly right.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::support::{GATEWAY4, GATEWAY6, ME, PORTS, Rng, SERVICES, ipv4, ipv6};

/// Addresses of an IP packet.
#[derive(Clone, Copy)]
enum Ends {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Ends {
    const fn reversed(self) -> Self {
        match self {
            Self::V4(a, b) => Self::V4(b, a),
            Self::V6(a, b) => Self::V6(b, a),
        }
    }
}

/// An Ethernet frame around a payload.
pub(crate) fn ethernet(ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    frame.extend(ethertype.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A timestamp request (RFC 792), which belongs to no flow: it is decided afresh each time.
pub(crate) fn timestamp(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    ethernet(0x0800, &ipv4_packet(source, destination, 1, &[], 0, &[13, 0, 0, 0, 0, 1, 0, 1]))
}

/// A plain UDP datagram in a frame.
pub(crate) fn udp(source: Ipv4Addr, destination: Ipv4Addr, ports: (u16, u16)) -> Vec<u8> {
    let mut datagram = [ports.0.to_be_bytes(), ports.1.to_be_bytes()].concat();
    datagram.extend([0, 8, 0, 0]);
    ethernet(0x0800, &ipv4_packet(source, destination, 17, &[], 0, &datagram))
}

fn ipv4_packet(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    options: &[u8],
    fragment: u16,
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut packet = vec![0x40 | (header / 4) as u8, 0];
    packet.extend(((header + payload.len()) as u16).to_be_bytes());
    packet.extend([0, 1]);
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(options);
    packet.extend(payload);
    packet
}

fn ipv6_packet(source: Ipv6Addr, destination: Ipv6Addr, next: u8, hops: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend((payload.len() as u16).to_be_bytes());
    packet.extend([next, hops]);
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(payload);
    packet
}

/// A random frame; `leaving` says which end is usually the workload under test.
pub(crate) fn random(rng: &mut Rng, leaving: bool) -> Vec<u8> {
    let mut frame = match rng.below(40) {
        0 => arp(rng, leaving),
        1 => neighbour(rng, leaving),
        2 => ethernet(rng.of(&[0x8100, 0x88a8, 0x0806, 0x0800, 0x86dd, 0x1234]), &noise(rng, 80)),
        _ => {
            let ends = ends(rng, leaving);
            let (ethertype, packet) = packet(rng, ends);
            ethernet(ethertype, &packet)
        }
    };
    if rng.chance(6) {
        for _ in 0..=rng.below(3) {
            let at = rng.below(frame.len());
            frame[at] = if rng.chance(2) { rng.byte() } else { frame[at] ^ (1 << rng.below(8)) };
        }
    }
    if rng.chance(10) {
        frame.truncate(15 + rng.below(frame.len() - 14));
    }
    if rng.chance(10) {
        frame.extend(noise(rng, 20));
    }
    frame
}

fn noise(rng: &mut Rng, most: usize) -> Vec<u8> {
    (0..=rng.below(most)).map(|_| rng.byte()).collect()
}

fn ends(rng: &mut Rng, leaving: bool) -> Ends {
    let service = rng.below(SERVICES as usize) as u32 + 1;
    let ends = if rng.chance(2) {
        let mine = if rng.chance(20) { ipv4(service) } else { ipv4(ME) };
        let odd = [GATEWAY4, Ipv4Addr::new(192, 0, 2, 9), ipv4(200), Ipv4Addr::BROADCAST, ipv4(ME)];
        let peer = if rng.chance(8) { rng.of(&odd) } else { ipv4(service) };
        Ends::V4(mine, peer)
    } else {
        let mine = if rng.chance(20) { ipv6(service) } else { ipv6(ME) };
        let mapped = Ipv4Addr::new(10, 0, 0, 2).to_ipv6_mapped();
        let odd = [GATEWAY6, mapped, ipv6(200), Ipv6Addr::UNSPECIFIED, ipv6(ME), "ff02::1".parse().unwrap()];
        let peer = if rng.chance(8) { rng.of(&odd) } else { ipv6(service) };
        Ends::V6(mine, peer)
    };
    if leaving { ends } else { ends.reversed() }
}

/// An IP packet and its EtherType.
fn packet(rng: &mut Rng, ends: Ends) -> (u16, Vec<u8>) {
    let icmp = if matches!(ends, Ends::V4(..)) { 1 } else { 58 };
    let protocol = rng.of(&[6, 6, 6, 17, 17, 17, icmp, icmp, 1, 58, 4, 41, 47, 50, 132, 59, 255]);
    let payload = transport(rng, protocol, ends);
    match ends {
        Ends::V4(source, destination) => {
            let options = if rng.chance(8) { vec![1; rng.below(11) * 4] } else { Vec::new() };
            let fragment = if rng.chance(12) { rng.of(&[0x2000, 0x4000, 0x0001, 0x2001, 0x1fff]) } else { 0 };
            (0x0800, ipv4_packet(source, destination, protocol, &options, fragment, &payload))
        }
        Ends::V6(source, destination) => {
            let (next, payload) = extensions(rng, protocol, payload);
            (0x86dd, ipv6_packet(source, destination, next, rng.of(&[64, 255]), &payload))
        }
    }
}

/// Puts extension headers before a payload.
fn extensions(rng: &mut Rng, protocol: u8, mut payload: Vec<u8>) -> (u8, Vec<u8>) {
    let mut next = protocol;
    if !rng.chance(3) {
        return (next, payload);
    }
    for _ in 0..rng.below(11) {
        let kind = rng.of(&[0u8, 43, 44, 51, 60]);
        let mut header = vec![next, 0, 0, 0, 0, 0, 0, 0];
        match kind {
            44 if rng.chance(3) => header[3] = rng.byte(),
            44 => {}
            51 => {
                header[1] = 2;
                header.extend([0; 8]);
            }
            _ if rng.chance(4) => {
                header[1] = 1;
                header.extend([0; 8]);
            }
            _ => {}
        }
        if kind == 43 && rng.chance(6) {
            header[3] = 1;
        }
        header.extend(payload);
        payload = header;
        next = kind;
    }
    (next, payload)
}

fn transport(rng: &mut Rng, protocol: u8, ends: Ends) -> Vec<u8> {
    let (a, b) = (rng.of(&PORTS), rng.of(&PORTS));
    match protocol {
        6 => {
            let mut segment = [a.to_be_bytes(), b.to_be_bytes()].concat();
            segment.extend([0; 8]);
            segment.extend([
                0x50,
                rng.of(&[0x02, 0x12, 0x10, 0x18, 0x11, 0x04, 0x00, 0xff]),
                0,
                0,
                0,
                0,
                0,
                0,
            ]);
            segment
        }
        17 => {
            let mut datagram = [a.to_be_bytes(), b.to_be_bytes()].concat();
            datagram.extend([0, 8, 0, 0]);
            datagram
        }
        1 | 58 => control(rng, ends),
        4 | 41 => inner(rng, ends),
        _ => noise(rng, 40),
    }
}

/// ICMP of either version, often an error about a flow that may exist.
fn control(rng: &mut Rng, ends: Ends) -> Vec<u8> {
    let kind = if rng.chance(5) {
        rng.byte()
    } else {
        rng.of(&[0, 8, 128, 129, 1, 2, 3, 4, 11, 12, 5, 133, 134, 135, 136, 13])
    };
    let identifier = rng.of(&PORTS).to_be_bytes();
    let mut message = vec![kind, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    if matches!(kind, 1..=4 | 11 | 12) {
        let about = if rng.chance(8) { ends } else { ends.reversed() };
        message.extend(inner(rng, about));
        if rng.chance(4) {
            message.truncate(8 + rng.below(60));
        }
    }
    message
}

/// A packet in a packet.
fn inner(rng: &mut Rng, ends: Ends) -> Vec<u8> {
    let protocol = rng.of(&[6, 17, 17, 1, 58, 47, 44]);
    let mut payload = [rng.of(&PORTS).to_be_bytes(), rng.of(&PORTS).to_be_bytes()].concat();
    if matches!(protocol, 1 | 58) {
        payload = vec![rng.of(&[0, 8, 128, 129, 3]), 0, 0, 0];
    }
    payload.extend(rng.of(&PORTS).to_be_bytes());
    payload.extend([0, 0]);
    match ends {
        Ends::V4(source, destination) => {
            let options = if rng.chance(8) { vec![1; rng.below(11) * 4] } else { Vec::new() };
            let fragment = if rng.chance(12) { 1 } else { 0 };
            ipv4_packet(source, destination, protocol, &options, fragment, &payload)
        }
        Ends::V6(source, destination) => ipv6_packet(source, destination, protocol, 64, &payload),
    }
}

fn arp(rng: &mut Rng, leaving: bool) -> Vec<u8> {
    let addresses = [ipv4(ME), GATEWAY4, ipv4(3), Ipv4Addr::UNSPECIFIED];
    let (sender, target) = match (rng.chance(3), leaving) {
        (true, _) => (rng.of(&addresses), rng.of(&addresses)),
        (false, true) => (ipv4(ME), GATEWAY4),
        (false, false) => (GATEWAY4, ipv4(ME)),
    };
    let mut message = vec![0, 1, 8, 0, 6, 4, 0, rng.of(&[1, 2]), 2, 0, 0, 0, 0, 2];
    message.extend(sender.octets());
    message.extend([0; 6]);
    message.extend(target.octets());
    ethernet(0x0806, &message)
}

fn neighbour(rng: &mut Rng, leaving: bool) -> Vec<u8> {
    let addresses: [Ipv6Addr; 6] = [
        ipv6(ME),
        GATEWAY6,
        "fe80::99".parse().unwrap(),
        "ff02::1:ff00:1".parse().unwrap(),
        ipv6(3),
        Ipv6Addr::UNSPECIFIED,
    ];
    let (source, destination) = match (rng.chance(3), leaving) {
        (true, _) => (rng.of(&addresses), rng.of(&addresses)),
        (false, true) => (ipv6(ME), GATEWAY6),
        (false, false) => (GATEWAY6, ipv6(ME)),
    };
    let mut message = vec![rng.of(&[135, 136]), 0, 0, 0, 0, 0, 0, 0];
    message.extend(rng.of(&addresses).octets());
    let hops = if rng.chance(8) { 64 } else { 255 };
    ethernet(0x86dd, &ipv6_packet(source, destination, 58, hops, &message))
}
