//! Doing what the steps say.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use selvedge_fabric::drill::{Apply, Expect, Restart, Scope, Selector, Slow, Step};
use selvedge_node::api::{
    exit,
    types::{Member, Status},
};
use tokio::time::{sleep, timeout};

use super::{Scene, select::Choice};
use crate::{
    client::Ask,
    drill::{
        ground::Site,
        record::{Condition, What},
    },
    playground::{control::Request, fabric::Launch},
};

/// How long a started node may take to be ready.
const READY_LIMIT: Duration = Duration::from_secs(90);
/// Pause between two looks at something that is awaited.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// How long a node may take to say how it is. A stuck one must not keep the drill.
const LOOK_LIMIT: Duration = Duration::from_secs(3);

impl Scene {
    /// Does one step to its end.
    pub(super) async fn step(&mut self, step: &Step) -> anyhow::Result<()> {
        match step {
            Step::Kill(who) => self.kill(who).await,
            Step::Start(who) => self.start(who).await,
            Step::Pause(who) => self.pause(who).await,
            Step::Resume(who) => self.resume(who).await,
            Step::Restart(restart) => self.restart(restart).await,
            Step::Partition(groups) => self.partition(groups).await,
            Step::Cut(cut) => self.cut(&cut.from, &cut.to).await,
            Step::Slow(slow) => self.slow(slow).await,
            Step::Apply(apply) => self.apply(apply).await,
            Step::Wait(span) => {
                self.book.say(&format!("wait {span}"));
                sleep(Duration::from_millis(span.ms())).await;
                Ok(())
            }
            Step::Settle(span) => {
                self.book.note(What::Step(format!("settle within {span}")));
                self.settle(Duration::from_millis(span.ms())).await;
                Ok(())
            }
            Step::Heal(Scope::Network) => {
                self.book.note(What::Step("heal the network".to_owned()));
                self.mend().await
            }
            Step::Heal(Scope::Everything) => {
                self.book.note(What::Step("heal everything".to_owned()));
                self.heal().await
            }
            Step::Repeat(_) => bail!("a repeat that was not written out"),
        }
    }

    /// Mends the network, lets paused nodes go on, starts dead ones.
    pub(super) async fn heal(&mut self) -> anyhow::Result<()> {
        self.mend().await?;
        for node in self.with_condition(Condition::Paused) {
            self.hand.obey(&[Request::Resume { node: node.name.clone() }]).await?;
            self.ready(&node).await?;
        }
        let dead = self.with_condition(self.hand.lost());
        self.start_all(&dead).await
    }

    fn with_condition(&self, condition: Condition) -> Vec<Site> {
        self.ground
            .nodes
            .iter()
            .filter(|n| self.book.condition(&n.name) == Some(condition))
            .cloned()
            .collect()
    }

    fn is_lost(&self, node: &Site) -> bool {
        self.book.condition(&node.name).is_some_and(Condition::is_lost)
    }

    fn choose(&self, who: &[Selector]) -> anyhow::Result<Vec<Site>> {
        let leader = self.book.leader();
        let choice = Choice { nodes: &self.ground.nodes, clouds: &self.clouds, leader: leader.as_deref() };
        Ok(choice.nodes(who)?.into_iter().cloned().collect())
    }

    fn choose_clouds(&self, groups: &[&[Selector]]) -> anyhow::Result<Vec<Vec<String>>> {
        let leader = self.book.leader();
        let choice = Choice { nodes: &self.ground.nodes, clouds: &self.clouds, leader: leader.as_deref() };
        choice.clouds(groups)
    }

    fn note_step(&self, verb: &str, nodes: &[Site]) {
        self.book.note(What::Step(format!("{verb} {}", names(nodes))));
    }

    fn note_node(&self, node: &Site, condition: Condition) {
        self.book.note(What::Node { name: node.name.clone(), condition });
    }

    async fn kill(&mut self, who: &[Selector]) -> anyhow::Result<()> {
        let mut nodes = self.choose(who)?;
        nodes.retain(|node| !self.is_lost(node));
        ensure!(!nodes.is_empty(), "every node that is to be killed is dead already");
        self.note_step(self.hand.verbs().0, &nodes);
        nodes.iter().for_each(|node| self.note_node(node, self.hand.lost()));
        let kills: Vec<_> = nodes.into_iter().map(|node| Request::Kill { node: node.name }).collect();
        self.hand.obey(&kills).await
    }

    async fn start(&mut self, who: &[Selector]) -> anyhow::Result<()> {
        let mut nodes = self.choose(who)?;
        nodes.retain(|node| self.is_lost(node));
        self.note_step(self.hand.verbs().1, &nodes);
        self.start_all(&nodes).await
    }

