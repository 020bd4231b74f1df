//! The first second of a connection over wide, narrow and deceptive underlays: it is as fast as any other.

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, eventually,
    islands::{Island, Islands},
    kernel::{Own, with_own},
    program::{Program, run_in},
    shop,
    voting::Family,
    workload::Workload,
};
use serde_json::Value;

/// Every node but the last two is cabled to the hub by a cable of this MTU; a hidden one lies in the middle
/// of a path that looks as wide as [`WIDE`], and what is too big for it vanishes without a message.
const PATHS: [Path; 6] = [
    Path { node: "a", mtu: 1_280, hidden: false },
    Path { node: "b", mtu: 1_400, hidden: false },
    Path { node: "c", mtu: 1_500, hidden: false },
    Path { node: "d", mtu: WIDE, hidden: false },
    Path { node: "e", mtu: 1_280, hidden: true },
    Path { node: "f", mtu: 1_400, hidden: true },
];
const WIDE: u32 = 9_000;
/// Where packets go over the hub, which they cannot avoid.
const FAR: &str = "far";
const IPERF_PORT: &str = "5201";
/// How long each measurement is, and what the first seconds must reach.
const SECONDS: &str = "3";
const START_SECONDS: f64 = 2.0;
const INTERVAL: &str = "0.2";
/// The part of the steady rate that one interval of the start must reach: a generous half, for what else
/// runs on the machine takes its share when it likes.
const PART: f64 = 0.5;
/// Longest that nothing at all may come, seconds.
const MAX_STALL_SECONDS: f64 = 1.0;
/// Part of the segments that may have to be sent again: links drop what is too much, which is how TCP finds
/// its rate.
const MAX_RETRANSMITTED: f64 = 0.1;
/// Starts of a node that may look slow because the machine was busy with something else.
const ATTEMPTS: usize = 3;
/// The largest packet of every underlay, without IP and ICMP header.
const LARGEST: [(Family, &str); 2] = [(Family::V4, "1252"), (Family::V6, "1232")];
/// What bridges let pass beyond the MTU: the tag of a VLAN.
const TAG: u32 = 4;
/// Headers of an echo request over IPv4.
const ECHO_HEADER: u32 = 28;

#[derive(Debug, Clone, Copy)]
struct Path {
    node: &'static str,
    mtu: u32,
    hidden: bool,
}

/// What one run of iperf3 saw at the receiver.
#[derive(Debug)]
struct Seen {
    steady_mbits: f64,
    /// Until the first interval of at least [`PART`] of the steady rate had ended, seconds.
    until_steady: f64,
    stalled: f64,
    retransmitted: f64,
}

impl Path {
    /// Makes the cable between the hub and the node what it should be.
    fn lay(self, islands: &Islands) -> anyhow::Result<()> {
        let mtu = self.mtu.to_string();
        for (here, there) in [("hub", self.node), (self.node, "hub")] {
            let cable = islands.cable_between(here, there)?;
            islands.ip(here, &["link", "set", &cable, "mtu", &mtu])?;
            if self.hidden {
                hide(islands, here, &cable)?;
            }
        }
        if self.hidden { self.is_hidden(islands) } else { Ok(()) }
    }

    /// Measures right after the start of the node.
    fn measure(self, islands: &Islands, ways: [(&Workload, &str); 2]) -> anyhow::Result<()> {
        let client = islands.workload(self.node, &format!("client-{}", self.node), "client@shop", &[])?;
        let all = std::env::var("SELVEDGE_MTU_ALL").is_ok_and(|v| v == "1");
        for (number, (server, way)) in ways.into_iter().enumerate() {
            largest(&client, server)?;
            let families = [Family::V6, Family::V4];
            let families = if all { &families[..] } else { &families[number..=number] };
            for family in families {
                let seen = measure(&client, server, *family)?;
                let hidden = if self.hidden { ", hidden" } else { "" };
                let what = format!("{}{hidden} | {way} | {family:?}", self.mtu);
                println!(
                    "{what} | {:.0} | {:.1} | {:.2} %",
                    seen.steady_mbits,
                    seen.until_steady,
                    seen.retransmitted * 100.0
                );
                seen.is_steady().with_context(|| what)?;
            }
        }
        Ok(())
    }

