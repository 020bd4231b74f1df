//! A drill at work: a thin shell around the record. Steps are done one after the other ([`steps`]) while
//! probes ask ([`probes`]) and leaders and deaths are looked for ([`watch`]); all write into one notebook.
//! Whatever was broken is mended at the end, also when somebody stops the drill; when this program is killed,
//! the playground mends it.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, ensure};
use selvedge_fabric::drill::{Drill, DrillSpec};
use tempfile::TempDir;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

mod notebook;
pub(super) mod own;
mod probes;
mod select;
mod steps;
mod watch;

use self::{notebook::Notebook, probes::Prober, select::Choice};
use super::{
    probe_write::clean_up,
    record::{Condition, End, Place, Record},
};
use crate::playground::{
    Stop,
    control::{Control, Request},
    driver::Selvedge,
    fabric::Launch,
    progress::Progress,
    state::State,
};

/// How long the fabric may take to be well again after the drill, before what the drill wrote is removed.
const AFTERWARDS: Duration = Duration::from_secs(60);
/// How long the probes may take to end.
const END_LIMIT: Duration = Duration::from_secs(10);

/// What a drill works with.
pub(super) struct Means {
    pub(super) state: State,
    /// Clouds that come first in the numbering.
    pub(super) first_clouds: Vec<String>,
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
    state: State,
    clouds: Vec<String>,
    control: Control,
    book: Arc<Notebook>,
    other_binary: Option<PathBuf>,
    /// Manifests that were applied, to be deleted.
    applied: Vec<PathBuf>,
    scratch: TempDir,
    slack: u32,
}

/// Whether a drill can be done with these means.
///
/// # Errors
/// What is missing, and the remedy.
pub(super) fn preflight(spec: &DrillSpec, means: &Means) -> anyhow::Result<()> {
    let state = &means.state;
    if let Some(why) = state.without.as_ref().filter(|_| spec.needs_packets()) {
        anyhow::bail!(
            "this drill breaks what joins the clouds, which needs real packets; the playground in {} has none: \
             {why}. Start it as root, without --rootless",
            state.dir.display()
        );
    }
    if spec.needs_clock() && Launch::clock_library().is_none() {
        anyhow::bail!("this drill sets clocks wrong, which needs libfaketime: apt install libfaketime");
    }
    ensure!(
        means.other_binary.is_some() || !spec.needs_binary(),
        "this drill restarts nodes with another program; name it: --binary PATH"
    );
    let (clouds, nodes) = spec.least();
    let here = clouds_of(means)?.len();
    ensure!(
        here >= clouds as usize && state.nodes.len() >= nodes as usize,
        "this drill needs {clouds} clouds and {nodes} nodes; the playground in {} has {here} and {}. Start one of \
         its own for it: --fresh",
        state.dir.display(),
        state.nodes.len()
    );
    Ok(())
}

/// The clouds in the order of their numbers.
fn clouds_of(means: &Means) -> anyhow::Result<Vec<String>> {
    let mut all: Vec<_> = means.state.nodes.iter().map(|node| node.cloud().to_owned()).collect();
    all.sort();
    all.dedup();
    if let Some(unknown) = means.first_clouds.iter().find(|cloud| !all.contains(cloud)) {
        anyhow::bail!("no cloud {unknown:?}; there are {}", all.join(", "));
    }
    let mut clouds = means.first_clouds.clone();
    clouds.extend(all.into_iter().filter(|cloud| !means.first_clouds.contains(cloud)));
    Ok(clouds)
}

