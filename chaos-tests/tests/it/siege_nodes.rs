//! A connection between workloads of two nodes goes on, without a reset, after what happens to the nodes:
//! their daemons are killed and started again, the TUN and its routes are deleted, the programs are taken away.

use std::{fs, net::SocketAddr};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, binary, eventually,
    flood::{Flood, Guest},
    islands::{Island, Islands},
    kernel::{Own, with_own},
    load::Conversation,
    pins, shop,
};

const ISLANDS: [&str; 2] = ["hub", "west"];
const PORT: u16 = 80;
const CLOSED_PORT: u16 = 9999;
const TUN: &str = "selvedge0";

fn drill() -> anyhow::Result<()> {
    let mut islands = Islands::new(&ISLANDS, &[("hub", "west")])?;
    let passed = pass(&mut islands);
    passed.with_context(|| ISLANDS.map(|island| islands.log(island)).join("\n"))
}

fn pass(islands: &mut Islands) -> anyhow::Result<()> {
    islands.start(Island { name: "hub", role: "processor", zone: "aws" })?;
    islands.start(Island { name: "west", role: "workload", zone: "azr" })?;
    let graph = shop(&[("web", "tcp/80")], &[("front", "server:web"), ("buyer", "client:web")]);
    islands.ask("hub", &["apply", "-f", &islands.file("graph.yaml", &graph)?, "--wait"])?;
    let server = islands.workload("hub", "front", "front@shop", &["tcp/80"])?;
    let client = islands.workload("west", "buyer", "buyer@shop", &[])?;
    let to = SocketAddr::new(server.addresses[0], PORT);
    let guest = Guest::listen(&server, CLOSED_PORT, &[])?;
    let mut flood = Flood::default();
    flood.add(&client, SocketAddr::new(server.addresses[0], CLOSED_PORT))?;
    let conversation = Conversation::start(&client, &server, to)?;
    disturb(islands, &conversation)?;
    conversation.end()?;
    println!("{} forbidden datagrams sent, {} arrived", flood.sent(), guest.arrived());
    ensure!(guest.arrived() == 0, "{} forbidden datagrams arrived", guest.arrived());
    Ok(())
}

fn disturb(islands: &mut Islands, conversation: &Conversation) -> anyhow::Result<()> {
    conversation.goes_on("at first")?;
    for island in ISLANDS {
        islands.kill_and_restart(island)?;
        conversation.goes_on(&format!("{island} was killed and started again"))?;
    }
    for (binary, version) in [(binary::next()?, "next"), (binary::selvedge()?, "former")] {
        for island in ISLANDS {
            islands.set_binary(island, &binary);
            islands.kill_and_restart(island)?;
            conversation.goes_on(&format!("{island} was changed to the {version} version"))?;
        }
    }
    for island in ISLANDS {
        islands.ip(island, &["link", "del", TUN])?;
        is_told(islands, island, "tun-restored")?;
        conversation.goes_on(&format!("the TUN of {island} was deleted"))?;
    }
    islands.ip("west", &["route", "flush", "dev", TUN])?;
    conversation.goes_on("the routes of west were deleted")?;
    pins::links()?.iter().try_for_each(|pin| pins::detach(pin))?;
    is_told(islands, "west", "enforcement-removed")?;
    conversation.goes_on("all programs were detached")?;
    // Nobody is there to put the programs back.
    ISLANDS.iter().try_for_each(|island| islands.stop(island))?;
    pins::links()?.iter().try_for_each(fs::remove_file)?;
    ISLANDS.iter().try_for_each(|island| islands.start_again(island))?;
    ISLANDS.iter().try_for_each(|island| islands.is_ready(island))?;
    conversation.goes_on("both were killed, their pins removed, and both started again").map(drop)
}

fn is_told(islands: &Islands, island: &str, code: &str) -> anyhow::Result<()> {
    eventually(&format!("{island} shows no {code}"), PATIENCE, || {
        let events = islands.ask(island, &["events"])?;
        let told = events.as_array().into_iter().flatten().any(|event| event["code"] == code);
        ensure!(told, "{events}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn a_connection_across_nodes_goes_on_after_what_happens_to_them() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
