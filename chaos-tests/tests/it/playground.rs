//! `selvedge playground` leaves nothing behind.

use std::{
    ffi::OsString,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::ensure;
use rustix::process::{Pid, Signal, kill_process};
use selvedge_chaos_tests::lab::{Lab, Options, PATIENCE, binary, eventually, limit};

/// Processes that name `dir` on their command line.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_string_lossy().into_owned();
    let all = fs::read_dir("/proc").expect("procfs").flatten();
    let line = |entry: fs::DirEntry| fs::read(entry.path().join("cmdline")).unwrap_or_default();
    all.map(|entry| String::from_utf8_lossy(&line(entry)).replace('\0', " "))
        .filter(|line| line.contains(&dir))
        .collect()
}

fn entries(dir: &Path) -> Vec<OsString> {
    fs::read_dir(dir).expect("a directory").flatten().map(|e| e.file_name()).collect()
}

/// What the loss of a cloud may take here: tests run beside each other, on machines that do other things.
fn drill_limit_s() -> String {
    limit(Duration::from_secs(5)).as_secs().to_string()
}

/// Real packets as root.
#[test]
fn check_proves_it_and_leaves_no_process_and_no_file() {
    prove_and_leave_nothing(&[]);
}

#[test]
fn without_real_packets_it_works_and_says_what_it_leaves_out() {
    let told = prove_and_leave_nothing(&["--rootless"]);
    assert!(told.contains("no real packets"), "{told}");
}

/// Returns what it said.
fn prove_and_leave_nothing(more: &[&str]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(binary::selvedge().expect("a binary"))
        .args(["playground", "--check", "-o", "json", "--dir"])
        .arg(dir.path())
        .args(more)
        .env("SELVEDGE_DRILL_LIMIT_S", drill_limit_s())
        .env("XDG_RUNTIME_DIR", dir.path())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let report: serde_json::Value =
        serde_json::from_str(out.lines().last().expect("a report")).expect("JSON");
    assert_eq!(report["passed"], true, "{report}");
    for check in report["checks"].as_array().expect("checks") {
        println!("{}: {}", check["check"], check["detail"]);
    }
    assert_eq!(processes_of(dir.path()), Vec::<String>::new());
    assert_eq!(entries(dir.path()), Vec::<OsString>::new());
    err.into_owned()
}

#[test]
fn two_run_side_by_side() {
    let lab = Lab::start(&Options::default()).expect("the first");
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(binary::selvedge().expect("a binary"))
        .args(["playground", "--check", "--rootless", "--processors", "1", "--dir"])
        .arg(dir.path())
        .env("SELVEDGE_DRILL_LIMIT_S", drill_limit_s())
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    lab.settle().expect("the first has not noticed");
    lab.close().expect("a clean end");
}

#[test]
fn nodes_do_not_outlive_a_killed_playground() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut playground = Command::new(binary::selvedge().expect("a binary"))
        .args(["playground", "-o", "json", "--processors", "1", "--dir"])
        .arg(dir.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let config = dir.path().join("aws-p1/node.toml");
    eventually("no node is started", PATIENCE, || {
        ensure!(!processes_of(&config).is_empty(), "none yet");
        Ok(())
    })
    .expect("a node");
    kill_process(Pid::from_child(&playground), Signal::KILL).expect("killed");
    playground.wait().expect("reaped");
    eventually("nodes are left over", Duration::from_secs(20), || {
        let left = processes_of(dir.path());
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
    .expect("the kernel ends them");
}
