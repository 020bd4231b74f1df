//! Nodes that were taken over lie to honest ones, with valid keys: a processor reads, repeats and alters what
//! it carries, a workload node sends what it may not. Each lie is dropped at the first place that can see it,
//! and is counted there under its own name.

use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::atomic::Ordering,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use selvedge_chaos_tests::lab::{
    PATIENCE, eventually,
    flood::Guest,
    islands::{Island, Islands},
    kernel::{Own, with_own},
    metrics, pins, shop,
    workload::Workload,
};
use selvedge_transport::Alpn;

use crate::rogue::{FRAME, PLAIN, Rogue, SEALED, Stolen, Wire};

const ISLANDS: [&str; 3] = ["hub", "left", "right"];
const CABLES: [(&str, &str); 3] = [("hub", "left"), ("hub", "right"), ("left", "right")];
const PORT: u16 = 5000;
const CLOSED_PORT: u16 = 9999;
/// In every payload.
const MARKER: &[u8] = b"a marker that only the ends may see";
/// Datagrams that a dishonest processor hands on.
const CARRIED: u64 = 200;
/// How long what was sent may still be under way.
const A_MOMENT: Duration = Duration::from_millis(500);

/// Where things are in a datagram with a frame: one byte in front of the frame, then its header.
mod at {
    pub(super) const KIND: usize = 1;
    pub(super) const HOP_LIMIT: usize = 3;
    pub(super) const PORT: usize = 7;
    pub(super) const SOURCE_IDENTITY: usize = 9;
    pub(super) const SOURCE_NODE: usize = 17;
    pub(super) const DESTINATION_NODE: usize = 25;
    pub(super) const SOURCE: usize = 57;
    pub(super) const PAYLOAD: usize = 65;
}

/// `a` on the left may send to `b` on the right.
struct Scene {
    islands: Islands,
    a: Workload,
    b: Workload,
    socket: UdpSocket,
    to_closed: UdpSocket,
    /// At the port that is open to `a`, and at one that is open to nobody.
    guests: [Guest; 2],
    sent: u64,
}

/// A datagram with some of its bytes replaced.
fn with(frame: &[u8], position: usize, bytes: &[u8]) -> Bytes {
    let mut changed = frame.to_vec();
    changed[position..position + bytes.len()].copy_from_slice(bytes);
    changed.into()
}