    async fn start_all(&mut self, nodes: &[Site]) -> anyhow::Result<()> {
        for node in nodes {
            let (name, launch) = (node.name.clone(), Launch::default());
            self.hand.obey(&[Request::Start { node: name, launch }]).await?;
            self.note_node(node, Condition::Starting);
        }
        self.all_ready(nodes).await
    }

    async fn pause(&mut self, who: &[Selector]) -> anyhow::Result<()> {
        let nodes = self.choose(who)?;
        self.note_step("pause", &nodes);
        for node in nodes {
            self.note_node(&node, Condition::Paused);
            self.hand.obey(&[Request::Pause { node: node.name }]).await?;
        }
        Ok(())
    }

    async fn resume(&mut self, who: &[Selector]) -> anyhow::Result<()> {
        let mut nodes = self.choose(who)?;
        nodes.retain(|node| self.book.condition(&node.name) == Some(Condition::Paused));
        self.note_step("resume", &nodes);
        for node in &nodes {
            self.hand.obey(&[Request::Resume { node: node.name.clone() }]).await?;
        }
        self.all_ready(&nodes).await
    }

    async fn restart(&mut self, restart: &Restart) -> anyhow::Result<()> {
        let nodes = self.choose(&restart.nodes)?;
        let launch = Launch {
            binary: self.other_binary.clone().filter(|_| restart.other_binary),
            clock: restart.clock.map(|clock| clock.to_string()).filter(|clock| !clock.ends_with("+0s")),
        };
        let with = match (&launch.binary, &launch.clock) {
            (Some(binary), _) => format!(" with {}", binary.display()),
            (None, Some(clock)) => format!(" with a clock that is wrong by {clock}"),
            (None, None) => String::new(),
        };
        let Some(limit) = restart.one_by_one else {
            self.book.note(What::Step(format!("restart {}{with}", names(&nodes))));
            for node in &nodes {
                self.restart_one(node, &launch).await?;
            }
            return self.all_ready(&nodes).await;
        };
        for node in &nodes {
            self.book.note(What::Step(format!("restart {}{with}", node.name)));
            self.restart_one(node, &launch).await?;
            self.ready(node).await?;
            self.settle(Duration::from_millis(limit.ms())).await;
        }
        Ok(())
    }

    async fn restart_one(&mut self, node: &Site, launch: &Launch) -> anyhow::Result<()> {
        self.note_node(node, Condition::Starting);
        let (node, launch) = (node.name.clone(), launch.clone());
        self.hand.obey(&[Request::Restart { node, launch }]).await
    }

    async fn partition(&mut self, groups: &[Vec<Selector>]) -> anyhow::Result<()> {
        let groups: Vec<&[Selector]> = groups.iter().map(Vec::as_slice).collect();
        let groups = self.choose_clouds(&groups)?;
        let shown: Vec<_> = groups.iter().map(|group| group.join(", ")).collect();
        let name = shown.join(" | ");
        self.book.note(What::Step(format!("partition {name}")));
        self.book.note(What::Fault { name, clouds: groups.concat() });
        let mut ways = Vec::new();
        for (i, group) in groups.iter().enumerate() {
            for other in groups.iter().skip(i + 1) {
                ways.extend(pairs(group, other));
                ways.extend(pairs(other, group));
            }
        }
        self.cut_all(ways).await
    }

    async fn cut(&mut self, from: &[Selector], to: &[Selector]) -> anyhow::Result<()> {
        let groups = self.choose_clouds(&[from, to])?;
        let [from, to] = groups.as_slice() else { bail!("a cut has two sides") };
        let name = format!("{} not heard by {}", from.join(", "), to.join(", "));
        self.book.note(What::Step(format!("cut: {name}")));
        self.book.note(What::Fault { name, clouds: groups.concat() });
        self.cut_all(pairs(from, to)).await
    }

    async fn cut_all(&mut self, ways: Vec<(String, String)>) -> anyhow::Result<()> {
        let cuts: Vec<_> = ways.into_iter().map(|(from, to)| Request::Cut { from, to }).collect();
        self.hand.obey(&cuts).await
    }

    async fn slow(&mut self, slow: &Slow) -> anyhow::Result<()> {
        let groups = self.choose_clouds(&[&slow.from, &slow.to])?;
        let [from, to] = groups.as_slice() else { bail!("a slow link has two ends") };
        let arrow = if slow.one_way { "→" } else { "↔" };
        let name = format!(
            "{} {arrow} {}: {} ± {}, {} lost",
            from.join(", "),
            to.join(", "),
            slow.delay,
            slow.jitter,
            slow.loss
        );
        self.book.note(What::Step(format!("slow {name}")));
        self.book.note(What::Fault { name, clouds: groups.concat() });
        let mut ways = pairs(from, to);
        if !slow.one_way {
            ways.extend(pairs(to, from));
        }
        for (from, to) in ways {
            let (delay_ms, jitter_ms) = (slow.delay.ms(), slow.jitter.ms());
            let request = Request::Slow { from, to, delay_ms, jitter_ms, loss: slow.loss.part() };
            self.hand.obey(&[request]).await?;
        }
        Ok(())
    }