/// Runs a drill to its end, or until somebody stops it.
///
/// # Errors
/// When it cannot begin. What goes wrong later is in the record.
pub(super) async fn run(drill: &Drill, means: Means, stop: &mut Stop) -> anyhow::Result<Record> {
    preflight(&drill.spec, &means)?;
    let clouds = clouds_of(&means)?;
    let control = Control::connect(&means.state).await?;
    let progress = Progress::start();
    progress.doing(&format!("drill {}", drill.name));
    let names = means.state.nodes.iter().map(|node| node.name.as_str());
    let book = Arc::new(Notebook::new(names, progress));
    let mut scene = Scene {
        selvedge: Selvedge::this()?,
        state: means.state,
        clouds,
        control,
        book,
        other_binary: means.other_binary,
        applied: Vec::new(),
        scratch: tempfile::tempdir().context("cannot make a temporary directory")?,
        slack: means.slack,
    };
    let (record, writes) = scene.work(drill, stop).await?;
    if means.leave {
        scene.control.ask(&Request::Leave).await?;
        return Ok(record);
    }
    scene.book.say("mending what was broken");
    scene.afterwards(writes, stop).await;
    Ok(record)
}

impl Scene {
    /// Does all steps beside all probes. Returns whether there were writes, too.
    async fn work(&mut self, drill: &Drill, stop: &mut Stop) -> anyhow::Result<(Record, bool)> {
        watch::leader(&self.state.nodes, &self.book).await;
        let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
        // Dropped early, it ends the probes all the same.
        let _guard = ending.clone().drop_guard();
        let prober = Arc::new(Prober {
            selvedge: self.selvedge.clone(),
            state: self.state.clone(),
            book: Arc::clone(&self.book),
            stop: ending.clone(),
            slack: self.slack,
        });
        let mut writes = false;
        for (number, probe) in drill.spec.probes.iter().enumerate() {
            let leader = self.book.leader();
            let choice = Choice { nodes: &self.state.nodes, clouds: &self.clouds, leader: leader.as_deref() };
            let nodes = choice.nodes(&probe.from)?.into_iter().cloned().collect();
            prober.start(number, probe, nodes, &tasks).with_context(|| format!("probe {}", probe.name))?;
            writes |= probe.kind == selvedge_fabric::drill::ProbeKind::Write;
        }
        tasks.spawn(watch::watch(self.state.clone(), Arc::clone(&self.book), ending.clone()));
        tasks.close();
        let steps = async {
            for step in drill.spec.unrolled() {
                self.step(step).await?;
            }
            anyhow::Ok(())
        };
        let end = tokio::select! {
            done = steps => done.map_or_else(|error| End::Failed(format!("{error:#}")), |()| End::Completed),
            () = stop.asked() => End::Interrupted,
        };
        let record = self.book.record(self.places(), end);
        ending.cancel();
        if tokio::time::timeout(END_LIMIT, tasks.wait()).await.is_err() {
            tracing::warn!(left = tasks.len(), "probes did not end in time");
        }
        Ok((record, writes))
    }

    fn places(&self) -> Vec<Place> {
        let place = |node: &crate::playground::state::NodeInfo| Place {
            name: node.name.clone(),
            cloud: node.cloud().to_owned(),
            role: node.role.clone(),
        };
        self.state.nodes.iter().map(place).collect()
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
            // The playground mends what is left when the connection ends.
            () = stop.asked() => return,
        };
        if let Err(error) = mended {
            self.book.say(&format!("after the drill: {error:#}"));
        }
    }

    async fn remove(&self, writes: bool) -> anyhow::Result<()> {
        let is_well = |name: &str| self.book.condition(name) == Some(Condition::Alive);
        let node = self.state.nodes.iter().find(|node| node.is_processor() && is_well(&node.name));
        let node = node.context("no processor is alive")?;
        for file in self.applied.iter().rev() {
            let args = ["delete", "-f", &file.to_string_lossy(), "-o", "json"];
            let deleted = self.selvedge.on(&node.socket, &args).await?;
            ensure!(deleted.code == 0, "what was applied is left over: {}", deleted.stderr.trim());
        }
        if writes {
            clean_up(&self.selvedge, &node.socket).await?;
        }
        Ok(())
    }
}