impl Scene {
    fn set() -> anyhow::Result<Self> {
        let mut islands = Islands::new(&ISLANDS, &CABLES)?;
        // For later: a way around the hub.
        let around = islands.cable_between("left", "right")?;
        islands.ip("left", &["link", "set", &around, "down"])?;
        for (name, role) in [("hub", "processor"), ("left", "workload"), ("right", "workload")] {
            islands.start(Island { name, role, zone: "aws" })?;
        }
        let graph = shop(&[("ask", "udp/5000")], &[("a", "client:ask"), ("b", "server:ask")]);
        islands.ask("hub", &["apply", "-f", &islands.file("graph.yaml", &graph)?, "--wait"])?;
        let b = islands.workload("right", "b", "b@shop", &["udp/5000"])?;
        let a = islands.workload("left", "a", "a@shop", &[])?;
        let guests = [Guest::listen(&b, PORT, &[])?, Guest::listen(&b, CLOSED_PORT, &[])?];
        let connected = |port| {
            let to = SocketAddr::new(b.addresses[0], port);
            a.run(|| UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect(to).map(|()| s)))
        };
        let (socket, to_closed) = (connected(PORT)??, connected(CLOSED_PORT)??);
        Ok(Self { islands, a, b, socket, to_closed, guests, sent: 0 })
    }

    fn v4(workload: &Workload) -> anyhow::Result<[u8; 4]> {
        match workload.addresses[0] {
            IpAddr::V4(v4) => Ok(v4.octets()),
            IpAddr::V6(v6) => anyhow::bail!("{v6} is not IPv4"),
        }
    }

    fn send(&mut self) -> anyhow::Result<()> {
        let number = self.sent;
        // Refused while there is no way at all.
        self.socket.send(&[MARKER, &number.to_be_bytes()].concat())?;
        self.sent += 1;
        Ok(())
    }

    fn arrived(&self) -> u64 {
        self.guests[0].arrived()
    }

    /// Packets go from `a` to `b`.
    fn flows(&mut self) -> anyhow::Result<()> {
        let took = eventually("nothing arrives", PATIENCE, || {
            let before = self.arrived();
            let _ = self.send();
            std::thread::sleep(Duration::from_millis(100));
            ensure!(self.arrived() > before, "nothing more");
            Ok(())
        })?;
        std::thread::sleep(A_MOMENT);
        println!("packets flow after {took:?}");
        Ok(())
    }

    fn counter(&self, island: &str, name: &str) -> anyhow::Result<u64> {
        let text = metrics(&self.islands.socket(island))?;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.with_context(|| format!("no {name}"))?.trim().parse().context("no number")
    }

    fn refused(&self, island: &str, reason: &str) -> anyhow::Result<u64> {
        self.counter(island, &format!("selvedge_overlay_refused_total{{reason=\"{reason}\"}}"))
    }

    /// A lie that is dropped at `place` for this reason, and goes no further.
    fn is_dropped(
        &self,
        what: &str,
        place: &str,
        reason: &str,
        lie: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let others = ISLANDS.iter().filter(|island| **island != place && self.runs(island));
        let others: Vec<_> = others.copied().collect();
        let carried = "selvedge_overlay_packets_total{kind=\"carried\"}";
        let elsewhere =
            || others.iter().map(|island| self.refused(island, reason)).collect::<Result<Vec<_>, _>>();
        let (before, arrived, before_elsewhere) =
            (self.refused(place, reason)?, self.arrived(), elsewhere()?);
        let carried_before = self.counter(place, carried)?;
        lie()?;
        eventually(&format!("{what}: not counted at {place}"), PATIENCE, || {
            let now = self.refused(place, reason)?;
            ensure!(now == before + 1, "{reason}: {now}, and {before} before");
            Ok(())
        })?;
        ensure!(self.counter(place, carried)? == carried_before, "{what}: {place} carried it on");
        ensure!(elsewhere()? == before_elsewhere, "{what}: refused at {others:?} too");
        ensure!(self.arrived() == arrived && self.guests[1].arrived() == 0, "{what}: it arrived");
        println!("{what}: {reason} at {place}");
        Ok(())
    }

    fn runs(&self, island: &str) -> bool {
        self.islands.run(island, &["status"]).is_ok_and(|done| done.code == 0)
    }
}

/// Somebody at the source takes away, by hand and again and again, what judges its workloads and what drops
/// what was not judged. So its packets come to the node's router, which judges by itself.
fn ungated_source(scene: &Scene) -> anyhow::Result<()> {
    let listed = scene.islands.ask("left", &["attachments"])?;
    let interface = listed[0]["interface"].as_str().context("its interface")?;
    let (before, arrived) = (scene.refused("left", "no-contract")?, scene.arrived());
    eventually("nothing comes to the router", PATIENCE, || {
        // One of them may be about to be put back.
        let _ = scene.islands.exec("left", &["tc", "qdisc", "del", "dev", interface, "clsact"]);
        let mine = pins::links()?.into_iter().filter(|pin| pin.iter().any(|part| part == "left"));
        mine.for_each(|pin| drop(pins::detach(&pin)));
        (0..10).try_for_each(|_| scene.to_closed.send(MARKER).map(drop))?;
        let now = scene.refused("left", "no-contract")?;
        ensure!(now >= before + 100, "{} refused there", now - before);
        Ok(())
    })?;
    std::thread::sleep(A_MOMENT);
    ensure!(scene.arrived() == arrived && scene.guests[1].arrived() == 0, "it arrived");
    println!("gates of the source taken away: no-contract at left, by its router");
    Ok(())
}

