//! A drill at work: a thin shell around the record. Steps are done one after the other ([`steps`]) while
//! probes ask ([`probes`]) and leaders and deaths are looked for ([`watch`]); all write into one notebook.
//! Whatever was broken is mended at the end, also when somebody stops the drill; when this program is killed,
//! the playground mends it, or the nodes themselves do.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use selvedge_fabric::drill::{Drill, DrillSpec};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod hand;
mod names;
mod notebook;
pub(super) mod own;
mod probes;
pub(super) mod select;
mod steps;
mod watch;

pub(super) use self::hand::Hand;
use self::{notebook::Notebook, probes::Prober, select::Choice};
use super::{
    ground::Ground,
    probe_write::clean_up,
    record::{Condition, End, Place, Record},
};
use crate::playground::{Stop, control::Request, driver::Selvedge, fabric::Launch, progress::Progress};

/// How long the fabric may take to be well again after the drill, before what the drill wrote is removed.
const AFTERWARDS: Duration = Duration::from_secs(60);
/// How long the probes may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What a drill works with.
pub(super) struct Means {
    pub(super) ground: Ground,
    /// In the order of their numbers.
    pub(super) clouds: Vec<String>,
    /// For upgrades.
    pub(super) other_binary: Option<PathBuf>,
    /// Leave everything broken.
    pub(super) leave: bool,
    /// How many times as long as usual things may take.
    pub(super) slack: u32,
}

/// A fabric under drill.
struct Scene {
    selvedge: Selvedge,
    ground: Ground,
    clouds: Vec<String>,
    hand: Hand,
    book: Arc<Notebook>,
    other_binary: Option<PathBuf>,
    /// Manifests that were applied, to be deleted.
    applied: Vec<PathBuf>,
    scratch: TempDir,
    slack: u32,
}

/// Whether a drill can be done on a playground with these means.
///
/// # Errors
/// What is missing, and the remedy.
pub(super) fn preflight(spec: &DrillSpec, means: &Means) -> anyhow::Result<()> {
    let ground = &means.ground;
    let (dir, without) = match &ground.playground {
        Some(state) => (state.dir.display().to_string(), state.without.clone()),
        None => (String::new(), None),
    };
    if let Some(why) = without.filter(|_| spec.needs_packets()) {
        anyhow::bail!(
            "this drill breaks what joins the clouds, which needs real packets; the playground in {dir} has none: \
             {why}. Start it as root, without --rootless"
        );
    }
    if spec.needs_clock() && Launch::clock_library().is_none() {
        anyhow::bail!("this drill sets clocks wrong, which needs libfaketime: apt install libfaketime");
    }
    ensure!(
        means.other_binary.is_some() || !spec.needs_binary(),
        "this drill restarts nodes with another program; name it: --binary PATH"
    );
    enough(spec, ground, &means.clouds).with_context(|| {
        format!("the playground in {dir} is too small; start one of its own for it: --fresh")
    })
}

/// Whether there are as many clouds and nodes as a drill numbers.
///
/// # Errors
/// How many there are.
pub(super) fn enough(spec: &DrillSpec, ground: &Ground, clouds: &[String]) -> anyhow::Result<()> {
    let (wanted, nodes) = spec.least();
    let (here, there) = (clouds.len(), ground.nodes.len());
    ensure!(
        here >= wanted as usize && there >= nodes as usize,
        "this drill needs {wanted} clouds and {nodes} nodes, and there are {here} and {there}"
    );
    Ok(())
}

/// Runs a drill to its end, or until somebody stops it.
///
/// # Errors
/// When it cannot begin. What goes wrong later is in the record.
pub(super) async fn run(drill: &Drill, means: Means, hand: Hand, stop: &mut Stop) -> anyhow::Result<Record> {
    let progress = Progress::start();
    progress.doing(&format!("drill {}", drill.name));
    let names = means.ground.nodes.iter().map(|node| node.name.as_str());
    let book = Arc::new(Notebook::new(names, progress));
    let mut scene = Scene {
        selvedge: Selvedge::this()?,
        ground: means.ground,
        clouds: means.clouds,
        hand,
        book,
        other_binary: means.other_binary,
        applied: Vec::new(),
        scratch: tempfile::tempdir().context("cannot make a temporary directory")?,
        slack: means.slack,
    };
    let worked = scene.work(drill, stop).await;
    if let Ok((record, _)) = &worked
        && means.leave
    {
        scene.hand.obey(&[Request::Leave]).await?;
        return Ok(record.clone());
    }
    if let Ok((_, writes)) = &worked {
        scene.book.say("mending what was broken");
        scene.afterwards(*writes, stop).await;
    }
    let untold = scene.hand.close().await;
    if !untold.is_empty() {
        scene
            .book
            .say(&format!("not told that the drill is over, and mend themselves: {}", untold.join(", ")));
    }
    worked.map(|(record, _)| record)
}

