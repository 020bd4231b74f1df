//! Packets between real nodes: over one cable, and over a processor between two nodes that share none.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, eventually,
    islands::{Island, Islands},
    kernel::{Own, with_own},
    metrics, shop,
};

/// Bytes of a transfer in each direction: more than any buffer on the way.
const TRANSFER_BYTES: usize = 4 << 20;
const ISLANDS: [&str; 3] = ["hub", "left", "right"];
/// For how long a connection that must not come about is tried.
const REFUSED_AFTER: Duration = Duration::from_secs(2);

/// The overlay addresses of a node, as another sees them.
fn addresses(islands: &Islands, at: &str, of: &str) -> anyhow::Result<Vec<IpAddr>> {
    let routes = islands.ask(at, &["routes"])?;
    let route = routes.as_array().into_iter().flatten().find(|route| route["node"] == of);
    let route = route.with_context(|| format!("{at} knows no {of}: {routes}"))?;
    ensure!(route["next_hop"].is_string(), "{at} has no way to {of}");
    let texts = route["addresses"].as_array().into_iter().flatten().filter_map(|text| text.as_str());
    let addresses: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    ensure!(addresses.len() == 2, "{route}");
    Ok(addresses)
}

/// Small packets, and the largest that every underlay carries.
fn ping(islands: &Islands, from: &str, to: &str) -> anyhow::Result<()> {
    eventually(&format!("{from} does not reach {to}"), PATIENCE, || {
        for address in addresses(islands, from, to)? {
            let headers = if address.is_ipv4() { 28 } else { 48 };
            for payload in [16, 1_280 - headers] {
                let size = payload.to_string();
                let words = ["ping", "-c", "1", "-W", "2", "-M", "do", "-s", &size, &address.to_string()];
                let done = islands.exec(from, &words)?;
                ensure!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
            }
        }
        Ok(())
    })?;
    Ok(())
}

/// Registers an endpoint and gives its address to the island itself, as an attachment would.
fn endpoint(islands: &Islands, island: &str, service: &str, port: Option<&str>) -> anyhow::Result<IpAddr> {
    let token = islands.service_token(service)?;
    let mut words = vec!["endpoint", "register", "--service", service, "--token-file", &token];
    words.extend(port.iter().flat_map(|port| ["--port", port]));
    let registered = islands.ask(island, &words)?;
    let address = registered["addresses"][0].as_str().context("no address")?.to_owned();
    islands.ip(island, &["addr", "add", &format!("{address}/32"), "dev", "lo"])?;
    Ok(address.parse()?)
}

fn counter(islands: &Islands, island: &str, line: &str) -> anyhow::Result<u64> {
    let socket = islands.socket(island);
    let text = metrics(&socket)?;
    let value = text.lines().find_map(|l| l.strip_prefix(line));
    value.context("no such metric")?.trim().parse().context("no number")
}

/// Sends as much as it gets back, and compares.
fn transfer(to: SocketAddr) -> anyhow::Result<()> {
    let sent: Vec<u8> = (0..TRANSFER_BYTES).map(|n| (n * 31 % 251) as u8).collect();
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(10))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut sender = stream.try_clone()?;
    let outgoing = sent.clone();
    let writer = std::thread::spawn(move || sender.write_all(&outgoing));
    let mut back = vec![0; sent.len()];
    stream.read_exact(&mut back)?;
    writer.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    ensure!(back == sent, "what came back is not what was sent");
    Ok(())
}

fn echo(listener: &TcpListener) -> anyhow::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut reader = stream.try_clone()?;
    let mut buffer = vec![0; 64 << 10];
    let mut left = TRANSFER_BYTES;
    while left > 0 {
        let read = reader.read(&mut buffer)?;
        ensure!(read > 0, "the other end closed");
        stream.write_all(&buffer[..read])?;
        left -= read;
    }
    Ok(())
}

fn drill() -> anyhow::Result<()> {
    let mut islands = Islands::new(&ISLANDS, &[("hub", "left"), ("hub", "right")])?;
    let passed = pass(&mut islands);
    passed.with_context(|| ISLANDS.map(|island| islands.log(island)).join("\n"))
}

fn pass(islands: &mut Islands) -> anyhow::Result<()> {
    islands.start(Island { name: "hub", role: "processor", zone: "hub" })?;
    islands.start(Island { name: "left", role: "workload", zone: "left" })?;
    islands.start(Island { name: "right", role: "workload", zone: "right" })?;
    let islands = &*islands;

    ping(islands, "left", "hub").context("over one cable")?;
    ping(islands, "left", "right").context("over the hub")?;
    ping(islands, "right", "left").context("over the hub")?;
    ensure!(counter(islands, "hub", "selvedge_overlay_packets_total{kind=\"carried\"}")? >= 8);
    let links = islands.ask("left", &["links"])?;
    // A direct link may have been tried meanwhile; it cannot come about.
    let hub = links.as_array().into_iter().flatten().find(|link| link["peer"] == "hub");
    let hub = hub.with_context(|| format!("no link to the hub: {links}"))?;
    ensure!(hub["state"] == "up", "{links}");
    for field in ["rtt_ms", "loss", "tx_bytes", "rx_bytes"] {
        ensure!(hub[field].is_number(), "no {field}: {links}");
    }

    let graph = islands.file(
        "graph.yaml",
        &shop(&[("web", "tcp/80")], &[("front", "server:web"), ("buyer", "client:web")]),
    )?;
    islands.ask("hub", &["apply", "-f", &graph, "--wait"])?;
    let server = endpoint(islands, "right", "front@shop", Some("tcp/80"))?;
    let client = endpoint(islands, "left", "buyer@shop", None)?;
    let route = [format!("{server}/32"), client.to_string()];
    islands.ip("left", &["route", "add", &route[0], "dev", "selvedge0", "src", &route[1]])?;
    eventually("the ends do not know each other", PATIENCE, || {
        for island in ["left", "hub", "right"] {
            let known = islands.ask(island, &["endpoint", "list"])?;
            ensure!(known.as_array().is_some_and(|all| all.len() == 2), "{island}: {known}");
        }
        Ok(())
    })?;

    let words = ["explain", "--from", "buyer@shop", "--to", "front@shop", "--port", "tcp/80"];
    let explained = islands.ask("left", &words)?;
    let hops = explained["hops"].as_array().into_iter().flatten();
    let hops: Vec<_> = hops.filter_map(|hop| Some((hop["node"].as_str()?, hop["place"].as_str()?))).collect();
    ensure!(hops == [("left", "source"), ("hub", "transit"), ("right", "destination")], "{explained}");

    let listener = islands.within("right", || Ok(TcpListener::bind((server, 80))?))?;
    let other = islands.within("right", || Ok(TcpListener::bind((server, 81))?))?;
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| echo(&listener));
        islands.within("left", || transfer((server, 80).into())).context("what the contract states")?;
        echo.join().map_err(|_| anyhow::anyhow!("the echo panicked"))?
    })?;
    let refused = islands
        .within("left", || Ok(TcpStream::connect_timeout(&(server, 81).into(), REFUSED_AFTER).is_err()))?;
    drop(other);
    ensure!(refused, "a port that no contract states was reached");
    let reason = "selvedge_overlay_refused_total{reason=\"no-contract\"}";
    ensure!(counter(islands, "left", reason)? >= 1 && counter(islands, "hub", reason)? == 0);
    Ok(())
}

#[test]
fn packets_pass_as_the_contract_says_and_the_hub_carries_what_it_cannot_read() {
    with_own(Own::Host, drill).expect("the drill passes");
}