/// The processor between the two was taken over: it has its keys, and everything passes through it.
fn dishonest_processor(scene: &mut Scene) -> anyhow::Result<Bytes> {
    scene.islands.stop("hub")?;
    let stolen = Stolen::from(&scene.islands.data("hub"))?;
    let rogue = Rogue::start(&scene.islands, &stolen, &["left", "right"])?;
    let wire = Wire::lay(&rogue, Some(["left", "right"]))?;
    scene.flows().context("over the rogue")?;
    wire.taken().clear();
    let (arrived, sent) = (scene.arrived(), scene.sent);
    while scene.sent < sent + CARRIED {
        scene.send()?;
        std::thread::sleep(Duration::from_millis(2));
    }
    eventually("what it carries does not arrive", PATIENCE, || {
        ensure!(scene.arrived() == arrived + CARRIED, "{} of {CARRIED}", scene.arrived() - arrived);
        Ok(())
    })?;
    cannot_read(scene, &wire)?;

    let frame = wire.sealed_from("left").context("no sealed frame")?;
    let right = "right".parse()?;
    let hands_over = |bytes: Bytes| wire.send(&right, bytes);
    scene.is_dropped("a frame again", "right", "replayed", || hands_over(frame.clone()))?;
    let port = CLOSED_PORT.to_be_bytes();
    let lies = [
        ("another port in the header", "no-contract", with(&frame, at::PORT, &port)),
        (
            "another identity in the header",
            "foreign-identity",
            with(&frame, at::SOURCE_IDENTITY, &[0, 0, 0, 9]),
        ),
        ("another source in the header", "spoofed-source", with(&frame, at::SOURCE, &Scene::v4(&scene.b)?)),
        ("a frame in clear over a third node", "unsealed", with(&frame, at::KIND, &[PLAIN])),
    ];
    for (what, reason, lie) in lies {
        scene.is_dropped(what, "right", reason, || hands_over(lie))?;
    }
    wire.alters.store(true, Ordering::Relaxed);
    let (number, socket) = (scene.sent, scene.socket.try_clone()?);
    scene.is_dropped("an altered payload", "right", "altered", || {
        socket.send(&[MARKER, &number.to_be_bytes()].concat())?;
        Ok(())
    })?;
    scene.sent += 1;
    Ok(frame)
}

/// Everything that the processor saw was decrypted by it, as far as its keys go.
fn cannot_read(scene: &Scene, wire: &Wire) -> anyhow::Result<()> {
    let taken = wire.taken();
    let holding = |needle: &[u8]| {
        taken.iter().filter(|(_, bytes)| bytes.windows(needle.len()).any(|bytes| bytes == needle)).count()
    };
    let marked = holding(MARKER);
    ensure!(marked == 0, "{marked} datagrams with the marker in clear");
    // The search finds what is there: who speaks to whom is not hidden from who must judge it.
    let ends = [Scene::v4(&scene.a)?, Scene::v4(&scene.b)?].concat();
    let judged = holding(&ends);
    ensure!(judged as u64 >= CARRIED, "{judged} of {CARRIED} frames name their ends");
    println!("{judged} frames carried by the rogue, none with its payload in clear");
    Ok(())
}