    /// That what is too big for the middle of the path vanishes, and nobody is told.
    fn is_hidden(self, islands: &Islands) -> anyhow::Result<()> {
        let cable = islands.cable_between("hub", self.node)?;
        let hub = islands.address_of("hub", &cable)?;
        let hub = hub.split('/').next().context("an address")?;
        let ping = |bytes: u32| {
            let size = (bytes - ECHO_HEADER).to_string();
            islands.exec(self.node, &["ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", &size, hub])
        };
        let fits = || {
            ensure!(ping(self.mtu)?.status.success(), "{} bytes do not pass", self.mtu);
            Ok(())
        };
        eventually("the path does not come up", PATIENCE, fits)?;
        let more = self.mtu + TAG + 1;
        let lost = ping(more)?;
        let said = [lost.stdout, lost.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        let silent = said.contains("100% packet loss") && !said.contains("error");
        ensure!(!lost.status.success() && silent, "{more} bytes are not lost silently: {said}");
        Ok(())
    }
}

impl Seen {
    fn is_steady(&self) -> anyhow::Result<()> {
        ensure!(self.until_steady <= START_SECONDS, "slow at the start: {self:?}");
        ensure!(self.stalled <= MAX_STALL_SECONDS, "nothing came for a while: {self:?}");
        ensure!(self.retransmitted <= MAX_RETRANSMITTED, "much is sent again: {self:?}");
        Ok(())
    }
}

/// Puts a bridge that claims to be wide in front of a cable: it drops what the cable does not carry, and
/// says nothing. Each packet is cut to its size before, so that none passes as part of a larger one.
fn hide(islands: &Islands, here: &str, cable: &str) -> anyhow::Result<()> {
    let address = islands.address_of(here, cable)?;
    let (bridge, wide) = (format!("wide{cable}"), WIDE.to_string());
    for words in [
        &["link", "add", &bridge, "type", "bridge"][..],
        &["link", "set", cable, "master", &bridge],
        &["addr", "del", &address, "dev", cable],
        &["addr", "add", &address, "dev", &bridge],
        &["link", "set", &bridge, "mtu", &wide, "gso_max_segs", "1", "up"],
        &["link", "set", cable, "gso_max_segs", "1"],
    ] {
        islands.ip(here, words)?;
    }
    Ok(())
}

fn serve(islands: &Islands, island: &str) -> anyhow::Result<(Workload, Program)> {
    let tcp = format!("tcp/{IPERF_PORT}");
    let server = islands.workload(island, &format!("iperf-{island}"), "server@shop", &[&tcp])?;
    let dir = islands.open_dir()?;
    let words = ["iperf3", "-s", "-J", "-i", INTERVAL, "-p", IPERF_PORT];
    let program = Program::start(&server, "daemon", &dir, &format!("iperf-{island}"), &words)?;
    Ok((server, program))
}

/// The largest packet passes, as a whole, as soon as any does.
fn largest(client: &Workload, server: &Workload) -> anyhow::Result<()> {
    for (family, size) in LARGEST {
        let to = address(server, family)?;
        eventually(&format!("no packet of 1280 bytes to {to}"), PATIENCE, || {
            let words = ["ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", size, &to];
            run_in(client, "root", "/".as_ref(), &words).map(drop)
        })?;
    }
    Ok(())
}

fn address(of: &Workload, family: Family) -> anyhow::Result<String> {
    let fits = |a: &&std::net::IpAddr| a.is_ipv4() == (family == Family::V4);
    Ok(of.addresses.iter().find(fits).context("an address of each family")?.to_string())
}

fn measure(client: &Workload, server: &Workload, family: Family) -> anyhow::Result<Seen> {
    let to = address(server, family)?;
    let words = ["iperf3", "-J", "-c", &to, "-p", IPERF_PORT, "-t", SECONDS, "-i", INTERVAL];
    let said = run_in(client, "daemon", "/".as_ref(), &[&words[..], &["--get-server-output"]].concat())?;
    let said: Value = serde_json::from_str(&said)?;
    read(&said).with_context(|| format!("in what iperf3 says: {said}"))
}

/// The receiver counts what arrives; what the sender counts is what its own buffers take.
fn read(said: &Value) -> anyhow::Result<Seen> {
    let intervals = said["server_output_json"]["intervals"].as_array().context("no intervals")?;
    let sums = intervals.iter().map(|interval| &interval["sum"]);
    let rates = sums.filter_map(|sum| Some((sum["end"].as_f64()?, sum["bits_per_second"].as_f64()?)));
    let rates: Vec<(f64, f64)> = rates.collect();
    let mut later: Vec<f64> = rates.iter().filter(|(end, _)| *end > START_SECONDS).map(|(_, r)| *r).collect();
    later.sort_by(f64::total_cmp);
    let steady = *later.get(later.len() / 2).context("no interval after the start")?;
    let reached = rates.iter().find(|(_, rate)| *rate >= steady * PART);
    let (mut stalled, mut silent): (f64, f64) = (0.0, 0.0);
    for (_, rate) in &rates {
        silent = if *rate > 0.0 { 0.0 } else { silent + INTERVAL.parse::<f64>()? };
        stalled = stalled.max(silent);
    }
    let sent = &said["end"]["sum_sent"];
    let segment = said["start"]["tcp_mss_default"].as_f64().filter(|mss| *mss > 0.0).context("no MSS")?;
    let segments = sent["bytes"].as_f64().context("no bytes")? / segment;
    Ok(Seen {
        steady_mbits: steady / 1e6,
        until_steady: reached.context("no rate")?.0,
        stalled,
        retransmitted: sent["retransmits"].as_f64().context("no retransmits")? / segments,
    })
}

fn drill() -> anyhow::Result<()> {
    let names: Vec<_> = PATHS.iter().map(|path| path.node).chain(["hub", FAR]).collect();
    let cables: Vec<_> = PATHS.iter().map(|path| ("hub", path.node)).chain([("hub", FAR)]).collect();
    let mut islands = Islands::new(&names, &cables)?;
    islands.start(Island { name: "hub", role: "processor", zone: "aws" })?;
    let graph = shop(
        &[("iperf", &format!("tcp/{IPERF_PORT}, icmp"))],
        &[("server", "server:iperf"), ("client", "client:iperf")],
    );
    let graph = islands.file("graph.yaml", &graph)?;
    islands.ask("hub", &["apply", "-f", &graph, "--wait"])?;
    Path { node: FAR, mtu: WIDE, hidden: false }.lay(&islands)?;
    islands.start(Island { name: FAR, role: "workload", zone: "aws" })?;
    let (near, _near) = serve(&islands, "hub")?;
    let (far, _far) = serve(&islands, FAR)?;
    println!("MTU of the underlay | way | family | steady, Mbit/s | at {PART} of it after, s | sent again");
    for path in PATHS {
        path.lay(&islands)?;
        islands.start(Island { name: path.node, role: "workload", zone: "aws" })?;
        let ways = [(&far, "over the hub"), (&near, "direct")];
        let mut slow = Vec::new();
        while let Err(why) = path.measure(&islands, ways) {
            println!("{why:#}");
            slow.push(format!("{why:#}"));
            ensure!(slow.len() < ATTEMPTS, "{slow:?}\n{}", islands.log(path.node));
            islands.kill_and_restart(path.node)?;
        }
        islands.stop(path.node)?;
    }
    Ok(())
}

#[test]
fn a_connection_is_fast_from_the_start_whatever_the_underlay_carries() -> anyhow::Result<()> {
    if !crate::dns_tools::installed("iperf3", &["--version"]) {
        return Ok(());
    }
    with_own(Own::Host, drill)?;
    Ok(())
}