    pub(super) async fn mend(&mut self) -> anyhow::Result<()> {
        // Without packets there is no network between the clouds of a playground.
        if self.ground.has_packets || self.ground.playground.is_none() {
            self.hand.obey(&[Request::MendNetwork]).await?;
            self.book.note(What::Mended);
        }
        Ok(())
    }

    async fn apply(&mut self, apply: &Apply) -> anyhow::Result<()> {
        self.book.note(What::Step("apply a manifest".to_owned()));
        let file = self.scratch.path().join(format!("apply-{}.yaml", self.applied.len()));
        std::fs::write(&file, &apply.manifest).with_context(|| format!("cannot write {}", file.display()))?;
        let mut last = None;
        for node in self.ground.nodes.iter().filter(|n| n.is_processor() && self.book.is_alive(&n.name)) {
            let finished = self
                .selvedge
                .through(&node.door, &["apply", "-f", &file.to_string_lossy(), "-o", "json"])
                .await?;
            let taken = finished.code == 0;
            let refused = [exit::REFUSED, exit::USAGE].map(i32::from).contains(&finished.code);
            if !taken && !refused {
                last = Some(finished.stderr);
                continue;
            }
            if taken {
                self.applied.push(file);
            }
            let (word, wanted) = match (taken, apply.expect) {
                (true, Expect::Accepted) | (false, Expect::Refused) | (_, Expect::Anything) => {
                    (if taken { "the manifest is accepted" } else { "the manifest is refused" }, true)
                }
                (true, Expect::Refused) => ("the manifest is accepted, and should be refused", false),
                (false, Expect::Accepted) => ("the manifest is refused, and should be accepted", false),
            };
            self.book.note(What::Note(word.to_owned()));
            ensure!(wanted, "{word}: {}", finished.stderr.trim());
            return Ok(());
        }
        bail!("no node takes the manifest: {}", last.unwrap_or_else(|| "none is alive".to_owned()).trim())
    }

    async fn all_ready(&self, nodes: &[Site]) -> anyhow::Result<()> {
        let ready = futures::future::join_all(nodes.iter().map(|node| self.ready(node))).await;
        ready.into_iter().collect()
    }

    /// Waits until a node says that it is ready, and notes it.
    async fn ready(&self, node: &Site) -> anyhow::Result<()> {
        let started = Instant::now();
        while started.elapsed() < READY_LIMIT {
            if status(node).await.is_some_and(|status| status.ready) {
                self.note_node(node, Condition::Alive);
                return Ok(());
            }
            sleep(LOOK_PAUSE).await;
        }
        bail!("{} is not ready {READY_LIMIT:?} after it was started", node.name)
    }

    /// Waits until all living nodes see each other and agree, and notes how long that took.
    pub(super) async fn settle(&self, limit: Duration) -> bool {
        let started = Instant::now();
        let mut ok = false;
        while !ok && started.elapsed() < limit {
            ok = self.is_settled().await;
            if !ok {
                sleep(LOOK_PAUSE).await;
            }
        }
        let took_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.book.note(What::Settled { took_ms, ok });
        ok
    }

    async fn is_settled(&self) -> bool {
        let alive: Vec<_> = self.ground.nodes.iter().filter(|n| self.book.is_alive(&n.name)).collect();
        let looks = alive.iter().map(|node| async {
            let members: Vec<Member> = ask(node, "/v1/members").await?;
            let sees = |name: &str| members.iter().any(|m| m.name == name && m.state == "alive");
            let status = status(node).await?;
            (status.ready && alive.iter().all(|other| sees(&other.name))).then_some(status.revision)
        });
        let revisions: Option<Vec<_>> = futures::future::join_all(looks).await.into_iter().collect();
        revisions.is_some_and(|revisions| revisions.windows(2).all(|pair| pair[0] == pair[1]))
    }
}

pub(super) async fn status(node: &Site) -> Option<Status> {
    ask(node, "/v1/status").await
}

/// Asks a node, for a short while.
pub(super) async fn ask<T: serde::de::DeserializeOwned>(node: &Site, path: &str) -> Option<T> {
    timeout(LOOK_LIMIT, node.client.ask(Ask::get(path))).await.ok()?.ok()
}

fn names(nodes: &[Site]) -> String {
    if nodes.is_empty() {
        return "nothing".to_owned();
    }
    nodes.iter().map(|node| node.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn pairs(from: &[String], to: &[String]) -> Vec<(String, String)> {
    let pair = |from: &String| to.iter().map(|to| (from.clone(), to.clone())).collect::<Vec<_>>();
    from.iter().flat_map(pair).filter(|(from, to)| from != to).collect()
}
