//! A cloud is cut off from the two that hold a majority; both sides live. It is recovered, both go on, and
//! then the cut heals: the old majority is fenced, its entries are listed and not merged.

use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use selvedge_lab::Conditions;
use serde_json::Value;

use super::{Dice, Distribution};
use crate::lab::{
    self, PATIENCE, eventually,
    world::{Place, World},
    write_domain_at,
};

/// Two processors in two of the clouds, one in the third: a voter in each.
const PROCESSORS: [(&str, &str); 5] =
    [("aws-1", "aws"), ("azr-1", "azr"), ("gcp-1", "gcp"), ("aws-2", "aws"), ("azr-2", "azr")];
const CLOUDS: [&str; 3] = ["aws", "azr", "gcp"];
/// Follows by signed policy; behind NAT, on the side that is left behind as often as not.
const FOLLOWER: &str = "azr-w";
/// Within which a lost majority is named.
const NAMED: Duration = Duration::from_secs(10);
/// Within which the one command is done.
const RECOVERED: Duration = Duration::from_secs(30);
/// Exit code of a write without a quorum.
const NO_QUORUM: i32 = 4;
/// Writes at each stage.
const WRITES: usize = 3;

/// What was measured.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// From the cut until the survivors' `status` names the lost majority.
    pub named: Distribution,
    /// How long `quorum recover` took.
    pub recovered: Distribution,
    /// From the healing until all processors are at the new epoch, three vote, and all have the same policy.
    pub whole: Distribution,
    /// Acknowledged writes of the history that survived; each was found on every node.
    pub kept: usize,
    /// Acknowledged writes of the other side; each was listed and found on no node.
    pub left_behind: usize,
}

/// Cuts, recovers and heals `count` times. Needs a host of its own.
///
/// # Errors
/// When anything of it is not as it must be.
pub fn run(count: u32, seed: u64) -> anyhow::Result<Outcome> {
    println!("recover: {count} times, seed {seed}");
    let conditions = Conditions { delay: Duration::from_millis(5), ..Conditions::IDEAL };
    let mut world = World::new(&CLOUDS, seed, conditions)?;
    for (name, cloud) in PROCESSORS {
        world.start(Place { name, cloud, is_processor: true })?;
    }
    world.start(Place { name: FOLLOWER, cloud: "azr", is_processor: false })?;
    let mut run = Run { world, outcome: Outcome::default(), kept: BTreeSet::new(), gone: BTreeSet::new() };
    run.whole(0)?;
    let mut dice = Dice::new(seed);
    for number in 1..=count {
        let cloud = CLOUDS[usize::try_from(dice.below(3))?];
        let once = run.once(number, cloud).with_context(|| format!("run {number}, {cloud} alone"));
        once.inspect_err(|_| println!("{}", run.world.logs()))?;
    }
    Ok(run.outcome)
}

struct Run {
    world: World,
    outcome: Outcome,
    kept: BTreeSet<String>,
    gone: BTreeSet<String>,
}

impl Run {
    fn once(&mut self, number: u32, cloud: &str) -> anyhow::Result<()> {
        let first = |inside: bool| PROCESSORS.iter().find(|(_, c)| (*c == cloud) == inside).map(|(n, _)| *n);
        let (here, there) = (first(true).context("no survivor")?, first(false).context("no majority")?);
        self.write(there, &format!("r{number}-before"), true)?;
        self.whole(0)?;

        self.cut(cloud, true)?;
        let cut = Instant::now();
        let named = eventually("the lost majority is not named", lab::limit(NAMED), || self.names(here))?;
        // The others go on meanwhile.
        self.write(there, &format!("r{number}-other"), false)?;
        let refused = write_domain_at(&self.world.socket(here), "refused")?;
        ensure!(refused.code == NO_QUORUM, "exit code {}: {}", refused.code, refused.stderr);

        let (epoch, took) = self.recover(here)?;
        self.write(here, &format!("r{number}-kept"), true)?;
        self.write(there, &format!("r{number}-late"), false)?;
        println!(
            "run {number}: {cloud} alone after {:?}, named after {named:?}, recovered in {took:?}",
            cut.elapsed()
        );

        self.cut(cloud, false)?;
        let whole = self.whole(epoch)?;
        self.listed(here, epoch, there)?;
        println!("run {number}: whole {whole:?} after the healing");
        self.outcome.named.add(named);
        self.outcome.recovered.add(took);
        self.outcome.whole.add(whole);
        self.outcome.kept = self.kept.len();
        self.outcome.left_behind = self.gone.len();
        Ok(())
    }

    fn cut(&mut self, cloud: &str, cut: bool) -> anyhow::Result<()> {
        for other in CLOUDS.iter().filter(|other| **other != cloud) {
            self.world.clouds.cut(cloud, other, cut)?;
        }
        Ok(())
    }

