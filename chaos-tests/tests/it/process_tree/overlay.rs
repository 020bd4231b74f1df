//! Process trees on two nodes, which meet over the overlay.

use std::{net::IpAddr, path::Path};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, eventually,
    islands::{Island, Islands},
    kernel::{Own, with_own},
};

use super::{
    Attached, Running, Sweep, asked_in, attached, graph, is_refused, run_at, tasks::NOBODY, until_ready,
    with_task,
};

/// A process tree of an island that stays, as a service.
fn start(
    islands: &Islands,
    island: &str,
    service: &str,
    ports: &[&str],
) -> anyhow::Result<(Running, Attached, Sweep)> {
    let token = islands.service_token(service)?;
    let ports: Vec<_> = ports.iter().flat_map(|port| ["--port", *port]).collect();
    let command = run_at(&islands.socket(island), service, Path::new(&token), &ports)?;
    let mut command = with_task(command, "serve")?;
    let running = islands.within(island, || until_ready(Running(command.spawn()?)))?;
    let attached = attached(&islands.ask(island, &["attachments"])?, service)?;
    let sweep = Sweep::after(&attached);
    Ok((running, attached, sweep))
}

/// What comes of it when a process on the left asks.
fn asked(
    islands: &Islands,
    tree: Option<&Attached>,
    to: IpAddr,
    claim: Option<IpAddr>,
    expected: bool,
) -> anyhow::Result<[String; 3]> {
    let group = tree.map(|tree| tree.group.as_path());
    islands.within("left", || asked_in(group, to, claim, expected))
}

fn pass(islands: &mut Islands) -> anyhow::Result<()> {
    islands.start(Island { name: "right", role: "processor", zone: "right" })?;
    islands.start(Island { name: "left", role: "workload", zone: "left" })?;
    let islands = &*islands;
    let graph = islands.file("graph.yaml", &graph())?;
    islands.ask("right", &["apply", "-f", &graph, "--wait"])?;

    let (_server, web, _web_groups) = start(islands, "right", "web@shop", &["tcp/80", "udp/80"])?;
    let (_client, client, _groups) = start(islands, "left", "client@shop", &[])?;
    let (_stranger, stranger, _same) = start(islands, "left", "stranger@shop", &[])?;
    ensure!(web.addresses.len() == 2 && client.addresses.len() == 2, "{:?}", web.addresses);
    for to in web.addresses.iter().copied() {
        // Each node hears of the other's endpoint by gossip, in its own time.
        eventually(&format!("{to} is not reached"), PATIENCE, || {
            let [datagram, stream, forbidden] = asked(islands, Some(&client), to, None, true)?;
            for seen in [datagram, stream] {
                let seen: IpAddr = seen.parse().with_context(|| format!("by {to}: {seen}"))?;
                ensure!(client.addresses.contains(&seen), "{to} saw {seen}");
            }
            ensure!(forbidden == NOBODY, "{to}: passed, and no contract allows it");
            Ok(())
        })?;
        is_refused(&asked(islands, Some(&stranger), to, None, false)?, "a stranger")?;
        is_refused(&asked(islands, None, to, None, false)?, "a process outside")?;
    }
    for (to, claim) in web.addresses.iter().zip(&client.addresses) {
        let claimed = asked(islands, None, *to, Some(*claim), false)?;
        is_refused(&claimed, "a process outside that claims to be the client")?;
    }
    Ok(())
}

#[test]
fn process_trees_of_two_nodes_meet_by_contract_alone() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let mut islands = Islands::new(&["right", "left"], &[("right", "left")])?;
        let passed = pass(&mut islands);
        passed.with_context(|| ["right", "left"].map(|island| islands.log(island)).join("\n"))
    })?;
    Ok(())
}
