//! `selvedge drill`: breaks a playground by what a file says, and mends it whatever happens.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};
use rustix::process::{Pid, Signal, kill_process};
use selvedge_chaos_tests::lab::{Lab, Options, PATIENCE, ask, binary, eventually, kernel::as_root};
use serde_json::Value;

/// The leader dies and comes back; another node sleeps meanwhile.
const LOSS: &str = "
apiVersion: selvedge/v1
kind: Drill
metadata: {name: loss}
spec:
  description: The leader is killed while another cloud watches.
  probes:
    - {name: dns, kind: dns, every: 200ms}
    - {name: write, kind: write, every: 200ms}
  steps:
    - wait: 1s
    - kill: [leader]
    - wait: 3s
    - start: [all]
    - settle: 10s
    - restart: {nodes: [node#1], oneByOne: 10s}
  bounds:
    - longestGap: {probe: write, atMost: 10s}
    - successShare: {probe: dns, atLeast: 99%}
    - cleanWithin: {probe: dns, atMost: 10s}
    - settleTime: {atMost: 10s}
    - deaths: {atMost: 0}
";

/// Breaks something and waits for longer than any test does.
const ENDLESS: &str = "
apiVersion: selvedge/v1
kind: Drill
metadata: {name: endless}
spec:
  description: Never gets to its end.
  steps:
    - pause: [node#2]
    - kill: [node#3]
    - wait: 1h
  bounds: [deaths: {atMost: 0}]
";

/// A cloud is cut off.
const CUT: &str = "
apiVersion: selvedge/v1
kind: Drill
metadata: {name: cut}
spec:
  description: A cloud is cut off and back.
  playground: {processors: 1}
  probes:
    - {name: dns, kind: dns}
    - {name: http, kind: http, every: 500ms}
    - {name: write, kind: write, from: [cloud#2, cloud#3]}
    - {name: forbidden, kind: forbidden}
  steps:
    - wait: 2s
    - cut: {from: [cloud#1], to: [others]}
    - wait: 4s
    - partition: [[cloud#1], [others]]
    - wait: 4s
    - heal: network
    - slow: {from: [cloud#1], to: [others], delay: 50ms, loss: 1%}
    - settle: 10s
  bounds:
    - longestGap: {probe: write, atMost: 10s}
    - successShare: {probe: dns, atLeast: 99%}
    - successShare: {probe: forbidden, atLeast: 100%}
    - settleTime: {atMost: 10s}
    - deaths: {atMost: 0}
";

struct Files(tempfile::TempDir);

impl Files {
    fn new(drill: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("drill.yaml"), drill.trim_start()).expect("written");
        Self(dir)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A command that runs the drill, with time for machines that do other things.
    fn run(&self) -> Command {
        let mut command = Command::new(binary::selvedge().expect("a binary"));
        command
            .args(["drill", "run"])
            .arg(self.path("drill.yaml"))
            .args(["--slack", "6"])
            .stdin(Stdio::null());
        command
    }
}

/// The directory of the playground under a lab.
fn ground(lab: &Lab) -> &Path {
    lab.nodes[0].dir.parent().expect("a directory around the node")
}

/// Waits until every node sees every node alive.
fn all_well(lab: &Lab) -> anyhow::Result<()> {
    eventually("not all is well", PATIENCE, || {
        for node in &lab.nodes {
            let members = ask(node, &["members"])?;
            let alive = members.as_array().into_iter().flatten().filter(|m| m["state"] == "alive").count();
            ensure!(alive == lab.nodes.len(), "{} sees {alive} nodes alive", node.name);
        }
        Ok(())
    })?;
    Ok(())
}

fn state_of(lab: &Lab, observer: usize, node: &str) -> anyhow::Result<Value> {
    let members = ask(&lab.nodes[observer], &["members"])?;
    let found = members.as_array().into_iter().flatten().find(|m| m["name"] == node);
    Ok(found.context("no such member")?["state"].clone())
}

#[test]
fn a_drill_from_a_file_passes_and_writes_its_report() {
    let lab = Lab::start(&Options { processors: 1, ..Options::default() }).expect("a fabric");
    let files = Files::new(LOSS);
    let output = files
        .run()
        .args(["--yes", "-o", "json", "--dir"])
        .arg(ground(&lab))
        .arg("--report")
        .arg(files.path("out"))
        .output()
        .expect("it runs");
    let err = String::from_utf8_lossy(&output.stderr);
    let report: Value = serde_json::from_slice(&output.stdout).expect(&err);
    assert_eq!(report["passed"], true, "{report:#}\n{err}");
    assert_eq!(output.status.code(), Some(0), "{err}");
    assert!(report["measurements"]["write_gap_ms"].as_u64().is_some_and(|ms| ms > 0), "{report:#}");
    let page = fs::read_to_string(files.path("out/loss.html")).expect("a page");
    assert!(page.contains("PASSED") && page.contains("<svg"), "{page}");
    let json: Value =
        serde_json::from_slice(&fs::read(files.path("out/loss.json")).expect("JSON")).expect("JSON");
    assert_eq!(json, report);
    all_well(&lab).expect("it is mended");
    lab.close().expect("a clean end");
}

#[test]
fn what_a_killed_drill_broke_is_mended() {
    let lab = Lab::start(&Options { processors: 1, ..Options::default() }).expect("a fabric");
    let files = Files::new(ENDLESS);
    let mut names: Vec<_> = lab.nodes.iter().map(|n| n.name.clone()).collect();
    names.sort();
    let first = lab.nodes.iter().position(|n| n.name == names[0]).expect("node#1");
    for signal in [Signal::KILL, Signal::INT] {
        let mut drill = files.run().arg("--yes").arg("--dir").arg(ground(&lab)).spawn().expect("it starts");
        eventually("nothing breaks", PATIENCE, || {
            for name in &names[1..] {
                let state = state_of(&lab, first, name)?;
                ensure!(state != "alive", "{name} is {state}");
            }
            Ok(())
        })
        .expect("it is broken");
        kill_process(Pid::from_child(&drill), signal).expect("signalled");
        let status = drill.wait().expect("it ends");
        if signal == Signal::INT {
            assert_eq!(status.code(), Some(130));
        }
        all_well(&lab).expect("it is mended");
    }
    lab.close().expect("a clean end");
}

#[test]
fn clouds_are_cut_off_with_real_packets() {
    let drill = || {
        let files = Files::new(CUT);
        let output = files.run().args(["--fresh", "-o", "json"]).output()?;
        let err = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).with_context(|| err.clone().into_owned())?;
        ensure!(output.status.success(), "{report:#}\n{err}");
        let tried = report["measurements"]["forbidden_attempts"].as_u64();
        ensure!(tried.is_some_and(|n| n > 0), "{report:#}");
        ensure!(report["faults"].as_array().is_some_and(|faults| faults.len() == 3), "{report:#}");
        Ok(())
    };
    as_root(drill).expect("the drill passes");
}

#[test]
fn what_cannot_be_run_says_why() {
    let lab = Lab::start(&Options { processors: 1, ..Options::default() }).expect("a fabric");
    let say = |words: &[&str]| {
        let mut command = Command::new(binary::selvedge().expect("a binary"));
        command.args(["drill", "run"]).args(words).arg("--dir").arg(ground(&lab)).stdin(Stdio::null());
        let output = command.output().expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (words, code, wanted) in [
        (&["partition", "--yes"][..], 1, "needs real packets"),
        (&["upgrade", "--yes"], 1, "--binary PATH"),
        (&["expired-certificates", "--yes"], 1, "--fresh"),
        (&["cloud-loss", "--cloud", "azure", "--yes"], 1, "there are aws, azr, gcp"),
        (&["cloud-loss"], 1, "--yes"),
        (&["cloud-los", "--yes"], 1, "did you mean cloud-loss?"),
    ] {
        let (found, err) = say(words);
        assert_eq!(found, Some(code), "{words:?}: {err}");
        assert!(err.contains(wanted), "{words:?}: {err}");
    }
    all_well(&lab).expect("nothing was broken");
    lab.close().expect("a clean end");
}