    /// Writes that must be acknowledged.
    fn write(&mut self, node: &str, prefix: &str, survives: bool) -> anyhow::Result<()> {
        for n in 0..WRITES {
            let name = format!("{prefix}-{n}");
            let socket = self.world.socket(node);
            eventually(&format!("{node} does not accept {name}"), PATIENCE, || {
                let written = write_domain_at(&socket, &name)?;
                ensure!(written.code == 0, "exit code {}: {}", written.code, written.stderr.trim());
                Ok(())
            })?;
            if survives { &mut self.kept } else { &mut self.gone }.insert(name);
        }
        Ok(())
    }

    fn names(&self, node: &str) -> anyhow::Result<()> {
        let status = self.world.ask(node, &["status"])?;
        let alarms = status["alarms"].as_array().into_iter().flatten();
        let alarm = alarms.into_iter().find(|a| a["code"] == "majority-lost").context("no such alarm")?;
        let text = alarm["message"].as_str().context("no message")?;
        for word in [node, "last heard", "selvedge quorum recover --recovery-key"] {
            ensure!(text.contains(word), "no {word:?} in {text}");
        }
        let quorum = self.world.ask(node, &["quorum", "status"])?;
        let missing = quorum["lost_majority"]["missing"].as_array().map_or(0, Vec::len);
        ensure!(missing == 2, "{missing} voters are missed: {quorum}");
        Ok(())
    }

    /// The one command; returns the new epoch.
    fn recover(&self, node: &str) -> anyhow::Result<(u64, Duration)> {
        let key = self.world.ca_file()?.with_file_name("recovery-world.key");
        let key = key.to_string_lossy();
        let done =
            self.world.run(node, &["quorum", "recover", "--recovery-key", &key, "--yes", "-o", "json"])?;
        ensure!(done.code == 0, "exit code {}: {}", done.code, done.stderr);
        ensure!(done.took <= lab::limit(RECOVERED), "it took {:?}", done.took);
        for words in ["May be lost: whatever", "may still be accepting changes"] {
            ensure!(done.stderr.contains(words), "no {words:?} in {}", done.stderr);
        }
        let reply: Value = serde_json::from_str(&done.stdout)?;
        Ok((reply["fence_epoch"].as_u64().context("no epoch")?, done.took))
    }

    /// Waits until everybody has the same policy under the same epoch, with all that was acknowledged in the
    /// history that survived, and nothing of the others'.
    fn whole(&self, epoch: u64) -> anyhow::Result<Duration> {
        eventually("the fabric does not get whole", PATIENCE, || {
            let mut revisions = BTreeSet::new();
            for (node, _) in PROCESSORS {
                let quorum = self.world.ask(node, &["quorum", "status"])?;
                let count = |what: &str| quorum[what].as_array().map_or(0, Vec::len);
                let (voters, learners) = (count("voters"), count("learners"));
                ensure!(quorum["quorum"] == true && voters == 3 && learners == 2, "{node}: {quorum}");
                ensure!(epoch == 0 || quorum["fence_epoch"] == epoch, "{node}: {quorum}");
                revisions.insert(self.world.ask(node, &["status"])?["revision"].as_u64());
            }
            revisions.insert(self.world.ask(FOLLOWER, &["status"])?["revision"].as_u64());
            ensure!(revisions.len() == 1, "revisions {revisions:?}");
            for node in PROCESSORS.map(|(node, _)| node).iter().chain([&FOLLOWER]) {
                self.agrees(node)?;
            }
            Ok(())
        })
    }

    fn agrees(&self, node: &str) -> anyhow::Result<()> {
        let domains = self.world.ask(node, &["get", "domain"])?;
        let name = |d: &Value| d["metadata"]["name"].as_str().or(d["name"].as_str()).map(str::to_owned);
        let present: BTreeSet<_> = domains.as_array().into_iter().flatten().filter_map(name).collect();
        let lost: Vec<_> = self.kept.difference(&present).collect();
        ensure!(lost.is_empty(), "{node} has lost acknowledged writes: {lost:?}");
        let merged: Vec<_> = self.gone.intersection(&present).collect();
        ensure!(merged.is_empty(), "{node} has entries of the other side: {merged:?}");
        Ok(())
    }

    /// Everything that the other side acknowledged is listed, and saved where nobody else reads it.
    fn listed(&self, asked: &str, epoch: u64, there: &str) -> anyhow::Result<()> {
        let listed = self.world.ask(asked, &["quorum", "lost"])?;
        let of_this = listed.as_array().into_iter().flatten().filter(|change| {
            change["began_epoch"] == epoch && change["committed"] == true && change["revision"].is_u64()
        });
        let texts: Vec<String> = of_this.map(ToString::to_string).collect();
        let expected = 2 * WRITES;
        ensure!(texts.len() >= expected, "{} of {expected} are listed: {listed}", texts.len());
        let told = texts.iter().filter(|text| text.contains(there)).count();
        ensure!(told >= expected, "{there} is not among those that had them: {texts:?}");

        let directory = self.world.socket(there).with_file_name("data").join("raft/lost");
        let mut files = std::fs::read_dir(&directory)?.flatten();
        let file = files.find(|f| f.file_name().to_string_lossy().contains(&epoch.to_string()));
        let mode = file.context("no file of it")?.metadata()?.permissions().mode();
        ensure!(mode & 0o777 == 0o600, "mode {mode:o}");
        Ok(())
    }
}
