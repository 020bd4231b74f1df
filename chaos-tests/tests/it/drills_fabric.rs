//! `selvedge drill run --fabric`: nodes isolate themselves for it, and heal whatever becomes of it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_chaos_tests::lab::{Lab, Options, PATIENCE, ask, binary, eventually};
use serde_json::Value;

/// A cloud is cut off, and comes back; then another is lost.
const EXERCISE: &str = "
apiVersion: selvedge/v1
kind: Drill
metadata: {name: exercise}
spec:
  description: One cloud is cut off, another is lost.
  probes:
    - {name: dns, kind: dns, every: 500ms}
    - {name: write, kind: write, every: 500ms, from: [cloud#3]}
    - {name: http, kind: http}
  steps:
    - wait: 1s
    - partition: [[cloud#1], [others]]
    - wait: 8s
    - heal: network
    - settle: 30s
    - kill: [cloud#2]
    - wait: 4s
    - start: [cloud#2]
    - settle: 30s
  bounds:
    - longestGap: {probe: write, atMost: 15s}
    - successShare: {probe: dns, atLeast: 99%}
    - successShare: {probe: http, atLeast: 100%}
    - settleTime: {atMost: 30s}
    - deaths: {atMost: 0}
";

/// Cuts a cloud off, and waits for longer than any test does.
const ENDLESS: &str = "
apiVersion: selvedge/v1
kind: Drill
metadata: {name: endless}
spec:
  description: Never gets to its end.
  steps:
    - partition: [[cloud#1], [others]]
    - wait: 1h
  bounds: [deaths: {atMost: 0}]
";

/// A fabric, and what somebody who drills it has.
struct Ground {
    lab: Lab,
    dir: tempfile::TempDir,
}

impl Ground {
    fn start() -> anyhow::Result<Self> {
        let node_config = Some("[drills]\nallow = true\n".to_owned());
        let lab = Lab::start(&Options { processors: 1, node_config, ..Options::default() })?;
        let ground = Self { lab, dir: tempfile::tempdir()? };
        let token = ask(&ground.lab.nodes[0], &["token", "admin", "--name", "vera", "--rights", "admin"])?;
        fs::write(ground.file("token"), token["token"].as_str().context("a token")?)?;
        for (name, text) in [("exercise.yaml", EXERCISE), ("endless.yaml", ENDLESS)] {
            fs::write(ground.file(name), text.trim_start())?;
        }
        Ok(ground)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A command that runs a drill on it, through one of its nodes.
    fn drill(&self, drill: &str) -> anyhow::Result<Command> {
        let ca = find(self.lab.nodes[0].dir.parent().context("a directory")?, "ca.pem").context("a CA")?;
        let state = ask(&self.lab.nodes[0], &["members"])?;
        let api = state[0]["api"][0].as_str().context("an API")?.to_owned();
        let mut command = Command::new(binary::selvedge()?);
        command.args(["drill", "run", drill, "--fabric", "--slack", "6", "--lease", "3s", "--api"]);
        command.arg(format!("https://{api}")).arg("--token-file").arg(self.file("token"));
        command.arg("--ca-file").arg(ca).current_dir(self.dir.path()).stdin(Stdio::null());
        Ok(command)
    }

    /// Waits until every node sees every node alive, and none is isolated.
    fn all_well(&self) -> anyhow::Result<()> {
        eventually("not all is well", PATIENCE, || {
            for node in &self.lab.nodes {
                let members = ask(node, &["members"])?;
                let alive =
                    members.as_array().into_iter().flatten().filter(|m| m["state"] == "alive").count();
                ensure!(alive == self.lab.nodes.len(), "{} sees {alive} nodes alive", node.name);
                let alarms = ask(node, &["status"])?["alarms"].to_string();
                ensure!(!alarms.contains("\"drill\""), "{}: {alarms}", node.name);
            }
            Ok(())
        })?;
        Ok(())
    }

    /// Waits until the first cloud is taken for dead by another, and both say why.
    fn cut_off(&self) -> anyhow::Result<()> {
        let [first, other, ..] = &self.lab.nodes[..] else { anyhow::bail!("two nodes") };
        eventually("nothing is cut off", PATIENCE, || {
            let members = ask(other, &["members"])?;
            let seen = members.as_array().into_iter().flatten().find(|m| m["name"] == *first.name);
            let state = &seen.context("no such member")?["state"];
            ensure!(state == "down", "{} is {state}", first.name);
            for node in [first, other] {
                let alarms = ask(node, &["status"])?["alarms"].to_string();
                ensure!(alarms.contains("an exercise: drill "), "{}: {alarms}", node.name);
            }
            Ok(())
        })?;
        Ok(())
    }

    fn told(&self, node: usize, words: &str) -> anyhow::Result<bool> {
        Ok(ask(&self.lab.nodes[node], &["events"])?.to_string().contains(words))
    }
}

fn find(dir: &Path, name: &str) -> Option<PathBuf> {
    let entries: Vec<_> = fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path()).collect();
    let here = entries.iter().find(|path| path.file_name().is_some_and(|n| n == name)).cloned();
    here.or_else(|| entries.iter().filter(|path| path.is_dir()).find_map(|path| find(path, name)))
}

fn passes(ground: &Ground) -> anyhow::Result<()> {
    let output = ground.drill("exercise.yaml")?.args(["--yes", "-o", "json", "--report", "out"]).output()?;
    let err = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).with_context(|| err.clone().into_owned())?;
    ensure!(output.status.success() && report["passed"] == true, "{report:#}\n{err}");
    ensure!(err.contains("Not asked on a real fabric, with their bounds: http."), "{err}");
    ensure!(err.contains("leases of 3s"), "{err}");
    ensure!(
        report["ground"].as_str().is_some_and(|text| text.contains("its nodes' own gates")),
        "{report:#}"
    );
    ensure!(report["faults"].as_array().is_some_and(|faults| faults.len() == 1), "{report:#}");
    let timeline = report["timeline"].to_string();
    ensure!(timeline.contains("is cut off"), "{timeline}");
    ensure!(fs::read_to_string(ground.file("out/exercise.html"))?.contains("PASSED"));
    ensure!(ground.told(0, "both ways")? && ground.told(0, "the drill is over")?);
    ground.all_well()
}

/// Ends the drill in its middle. Returns its exit code.
fn ends(ground: &Ground, signal: Signal) -> anyhow::Result<Option<i32>> {
    let mut drill = ground.drill("endless.yaml")?.arg("--yes").spawn()?;
    let cut_off = ground.cut_off();
    kill_process(Pid::from_child(&drill), signal)?;
    let status = drill.wait()?;
    cut_off?;
    ground.all_well()?;
    Ok(status.code())
}

/// One node is taken back by its operator, and the drill ends everywhere.
fn is_stopped(ground: &Ground) -> anyhow::Result<()> {
    let mut drill = ground.drill("endless.yaml")?.arg("--yes").spawn()?;
    let cut_off = ground.cut_off();
    let stopped = ask(&ground.lab.nodes[1], &["drill", "stop"]);
    let status = drill.wait()?;
    cut_off?;
    ensure!(stopped?["lease"].is_null() && status.code() == Some(5), "{status}");
    ensure!(ground.told(1, "stopped it")? && ground.told(0, "the drill is over")?);
    ground.all_well()
}

/// A node that takes part in no drill keeps the whole drill from beginning.
fn asks_first(ground: &mut Ground) -> anyhow::Result<()> {
    let refused = |ground: &Ground, drill: &str, more: &[&str]| -> anyhow::Result<String> {
        let output = ground.drill(drill)?.args(more).output()?;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(1), "{drill}: {:?} {err}", output.status);
        Ok(err)
    };
    let err = refused(ground, "leader-loss", &["--yes"])?;
    ensure!(err.contains("cannot be run on a real fabric") && err.contains("whole clouds"), "{err}");
    let err = refused(ground, "exercise.yaml", &[])?;
    ensure!(err.contains("KEPT FROM") && err.contains("there is no terminal to ask on"), "{err}");

    let node = &mut ground.lab.nodes[1];
    let config = fs::read_to_string(node.config())?;
    node.stop()?;
    fs::write(node.config(), config.replace("allow = true", "allow = false"))?;
    node.restart()?;
    let name = node.name.clone();
    ground.all_well()?;
    let begun = |ground: &Ground| -> anyhow::Result<usize> {
        Ok(ask(&ground.lab.nodes[0], &["events"])?.to_string().matches("drill-isolation\"").count())
    };
    let before = begun(ground)?;
    let err = refused(ground, "exercise.yaml", &["--yes"])?;
    ensure!(err.contains(&name) && err.contains("[drills] allow = true"), "{err}");
    ensure!(begun(ground)? == before, "a node was taken although another refuses");
    Ok(())
}

#[test]
fn a_real_fabric_is_asked_first_isolates_itself_and_heals() {
    let mut ground = Ground::start().expect("a fabric");
    passes(&ground).expect("the drill passes");
    assert_eq!(ends(&ground, Signal::KILL).expect("healed after a kill"), None);
    assert!(ground.told(0, "nobody renewed it").expect("events"));
    assert_eq!(ends(&ground, Signal::INT).expect("healed after Ctrl-C"), Some(130));
    is_stopped(&ground).expect("healed after an operator's word");
    asks_first(&mut ground).expect("it asks first");
    ground.lab.close().expect("a clean end");
}
