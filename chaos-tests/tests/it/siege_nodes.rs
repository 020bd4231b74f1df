//! A connection between workloads of two nodes goes on, without a reset, after what happens to the nodes:
//! their daemons are killed and started again, the TUN and its routes are deleted, the programs are taken away.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::ScopedJoinHandle,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, binary, eventually,
    flood::{Flood, Guest},
    islands::{Island, Islands},
    kernel::{Own, with_own},
    pins, shop,
};

const ISLANDS: [&str; 2] = ["hub", "west"];
const PORT: u16 = 80;
const CLOSED_PORT: u16 = 9999;
const TUN: &str = "selvedge0";
/// Pause between two exchanges.
const BEAT: Duration = Duration::from_millis(5);
/// Exchanges that say that it goes on.
const STEADY: u64 = 20;

/// A connection on which numbers go back and forth, and how many did.
struct Conversation {
    exchanges: AtomicU64,
    over: AtomicBool,
}

impl Conversation {
    fn converse(&self, mut stream: TcpStream) -> anyhow::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        while !self.over.load(Ordering::Relaxed) {
            let number = self.exchanges.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&number.to_be_bytes())?;
            let mut back = [0; 8];
            stream.read_exact(&mut back)?;
            ensure!(u64::from_be_bytes(back) == number, "what came back is not what was sent");
            std::thread::sleep(BEAT);
        }
        Ok(())
    }

    fn goes_on(&self, after: &str) -> anyhow::Result<()> {
        let before = self.exchanges.load(Ordering::Relaxed);
        let took = eventually(&format!("{after}, and the connection stands still"), PATIENCE, || {
            let now = self.exchanges.load(Ordering::Relaxed);
            ensure!(now > before + STEADY, "{} exchanges since", now - before);
            Ok(())
        })?;
        println!("{after}: the connection went on within {took:?}");
        Ok(())
    }
}

/// Sends back what comes, on one connection, until its other end closes it.
fn echo(listener: &TcpListener) -> anyhow::Result<()> {
    let (mut stream, _) = listener.accept()?;
    let mut buffer = [0; 64];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            read => stream.write_all(&buffer[..read])?,
        }
    }
}

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
    let listener = server.run(|| TcpListener::bind(to))??;
    let guest = Guest::listen(&server, CLOSED_PORT, &[])?;
    let mut flood = Flood::default();
    flood.add(&client, SocketAddr::new(server.addresses[0], CLOSED_PORT))?;
    let mut stream = None;
    eventually("no connection", PATIENCE, || {
        stream = Some(client.run(|| TcpStream::connect_timeout(&to, PATIENCE / 30))??);
        Ok(())
    })?;
    let stream = stream.context("no connection")?;
    let conversation = Conversation { exchanges: AtomicU64::new(0), over: AtomicBool::new(false) };
    std::thread::scope(|scope| {
        let echoing = scope.spawn(|| echo(&listener));
        let talking = scope.spawn(|| conversation.converse(stream));
        let ended = disturb(islands, &conversation);
        conversation.over.store(true, Ordering::Relaxed);
        joined(talking).context("the connection broke")?;
        joined(echoing).context("the server's end broke")?;
        ended
    })?;
    println!("{} forbidden datagrams sent, {} arrived", flood.sent(), guest.arrived());
    ensure!(guest.arrived() == 0, "{} forbidden datagrams arrived", guest.arrived());
    Ok(())
}

fn joined(thread: ScopedJoinHandle<'_, anyhow::Result<()>>) -> anyhow::Result<()> {
    thread.join().map_err(|_| anyhow::anyhow!("it panicked"))?
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
    conversation.goes_on("both were killed, their pins removed, and both started again")
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