/// A workload node was taken over, so nothing is enforced at the source: the processor drops its lies, and
/// where there is none between, the node of the destination does.
fn dishonest_source(scene: &mut Scene, frame: &[u8]) -> anyhow::Result<()> {
    scene.islands.start_again("hub")?;
    scene.islands.is_ready("hub")?;
    scene.flows().context("over the honest hub")?;
    let members = scene.islands.ask("hub", &["members"])?;
    let left = members.as_array().into_iter().flatten().find(|member| member["name"] == "left");
    let incarnation = left.and_then(|left| left["incarnation"].as_u64()).context("no incarnation")?;
    scene.islands.stop("left")?;
    let stolen = Stolen::from(&scene.islands.data("left"))?;
    let around = scene.islands.cable_between("left", "right")?;
    scene.islands.ip("left", &["link", "set", &around, "up"])?;
    let rogue = Rogue::start(&scene.islands, &stolen, &["hub", "right"])?;
    let wire = Wire::lay(&rogue, None)?;
    // It is thought alive: nobody but the node itself says that it is.
    let alive = postcard::to_stdvec(&(1_u8, 1_u8, incarnation))?;
    let beating = rogue.transport.clone();
    let hub = "hub".parse()?;
    let beat = rogue.runtime.spawn(async move {
        loop {
            let body = Bytes::from(alive.clone());
            let _ = beating.request(&hub, Alpn::Fabric, body, Duration::from_secs(1)).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    });
    let lied = to_the_processor(scene, &wire, &rogue, frame)
        .and_then(|()| past_the_processor(scene, &wire, &rogue, frame));
    beat.abort();
    lied
}

fn linked(rogue: &Rogue, to: &str) -> anyhow::Result<()> {
    let to = to.parse()?;
    let _entered = rogue.runtime.enter();
    eventually(&format!("the rogue has no link to {to}"), PATIENCE, || {
        rogue.transport.connect(&to, Alpn::Link);
        rogue.transport.channel(&to, Alpn::Link).context("no link").map(drop)
    })?;
    Ok(())
}

fn to_the_processor(scene: &Scene, wire: &Wire, rogue: &Rogue, frame: &[u8]) -> anyhow::Result<()> {
    linked(rogue, "hub")?;
    let hub = "hub".parse()?;
    let right = &frame[at::DESTINATION_NODE..][..8];
    let lies = [
        ("a spoofed source", "spoofed-source", with(frame, at::SOURCE, &Scene::v4(&scene.b)?)),
        ("a foreign identity", "foreign-identity", with(frame, at::SOURCE_IDENTITY, &[0, 0, 0, 9])),
        ("a frame that is not its own", "neighbour-not-carrier", with(frame, at::SOURCE_NODE, right)),
        ("hop limit 0", "hop-limit", with(frame, at::HOP_LIMIT, &[0])),
        ("a port that no contract states", "no-contract", with(frame, at::PORT, &CLOSED_PORT.to_be_bytes())),
        ("a frame in clear", "unsealed", with(frame, at::KIND, &[PLAIN])),
    ];
    for (what, reason, lie) in lies {
        scene.is_dropped(what, "hub", reason, || wire.send(&hub, lie))?;
    }
    Ok(())
}

/// Over the direct link, in clear, as neighbours do.
fn past_the_processor(scene: &Scene, wire: &Wire, rogue: &Rogue, frame: &[u8]) -> anyhow::Result<()> {
    linked(rogue, "right")?;
    let right = "right".parse()?;
    let clear = |stated: u16, port: u16| {
        let header = with(&with(frame, at::KIND, &[PLAIN]), at::PORT, &stated.to_be_bytes());
        let ends = &frame[at::SOURCE..at::PAYLOAD];
        Bytes::from([&header[..at::PAYLOAD], &datagram(ends, port)].concat())
    };
    let lies = [
        ("a port that no contract states", "no-contract", clear(CLOSED_PORT, CLOSED_PORT)),
        ("a header that says otherwise", "header-mismatch", clear(PORT, CLOSED_PORT)),
        ("a spoofed source", "spoofed-source", with(&clear(PORT, PORT), at::SOURCE, &Scene::v4(&scene.b)?)),
        (
            "a foreign identity",
            "foreign-identity",
            with(&clear(PORT, PORT), at::SOURCE_IDENTITY, &[0, 0, 0, 9]),
        ),
        (
            "a frame that is not its own",
            "neighbour-not-carrier",
            with(&clear(PORT, PORT), at::SOURCE_NODE, &frame[at::DESTINATION_NODE..][..8]),
        ),
    ];
    for (what, reason, lie) in lies {
        scene.is_dropped(&format!("{what}, past the hub"), "right", reason, || wire.send(&right, lie))?;
    }
    // It is heard, and what it may say arrives.
    let arrived = scene.arrived();
    wire.send(&right, clear(PORT, PORT))?;
    eventually("what is allowed does not arrive past the hub", PATIENCE, || {
        ensure!(scene.arrived() == arrived + 1, "nothing");
        Ok(())
    })?;
    Ok(())
}

/// A UDP datagram over IPv4 (RFC 791, RFC 768); its checksum is left out.
fn datagram(ends: &[u8], port: u16) -> Vec<u8> {
    let length = 20 + 8 + MARKER.len();
    let mut packet = vec![0x45, 0, 0, length as u8, 0, 1, 0x40, 0, 64, 17, 0, 0];
    packet.extend_from_slice(ends);
    let sum: u32 = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let sum = !(((sum & 0xffff) + (sum >> 16)) as u16);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet.extend_from_slice(&4_000_u16.to_be_bytes());
    packet.extend_from_slice(&port.to_be_bytes());
    packet.extend_from_slice(&((8 + MARKER.len()) as u16).to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(MARKER);
    packet
}

fn drill() -> anyhow::Result<()> {
    let mut scene = Scene::set()?;
    let passed = pass(&mut scene);
    passed.with_context(|| ISLANDS.map(|island| scene.islands.log(island)).join("\n"))
}

fn pass(scene: &mut Scene) -> anyhow::Result<()> {
    scene.flows().context("while all are honest")?;
    ungated_source(scene)?;
    scene.flows().context("with the gates back")?;
    let frame = dishonest_processor(scene)?;
    ensure!(frame.starts_with(&[FRAME, SEALED]) && frame.len() > at::PAYLOAD);
    dishonest_source(scene, &frame)
}

#[test]
fn every_lie_of_a_node_is_dropped_where_it_is_first_seen_and_told_apart() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
