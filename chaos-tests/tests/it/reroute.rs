//! A link is cut: packets take another way.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, count, eventually,
    islands::{Island, Islands},
    kernel::{Own, with_own},
    shop,
    workload::Probe,
};

/// Two ways from left to right: by the one hub or by the other.
const CABLES: [(&str, &str); 5] =
    [("hub", "left"), ("hub", "right"), ("hub", "spare"), ("spare", "left"), ("spare", "right")];
/// Time between two packets.
const BEAT: Duration = Duration::from_millis(10);
/// Packets in a row that say that it flows again.
const STEADY: u32 = 20;

/// By which node packets from left to right go now.
fn way(islands: &Islands) -> anyhow::Result<String> {
    let routes = islands.ask("left", &["routes"])?;
    let route = routes.as_array().into_iter().flatten().find(|route| route["node"] == "right");
    let next = route.and_then(|route| route["next_hop"].as_str());
    Ok(next.context("no way to right")?.to_owned())
}

/// Sends on and on, and returns for how long nothing came back.
fn silence(socket: &UdpSocket) -> anyhow::Result<Duration> {
    let (started, mut answered, mut longest, mut row) = (Instant::now(), Instant::now(), Duration::ZERO, 0);
    let mut buffer = [0; 8];
    // Long enough for the cut to be felt, then until it flows again.
    while started.elapsed() < Duration::from_secs(2) || row < STEADY {
        ensure!(started.elapsed() < PATIENCE, "packets never flow again");
        // A send is refused while there is no way at all.
        let _ = socket.send(b"?");
        if socket.recv(&mut buffer).is_ok() {
            longest = longest.max(answered.elapsed());
            answered = Instant::now();
            row += 1;
            std::thread::sleep(BEAT);
        } else {
            row = 0;
        }
    }
    Ok(longest)
}

fn drill() -> anyhow::Result<()> {
    let mut islands = Islands::new(&["hub", "spare", "left", "right"], &CABLES)?;
    for (name, role) in
        [("hub", "processor"), ("spare", "processor"), ("left", "workload"), ("right", "workload")]
    {
        islands.start(Island { name, role, zone: "aws" })?;
    }
    let graph = shop(&[("web", "udp/80")], &[("front", "server:web"), ("buyer", "client:web")]);
    let graph = islands.file("graph.yaml", &graph)?;
    islands.ask("hub", &["apply", "-f", &graph, "--wait"])?;
    let mut server = islands.workload("right", "front", "front@shop", &["udp/80"])?;
    server.serve(80)?;
    let client = islands.workload("left", "buyer", "buyer@shop", &[])?;
    let to = SocketAddr::new(server.addresses[0], 80);
    let answers = || {
        ensure!(client.reaches(to.ip(), Probe::Udp(80), Duration::from_secs(1))?, "no answer");
        Ok(())
    };
    eventually("left does not reach right", PATIENCE, answers).with_context(|| islands.log("left"))?;
    let socket = client.run(|| UdpSocket::bind("0.0.0.0:0").and_then(|s| s.connect(to).map(|()| s)))??;
    socket.set_read_timeout(Some(BEAT))?;

    let mut gaps = Vec::new();
    for _ in 0..count("SELVEDGE_LINK_CUTS", 20) {
        // Both ways are there again.
        eventually("a link does not come back", PATIENCE, || {
            let links = islands.ask("left", &["links"])?;
            let up = links.as_array().into_iter().flatten().filter(|link| link["state"] == "up");
            ensure!(up.count() >= 2, "{links}");
            Ok(())
        })?;
        eventually("packets do not flow", PATIENCE, answers)?;
        let cable = islands.cable_between("left", &way(&islands)?)?;
        let gap = std::thread::scope(|scope| {
            let sending = scope.spawn(|| silence(&socket));
            std::thread::sleep(Duration::from_millis(300));
            let cut = islands.ip("left", &["link", "set", &cable, "down"]);
            let gap = sending.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
            cut.and(gap)
        })?;
        islands.ip("left", &["link", "set", &cable, "up"])?;
        gaps.push(gap);
    }
    gaps.sort();
    println!("{} cuts: nothing came back for {gaps:?}, median {:?}", gaps.len(), gaps[gaps.len() / 2]);
    Ok(())
}

#[test]
fn packets_take_another_way_when_a_link_is_cut() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
