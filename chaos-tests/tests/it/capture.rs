//! A capture of everything that nodes say to each other holds no name in clear text.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    Lab, Options, PATIENCE, ask, binary,
    capture::{Capture, Packet},
    dns, eventually,
    kernel::{Own, with_own},
    write_domain,
};
use serde_json::Value;

/// Ports on which nodes talk to each other, by what they are for.
type FabricPorts = BTreeMap<String, Vec<u16>>;

/// What must not be read on the way: names of domains, contracts, services and nodes, and what tokens
/// and certificates begin with.
fn secrets(lab: &Lab) -> anyhow::Result<BTreeSet<String>> {
    let mut names: BTreeSet<String> =
        ["selvedge-join-", "selvedge-service-", "selvedge-api-", "spiffe://"].map(str::to_owned).into();
    names.extend(lab.nodes.iter().map(|n| n.name.clone()));
    names.extend(lab.contracts.iter().flat_map(|name| name.split('.')).map(str::to_owned));
    let first = lab.nodes.first().context("a node")?;
    let services = ask(first, &["get", "service"])?;
    let services: Vec<_> =
        services.as_array().into_iter().flatten().filter_map(|s| s["metadata"]["name"].as_str()).collect();
    ensure!(services.contains(&"voting-svc"), "services {services:?}");
    names.extend(services.into_iter().map(str::to_owned));
    Ok(names)
}

fn ports(addresses: &Value) -> Vec<u16> {
    let texts = addresses.as_array().into_iter().flatten().filter_map(Value::as_str);
    texts.filter_map(|text| text.rsplit_once(':')?.1.parse().ok()).collect()
}

/// Ports on which a host talks to itself, in clear text by design: DNS, the workload API, and the
/// applications, whose packets no fabric carries yet; and the ports of nodes, by node.
fn local_and_fabric(lab: &Lab) -> anyhow::Result<(BTreeSet<u16>, FabricPorts)> {
    let (mut local, mut fabric) = (BTreeSet::new(), BTreeMap::new());
    for node in &lab.nodes {
        let listening = ask(node, &["status"])?["listening"].clone();
        local.extend(ports(&listening["dns"]));
        local.extend(ports(&listening["workload-api"]));
        fabric.insert(format!("fabric of {}", node.name), ports(&listening["fabric"]));
        fabric.insert(format!("gossip of {}", node.name), ports(&listening["gossip"]));
        fabric.insert(format!("API of {}", node.name), ports(&listening["api"]));
    }
    let endpoints = ask(lab.nodes.first().context("a node")?, &["endpoint", "list"])?;
    let served = endpoints.as_array().into_iter().flatten().filter_map(|e| e["ports"].as_array()).flatten();
    local.extend(served.filter_map(|p| u16::try_from(p["local"].as_u64()?).ok()));
    Ok((local, fabric))
}

fn contains(packet: &Packet, name: &str) -> bool {
    packet.bytes.windows(name.len()).any(|bytes| bytes == name.as_bytes())
}

fn touches(packet: &Packet, ports: impl Fn(u16) -> bool) -> bool {
    packet.ports.is_some_and(|(from, to)| ports(from) || ports(to))
}

/// The API over TCP, as an administrator uses it from elsewhere.
fn over_the_network(lab: &Lab) -> anyhow::Result<()> {
    let first = lab.nodes.first().context("a node")?;
    let dir = tempfile::tempdir()?;
    let token = dir.path().join("token").to_string_lossy().into_owned();
    ask(first, &["token", "admin", "--name", "watcher", "--save", &token])?;
    for node in &lab.nodes {
        let status = ask(node, &["status"])?;
        let address = status["listening"]["api"][0].as_str().context("an API address")?;
        eventually("the token is not known yet", PATIENCE, || {
            let output = Command::new(binary::selvedge()?)
                .args(["--api", &format!("https://{address}"), "--token-file", &token, "--ca-file"])
                .arg(first.data().join("ca.pem"))
                .args(["get", "contract", "-o", "json"])
                .output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            ensure!(String::from_utf8_lossy(&output.stdout).contains("voting-backend"), "no contract");
            Ok(())
        })?;
    }
    Ok(())
}

fn drill() -> anyhow::Result<()> {
    let capture = Capture::start()?;
    // Captured from the very first join on, with everything that names travel in: tokens, manifests,
    // records of endpoints, a snapshot for whom comes back, the API.
    let mut lab = Lab::start(&Options { processors: 1, ..Options::default() })?;
    for node in &lab.nodes {
        for name in &lab.contracts {
            ensure!(!dns::addresses(node.dns, &lab.fqdn(name))?.is_empty(), "{name} has no address");
        }
    }
    lab.nodes.last_mut().context("a node")?.kill()?;
    write_domain(lab.running().next().context("a survivor")?, "while-one-was-away")?;
    lab.restart_all()?;
    for node in &lab.nodes {
        let knows = || ask(node, &["get", "domain", "while-one-was-away"]).map(drop);
        eventually(&format!("{} does not learn of the write", node.name), PATIENCE, knows)?;
    }
    over_the_network(&lab)?;

    let mut names = secrets(&lab)?;
    names.insert("while-one-was-away".to_owned());
    let (local, fabric) = local_and_fabric(&lab)?;
    let contracts = lab.contracts.clone();
    lab.close()?;
    let packets = capture.finish()?;

    let (aside, between): (Vec<_>, Vec<_>) =
        packets.iter().partition(|packet| touches(packet, |port| local.contains(&port)));
    for (what, ports) in &fabric {
        ensure!(between.iter().any(|p| touches(p, |port| ports.contains(&port))), "no packet of {what}");
    }
    for name in &names {
        let told = between.iter().find(|packet| contains(packet, name));
        ensure!(told.is_none(), "{name} is told in clear text, on ports {:?}", told.map(|p| p.ports));
    }
    let bytes: usize = between.iter().map(|p| p.bytes.len()).sum();
    println!("{} packets between nodes, {bytes} bytes: none of {} names", between.len(), names.len());
    // The search finds what is there: the DNS of each host has every contract in clear text.
    for label in contracts.iter().filter_map(|name| name.split('.').next()) {
        ensure!(aside.iter().any(|packet| contains(packet, label)), "the search does not find {label}");
    }
    Ok(())
}

#[test]
fn nothing_between_nodes_names_anything() {
    with_own(Own::Network, drill).expect("the drill passes");
}
