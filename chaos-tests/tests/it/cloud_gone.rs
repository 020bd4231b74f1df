//! A whole cloud is gone, with real packets and real clients: what goes on between the others loses nothing,
//! and clients of a service that was also there find those who are left.

use std::{
    net::SocketAddr,
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    PATIENCE, eventually,
    flood::{Flow, Guest},
    kernel::{Own, with_own},
    load::{Attempts, Conversation},
    shop,
    workload::Workload,
    world::World,
};

const SEED: u64 = 41;
const NAME: &str = "web.shop.fabric.internal";
const TCP: u16 = 80;
const UDP: u16 = 81;
const TALK: u16 = 82;
/// From then on clients succeed.
const ACCEPTED: Duration = Duration::from_secs(5);
/// How long clients are looked at after a loss.
const WATCHED: Duration = Duration::from_secs(15);
const CLIENTS: usize = 3;
const PAUSE: Duration = Duration::from_millis(5);

/// How a cloud goes.
#[derive(Debug, Clone, Copy)]
enum Loss {
    /// Every process ends at once; the hosts are still there and say so.
    Killed,
    /// Nothing comes from there any more.
    Silent,
}

struct Scene {
    conversation: Conversation,
    flow: Flow,
    clients: Vec<Attempts>,
    _guest: Guest,
    /// Declared last: what talks in them ends before.
    _workloads: [Workload; 3],
}

impl Scene {
    fn begin(world: &World) -> anyhow::Result<Self> {
        let ports = [format!("tcp/{TCP}"), format!("udp/{UDP}"), format!("tcp/{TALK}")];
        let graph = shop(&[("web", &ports.join(", "))], &[("front", "server:web"), ("buyer", "client:web")]);
        let graph = world.file("graph.yaml", &graph)?.to_string_lossy().into_owned();
        world.ask("azr-1", &["apply", "-f", &graph, "--wait"])?;
        let ports = ports.each_ref().map(String::as_str);
        let mut near = world.workload("azr-w", "near", "front@shop", &ports)?;
        let mut doomed = world.workload("gcp-w", "doomed", "front@shop", &ports)?;
        let buyer = world.workload("aws-w", "buyer", "buyer@shop", &[])?;
        near.serve(TCP)?;
        doomed.serve(TCP)?;
        let guest = Guest::listen(&near, UDP, &buyer.addresses)?;
        let to = near.addresses[0];
        let conversation = Conversation::start(&buyer, &near, SocketAddr::new(to, TALK))?;
        let flow = Flow::start(&buyer, SocketAddr::new(to, UDP))?;
        let clients = (0..CLIENTS).map(|_| Attempts::of_clients(&buyer, NAME, TCP, PAUSE));
        let clients = clients.collect::<anyhow::Result<_>>()?;
        Ok(Self { conversation, flow, clients, _guest: guest, _workloads: [near, doomed, buyer] })
    }

    /// Everybody is served, for some time.
    fn is_well(&self) -> anyhow::Result<()> {
        let a_while = Duration::from_secs(1);
        eventually("clients are not served", PATIENCE, || {
            let began = Instant::now();
            sleep(a_while);
            for client in &self.clients {
                let share = client.between(began, Instant::now());
                ensure!(share.failed == 0 && share.tries > 0, "{share:?}");
            }
            Ok(())
        })
        .map(drop)
    }

    fn lose(&self, world: &mut World, loss: Loss) -> anyhow::Result<()> {
        let (answered, unanswered) = (self.flow.answered(), self.flow.lost());
        let lost = Instant::now();
        match loss {
            Loss::Killed => ["gcp-1", "gcp-w"].iter().try_for_each(|node| world.kill(node))?,
            Loss::Silent => {
                ["aws", "azr"].iter().try_for_each(|other| world.clouds.cut("gcp", other, true))?
            }
        }
        sleep(WATCHED);
        let (end, bound) = (Instant::now(), lost + ACCEPTED);
        let (mut all, mut early) = ((0, 0), (0, 0));
        for client in &self.clients {
            let (late, before) = (client.between(bound, end), client.between(lost, bound));
            all = (all.0 + late.tries, all.1 + late.failed);
            early = (early.0 + before.tries, early.1 + before.failed);
            if let Some((after, why)) = late.first {
                println!("{loss:?}: a client failed {:?} after the loss: {why}", after + ACCEPTED);
            }
        }
        let [answered, unanswered] = [self.flow.answered() - answered, self.flow.lost() - unanswered];
        println!(
            "{loss:?}: clients in the first 5 s: {} of {} failed; from then on: {} of {}; between survivors: \
             {answered} answered, {unanswered} lost",
            early.1, early.0, all.1, all.0,
        );
        self.conversation.goes_on(&format!("{loss:?}"))?;
        // A machine with more to do than it can drops datagrams by itself; the connection repairs that.
        ensure!(unanswered * 100 <= answered, "{unanswered} datagrams between survivors were lost");
        if std::env::var("SELVEDGE_STRICT_TIMES").is_ok_and(|v| v == "1") {
            ensure!(unanswered == 0, "{unanswered} datagrams between survivors were lost");
            ensure!(all.1 * 1_000 <= all.0, "{} of {} failed from {ACCEPTED:?} on", all.1, all.0);
        }
        self.is_well()
    }
}

fn drill() -> anyhow::Result<()> {
    let mut world = World::of_three(SEED)?;
    let passed = pass(&mut world);
    passed.with_context(|| world.logs())
}

fn pass(world: &mut World) -> anyhow::Result<()> {
    world.start_pairs()?;
    let scene = Scene::begin(world)?;
    scene.is_well()?;
    scene.lose(world, Loss::Killed)?;
    ["gcp-1", "gcp-w"].iter().try_for_each(|node| world.launch(node))?;
    world.settle()?;
    scene.is_well()?;
    scene.lose(world, Loss::Silent)?;
    ["aws", "azr"].iter().try_for_each(|other| world.clouds.cut("gcp", other, false))?;
    world.settle()?;
    scene.is_well()?;
    scene.conversation.end()
}

#[test]
fn what_goes_on_between_survivors_loses_nothing_and_clients_find_them() -> anyhow::Result<()> {
    with_own(Own::Host, drill)?;
    Ok(())
}
