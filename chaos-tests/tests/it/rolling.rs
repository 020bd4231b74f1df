//! Every node is changed to another version, one after the other, under load: no question to a node that runs
//! goes unanswered, nothing forbidden passes, and intent can be changed all the time but for an election.

use std::{
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, binary, eventually,
    flood::{Flood, Guest},
    http::{self, Request, Server},
    kernel::{Own, with_own},
    limit,
    load::{Attempts, Conversation},
    shop,
    world::{THREE_CLOUDS, World},
};

const SEED: u64 = 43;
const NAME: &str = "web.shop.fabric.internal";
const CLOSED_PORT: u16 = 9_999;
/// An answer takes no longer than that: a question asked so shortly before a stop may find nobody.
const IN_FLIGHT: Duration = Duration::from_millis(250);
/// An election, and who finds out who won it.
const ELECTION: Duration = Duration::from_secs(5);
/// How long one write is waited for.
const ONE_WRITE: Duration = Duration::from_secs(1);

/// A node, the questions to it, and when it was not running.
struct Asked {
    name: String,
    questions: Attempts,
    since: Instant,
    away: Option<(Instant, Instant)>,
}

impl Asked {
    fn judge(&self) -> anyhow::Result<usize> {
        let end = Instant::now().checked_sub(IN_FLIGHT).context("a time")?;
        let (stopped, back) = self.away.context("it was never stopped")?;
        let before = self.questions.between(self.since, stopped.checked_sub(IN_FLIGHT).context("a time")?);
        let after = self.questions.between(back, end);
        for share in [&before, &after] {
            ensure!(
                share.failed == 0,
                "{}: {} of {} questions failed: {:?}",
                self.name,
                share.failed,
                share.tries,
                share.first
            );
        }
        Ok(before.tries + after.tries)
    }
}

/// Changes one object again and again, through whichever processor takes it.
fn writes(processors: Vec<PathBuf>) -> anyhow::Result<Attempts> {
    let mut number = 0_usize;
    Attempts::start(Path::new("/proc/self/ns/net"), Duration::from_millis(20), move || {
        number += 1;
        let body = format!(
            "{{\"apiVersion\": \"selvedge/v1\", \"kind\": \"Domain\", \"metadata\": {{\"name\": \"load\"}}, \
             \"spec\": {{\"description\": \"{number}\"}}}}"
        );
        let request = Request { method: "POST", path: "/v1/apply", headers: "", body: &body };
        let socket = &processors[number % processors.len()];
        http::ask(Server::Socket(socket), request, ONE_WRITE).success().map(drop).context("refused")
    })
}

fn drill() -> anyhow::Result<()> {
    let mut world = World::of_three(SEED)?;
    let passed = pass(&mut world);
    passed.with_context(|| world.logs())
}

fn pass(world: &mut World) -> anyhow::Result<()> {
    world.start_pairs()?;
    let graph = shop(&[("web", "tcp/80, tcp/82")], &[("front", "server:web"), ("buyer", "client:web")]);
    let graph = world.file("graph.yaml", &graph)?.to_string_lossy().into_owned();
    world.ask("aws-1", &["apply", "-f", &graph, "--wait"])?;
    let ports = ["tcp/80", "tcp/82"];
    let server = world.workload("azr-w", "front", "front@shop", &ports)?;
    let other = world.workload("gcp-w", "other", "front@shop", &ports)?;
    let buyer = world.workload("aws-w", "buyer", "buyer@shop", &[])?;
    let conversation = Conversation::start(&buyer, &server, (server.addresses[0], 82).into())?;
    let guests = [Guest::listen(&server, CLOSED_PORT, &[])?, Guest::listen(&other, CLOSED_PORT, &[])?];
    let mut flood = Flood::default();
    for workload in [&server, &other] {
        flood.add(&buyer, (workload.addresses[0], CLOSED_PORT).into())?;
        flood.add(&buyer, (workload.addresses[1], CLOSED_PORT).into())?;
    }
    let next = binary::next()?;
    let mut asked = questions(world)?;
    let writes = writes(THREE_CLOUDS.map(|cloud| world.socket(&format!("{cloud}-1"))).to_vec())?;
    sleep(Duration::from_secs(1));
    for node in &mut asked {
        let stopped = Instant::now();
        world.stop(&node.name)?;
        world.set_binary(&node.name, &next)?;
        world.launch(&node.name)?;
        node.away = Some((stopped, Instant::now()));
        println!("{} changed in {:?}", node.name, stopped.elapsed());
        world.settle()?;
        conversation.goes_on(&format!("{} was changed", node.name))?;
    }
    sleep(Duration::from_secs(1));
    let mut answered = 0;
    for node in &asked {
        answered += node.judge()?;
    }
    let (arrived, gap) = (guests.iter().map(Guest::arrived).sum::<u64>(), writes.longest_gap());
    println!(
        "{answered} questions to running nodes, all answered; {} forbidden sent, {arrived} arrived; longest time \
         without an accepted write: {gap:?}",
        flood.sent()
    );
    ensure!(arrived == 0, "{arrived} forbidden datagrams arrived");
    ensure!(gap <= limit(ELECTION), "no write was accepted for {gap:?}");
    conversation.end()
}

/// Questions to every node, which all answer by now.
fn questions(world: &World) -> anyhow::Result<Vec<Asked>> {
    let mut asked = Vec::new();
    for name in world.names() {
        let netns = world.host(&name)?.namespace.path();
        let questions = Attempts::of_questions(&netns, NAME, Duration::from_millis(10))?;
        eventually(&format!("{name} does not answer"), PATIENCE, || {
            let began = Instant::now();
            sleep(Duration::from_millis(200));
            let share = questions.between(began, Instant::now());
            ensure!(share.tries > 0 && share.failed == 0, "{share:?}");
            Ok(())
        })?;
        asked.push(Asked { name, questions, since: Instant::now(), away: None });
    }
    Ok(asked)
}

#[test]
fn nobody_notices_that_every_node_is_changed_to_another_version() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