impl Scene {
    /// Does all steps beside all probes. Returns whether there were writes, too.
    async fn work(&mut self, drill: &Drill, stop: &mut Stop) -> anyhow::Result<(Record, bool)> {
        watch::leader(&self.ground.nodes, &self.book).await;
        let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
        // Dropped early, it ends the probes all the same.
        let _guard = ending.clone().drop_guard();
        let prober = Arc::new(Prober {
            selvedge: self.selvedge.clone(),
            ground: self.ground.clone(),
            book: Arc::clone(&self.book),
            stop: ending.clone(),
            slack: self.slack,
        });
        let mut writes = false;
        for (number, probe) in drill.spec.probes.iter().enumerate() {
            let leader = self.book.leader();
            let choice =
                Choice { nodes: &self.ground.nodes, clouds: &self.clouds, leader: leader.as_deref() };
            let nodes = choice.nodes(&probe.from)?.into_iter().cloned().collect();
            prober.start(number, probe, nodes, &tasks).with_context(|| format!("probe {}", probe.name))?;
            writes |= probe.kind == selvedge_fabric::drill::ProbeKind::Write;
        }
        tasks.spawn(watch::watch(self.ground.clone(), Arc::clone(&self.book), ending.clone()));
        tasks.close();
        let trouble = self.hand.trouble();
        let steps = async {
            for step in drill.spec.unrolled() {
                self.step(step).await?;
            }
            anyhow::Ok(())
        };
        let end = tokio::select! {
            done = steps => done.map_or_else(|error| End::Failed(format!("{error:#}")), |()| End::Completed),
            () = stop.asked() => End::Interrupted,
            why = trouble => End::Failed(why),
        };
        let record = self.book.record(self.places(), end);
        ending.cancel();
        if tokio::time::timeout(END_LIMIT, tasks.wait()).await.is_err() {
            tracing::warn!(left = tasks.len(), "probes did not end in time");
        }
        Ok((record, writes))
    }

    fn places(&self) -> Vec<Place> {
        let place = |node: &super::ground::Site| Place {
            name: node.name.clone(),
            cloud: node.cloud().to_owned(),
            role: node.role.clone(),
        };
        self.ground.nodes.iter().map(place).collect()
    }

    /// Mends everything and removes what the drill wrote. What fails is told: the verdict stands already.
    async fn afterwards(&mut self, writes: bool, stop: &mut Stop) {
        let mend = async {
            // An interrupted step may have left a node that is neither here nor there.
            self.heal().await?;
            ensure!(self.settle(AFTERWARDS).await, "the fabric is not well {AFTERWARDS:?} after the drill");
            self.remove(writes).await
        };
        let mended = tokio::select! {
            mended = mend => mended,
            // What is left is mended when the hand lets go.
            () = stop.asked() => return,
        };
        if let Err(error) = mended {
            self.book.say(&format!("after the drill: {error:#}"));
        }
    }

    async fn remove(&self, writes: bool) -> anyhow::Result<()> {
        let is_well = |name: &str| self.book.condition(name) == Some(Condition::Alive);
        let node = self.ground.nodes.iter().find(|node| node.is_processor() && is_well(&node.name));
        let node = node.context("no processor is alive")?;
        for file in self.applied.iter().rev() {
            let args = ["delete", "-f", &file.to_string_lossy(), "-o", "json"];
            let deleted = self.selvedge.through(&node.door, &args).await?;
            ensure!(deleted.code == 0, "what was applied is left over: {}", deleted.stderr.trim());
        }
        if writes {
            clean_up(&self.selvedge, &node.door).await?;
        }
        Ok(())
    }
}
