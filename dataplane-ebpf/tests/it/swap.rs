//! Ten thousand edges are swapped under load, and no packet sees some of the old and some of the new.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use selvedge_dataplane::{
    Dataplane, TableImage,
    abi::{Class, Direction, Identity, Reason},
};
use selvedge_fabric::plan::Plan;

use crate::{
    frames,
    support::{LOOPBACK, ME, allow, bare_plan, in_kernel, ipv4, me, unpinned},
};

const EDGES: u32 = 10_000;
const SWAPS: u64 = 40;
/// The address whose service changes with every swap.
const PEER: u32 = 2;
/// Packets of one system call.
const BURST: u32 = 1_000;

/// Both plans allow the packet, each for another service behind the address. A packet that took the
/// address from the one and the edge from the other would be refused.
fn plan(revision: u64) -> Plan {
    let mut plan = bare_plan(revision);
    let service = 2 + (revision % 2) as u32;
    if let Some(bound) = plan.identities.get_mut(&IpAddr::V4(ipv4(PEER))) {
        bound.identity = Identity(service);
    }
    for class in [Class::Icmp, Class::Udp] {
        allow(&mut plan, ME, service, class, 0, u16::MAX);
    }
    for edge in 0..EDGES {
        // Different lists, so that they cannot share one.
        let port = (edge % 60_000) as u16;
        allow(&mut plan, 100 + edge, 100 + edge + 1, Class::Tcp, port, port + 1 + (revision % 2) as u16);
    }
    plan
}

#[test]
fn no_packet_sees_half_a_swap() {
    in_kernel(|| {
        let mut plane = unpinned();
        plane.attach_interface(LOOPBACK, me()).unwrap();
        plane.sync(TableImage::new(&plan(1)).unwrap()).unwrap();
        let images: Vec<_> =
            (2..2 + SWAPS).map(|revision| TableImage::new(&plan(revision)).unwrap()).collect();
        let (times, packets) = swap_under_load(&mut plane, images);
        let traffic = plane.counters().unwrap().endpoints[0].counters;
        let slowest = times.iter().max().unwrap();
        let mean = times.iter().sum::<Duration>() / times.len() as u32;
        eprintln!(
            "{SWAPS} swaps of {EDGES} edges: mean {mean:?}, slowest {slowest:?}; {packets} packets judged"
        );
        assert_eq!(traffic.leaving_refused, 0, "packets were judged by a mixture of two revisions");
        assert_eq!(traffic.leaving_packets, packets);
        assert_eq!(plane.revision(), Some(1 + SWAPS));
    });
}

/// The time of each swap, and how many packets were judged meanwhile.
fn swap_under_load(plane: &mut Dataplane, images: Vec<TableImage>) -> (Vec<Duration>, u64) {
    let stop = AtomicBool::new(false);
    let probes = [plane.probe().unwrap(), plane.probe().unwrap()];
    thread::scope(|scope| {
        let load = probes.map(|probe| {
            let stop = &stop;
            scope.spawn(move || {
                let timestamp = frames::timestamp(ipv4(ME), ipv4(PEER));
                let mut packets = 0;
                while !stop.load(Ordering::Relaxed) {
                    let flow = frames::udp(ipv4(ME), ipv4(PEER), ((packets % 1_000) as u16, 7));
                    for (frame, repeat) in [(&timestamp, BURST), (&flow, 1)] {
                        probe.judge(LOOPBACK, Direction::Leaving, frame, repeat).unwrap();
                        packets += u64::from(repeat);
                    }
                }
                packets
            })
        });
        let times = images
            .into_iter()
            .map(|image| {
                let start = Instant::now();
                plane.sync(image).unwrap();
                start.elapsed()
            })
            .collect();
        stop.store(true, Ordering::Relaxed);
        (times, load.map(|load| load.join().unwrap()).iter().sum())
    })
}

#[test]
fn a_withdrawn_contract_cuts_an_established_flow() {
    in_kernel(|| {
        let mut plane = unpinned();
        plane.attach_interface(LOOPBACK, me()).unwrap();
        let probe = plane.probe().unwrap();
        let request = frames::udp(ipv4(ME), ipv4(PEER), (40_000, 53));
        let reply = frames::udp(ipv4(PEER), ipv4(ME), (53, 40_000));
        let judge = |direction, frame: &[u8]| probe.judge(LOOPBACK, direction, frame, 1).unwrap();
        assert_eq!(judge(Direction::Leaving, &request), (false, Reason::NoTables));

        let mut open = bare_plan(1);
        allow(&mut open, ME, PEER, Class::Udp, 53, 53);
        plane.sync(TableImage::new(&open).unwrap()).unwrap();
        assert_eq!(judge(Direction::Arriving, &reply), (false, Reason::NoContract));
        assert_eq!(judge(Direction::Leaving, &request), (true, Reason::Contract));
        assert_eq!(judge(Direction::Leaving, &request), (true, Reason::Flow));
        assert_eq!(judge(Direction::Arriving, &reply), (true, Reason::Flow));

        // Another revision that says the same keeps flows; one that says more decides them again, in the
        // direction in which they were opened.
        open.revision = 2;
        plane.sync(TableImage::new(&open).unwrap()).unwrap();
        assert_eq!(judge(Direction::Arriving, &reply), (true, Reason::Flow));
        allow(&mut open, ME, 3, Class::Udp, 53, 53);
        plane.sync(TableImage::new(&open).unwrap()).unwrap();
        assert_eq!(judge(Direction::Arriving, &reply), (true, Reason::Contract));
        assert_eq!(judge(Direction::Arriving, &reply), (true, Reason::Flow));

        plane.sync(TableImage::new(&bare_plan(3)).unwrap()).unwrap();
        assert_eq!(judge(Direction::Arriving, &reply), (false, Reason::NoContract));
        assert_eq!(judge(Direction::Leaving, &request), (false, Reason::NoContract));
    });
}
