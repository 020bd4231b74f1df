//! Data directories that are damaged, foreign, in use, or on a full disk: a clear error, no panic, and
//! nothing lost.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{
    Finished, Lab, LabNode, Newcomer, Options, PATIENCE, ask, binary, event, eventually,
    kernel::{Own, make_read_only, mount_memory, with_own},
    write_domain,
};

const GRAPH: &str = "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: first}\nspec: {}\n";
/// Exit code when no node can do it, the one that was asked included.
const UNAVAILABLE: i32 = 3;
/// Room for one node with some history, so that it is soon full.
const DISK_MEBIBYTES: u32 = 64;
/// Writes that are tried on a full disk: sled allocates ahead, so the first ones may still fit.
const WRITES_WHEN_FULL: u32 = 400;

fn small(clouds: &str) -> Options {
    Options {
        clouds: Some(clouds.to_owned()),
        processors: 1,
        graph: Some(GRAPH.to_owned()),
        ..Options::default()
    }
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status()?;
    ensure!(copied.success(), "cp: {copied}");
    Ok(())
}

/// Runs a node on what it has; it must end with an error that says `words`.
fn refuses(what: &str, node: &LabNode, words: &[&str]) -> anyhow::Result<()> {
    let ended = Newcomer::run(&node.config())?.ends().context(what.to_owned())?;
    said_clearly(what, &ended, words)
}

fn said_clearly(what: &str, ended: &Finished, words: &[&str]) -> anyhow::Result<()> {
    ensure!(ended.code == 1, "{what}: exit code {}\n{}", ended.code, ended.stderr);
    ensure!(!ended.stderr.contains("panicked"), "{what}:\n{}", ended.stderr);
    let error = ended.stderr.split("error:").nth(1).with_context(|| format!("{what}: no error"))?;
    for word in words {
        ensure!(error.contains(word), "{what}: no {word:?} in {error:?}");
    }
    println!("{what}:{}", error.trim_end());
    Ok(())
}

fn named(node: &LabNode) -> anyhow::Result<Vec<String>> {
    let domains = ask(node, &["get", "domain"])?;
    let names = domains.as_array().into_iter().flatten();
    Ok(names.filter_map(|d| d["metadata"]["name"].as_str()).map(str::to_owned).collect())
}

/// Starts it again and waits until it serves.
fn serves_again(node: &mut LabNode) -> anyhow::Result<()> {
    node.restart()?;
    let node = &*node;
    eventually(&format!("{} does not come back", node.name), PATIENCE, || {
        ensure!(node.is_running(), "it ended; {}", node.log_tail());
        let status = ask(node, &["status"])?;
        ensure!(status["ready"] == true && status["quorum"] == true, "{status}");
        Ok(())
    })?;
    Ok(())
}

/// Damages the file `name` of the data directory by `how`, expects an error, and mends it.
fn damaged(node: &LabNode, name: &str, how: impl FnOnce(&mut Vec<u8>), words: &[&str]) -> anyhow::Result<()> {
    let file = node.data().join(name);
    let good = fs::read(&file).with_context(|| file.display().to_string())?;
    let mut bad = good.clone();
    how(&mut bad);
    fs::write(&file, &bad)?;
    refuses(name, node, words)?;
    ensure!(fs::read(&file)? == bad, "{name} was changed by a node that refused it");
    fs::write(&file, good)?;
    Ok(())
}

fn files_of_its_own(node: &LabNode) -> anyhow::Result<()> {
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() / 2);
    damaged(node, "identity.json", cut, &["identity.json", "damaged", "restore it"])?;
    damaged(node, "node.key", cut, &["node.key"])?;
    damaged(node, "sealing.key", |bytes| bytes.clear(), &["sealing.key"])?;
    let moved = |bytes: &mut Vec<u8>| edit(bytes, "\"host\": \"", "\"host\": \"not-");
    damaged(node, "identity.json", moved, &["another machine", "two nodes must not share one key"])?;
    let newer = |bytes: &mut Vec<u8>| edit(bytes, "\"layout\": 1", "\"layout\": 7");
    damaged(node, "identity.json", newer, &["layout 7", "newer"])
}

fn edit(bytes: &mut Vec<u8>, from: &str, to: &str) {
    let text = String::from_utf8_lossy(bytes).replacen(from, to, 1);
    *bytes = text.into_bytes();
}

/// Puts `stand_in` in the place of the directory `name`, expects an error, and puts it back.
fn replaced(node: &LabNode, name: &str, stand_in: &Path, words: &[&str]) -> anyhow::Result<()> {
    let (place, aside) = (node.data().join(name), node.dir.join("aside"));
    fs::rename(&place, &aside)?;
    copy(stand_in, &place)?;
    refuses(&format!("{name} of another"), node, words)?;
    fs::remove_dir_all(&place)?;
    fs::rename(&aside, &place)?;
    Ok(())
}

fn overwritten(node: &LabNode) -> anyhow::Result<()> {
    let aside = node.dir.join("aside");
    copy(&node.data().join("raft"), &aside)?;
    let mut hit = 0;
    for entry in walk(&node.data().join("raft"))? {
        let mut bytes = fs::read(&entry)?;
        let length = bytes.len();
        bytes[length / 4..].iter_mut().for_each(|byte| *byte = 0x5a);
        hit += usize::from(length > 0);
        fs::write(&entry, bytes)?;
    }
    ensure!(hit > 0, "nothing to overwrite");
    refuses("an overwritten replica", node, &["raft"])?;
    fs::remove_dir_all(node.data().join("raft"))?;
    fs::rename(aside, node.data().join("raft"))?;
    Ok(())
}

fn walk(dir: &Path) -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() { found.extend(walk(&path)?) } else { found.push(path) }
    }
    Ok(found)
}

fn damage() -> anyhow::Result<()> {
    let mut lab = Lab::start(&small("aws,azr"))?;
    write_domain(&lab.nodes[0], "kept")?;
    let twice = Newcomer::run(&lab.nodes[0].config())?.ends()?;
    said_clearly("a directory in use", &twice, &["another selvedge runs", "stop it"])?;
    for node in &mut lab.nodes {
        node.stop()?;
    }
    files_of_its_own(&lab.nodes[0])?;
    replaced(&lab.nodes[0], "raft", &lab.nodes[1].data().join("raft"), &["azr-p1"])?;
    overwritten(&lab.nodes[0])?;
    // Facts are only remembered: a node that cannot read them sets them aside and hears them anew.
    for file in walk(&lab.nodes[0].data().join("facts"))? {
        fs::write(file, [0x5a; 4096])?;
    }
    lab.nodes[1].restart()?;
    serves_again(&mut lab.nodes[0])?;
    event(&lab.nodes[0], "facts-set-aside", &[])?;
    lab.settle()?;
    ensure!(named(&lab.nodes[0])?.contains(&"kept".to_owned()), "a write is lost");
    lab.close()
}

#[test]
fn damaged_and_foreign_directories_are_refused_and_lose_nothing() {
    damage().expect("the drill passes");
}

/// Writes until one is not accepted; returns the accepted ones and how the last ended.
fn write_until_full(node: &LabNode) -> anyhow::Result<(Vec<String>, Finished)> {
    let mut acknowledged = Vec::new();
    for number in 0..WRITES_WHEN_FULL {
        let name = format!("full-{number}");
        let finished = write_domain(node, &name)?;
        if finished.code != 0 {
            return Ok((acknowledged, finished));
        }
        acknowledged.push(name);
    }
    anyhow::bail!("{WRITES_WHEN_FULL} writes fitted on a full disk")
}

fn full_disk() -> anyhow::Result<()> {
    let disk = tempfile::tempdir()?;
    mount_memory(disk.path(), DISK_MEBIBYTES)?;
    let mut lab = Lab::start(&Options { dir: Some(disk.path().to_owned()), ..small("aws") })?;
    let ballast = disk.path().join("ballast");
    // Ends with an error: the disk is full then.
    let _ = fs::write(&ballast, vec![0; (DISK_MEBIBYTES as usize) << 20]);

    let (acknowledged, last) = write_until_full(&lab.nodes[0])?;
    println!("{} writes accepted, then exit code {}: {}", acknowledged.len(), last.code, last.stderr.trim());
    ensure!([1, 4, 6].contains(&last.code), "exit code {}: {}", last.code, last.stderr);
    ensure!(!last.stderr.contains("connection closed"), "whoever should have answered is gone");
    let node = &mut lab.nodes[0];
    ensure!(node.is_running(), "a full disk ended the node");
    // What needs no disk goes on.
    let alarms = ask(node, &["status"])?["alarms"].to_string();
    ensure!(alarms.contains("replica-stopped") && alarms.contains("No space left"), "{alarms}");
    let next = write_domain(node, "one-more")?;
    println!("the next write: {}", next.stderr.trim());
    ensure!(
        next.code == UNAVAILABLE && next.stderr.contains("check its disk"),
        "{}: {}",
        next.code,
        next.stderr
    );
    node.kill()?;
    refuses_or_waits(node)?;

    fs::remove_file(&ballast)?;
    serves_again(node)?;
    let present = named(node)?;
    let lost: Vec<_> = acknowledged.iter().filter(|name| !present.contains(name)).collect();
    ensure!(lost.is_empty(), "lost {lost:?} of {}", acknowledged.len());
    let again = write_domain(node, "room-again")?;
    ensure!(again.code == 0, "{}", again.stderr);
    lab.close()
}

/// Started on a full disk, a node serves what it has or says what is wrong; it never panics.
fn refuses_or_waits(node: &mut LabNode) -> anyhow::Result<()> {
    node.restart()?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    let log = fs::read_to_string(node.dir.join("log")).unwrap_or_default();
    ensure!(!log.contains("panicked"), "{log}");
    node.kill()
}

#[test]
fn a_full_disk_loses_nothing() {
    with_own(Own::Mounts, full_disk).expect("the drill passes");
}

/// Runs `selvedge fabric init` for a first node whose data directory is `place`.
fn init(place: &Path) -> anyhow::Result<Finished> {
    let started = std::time::Instant::now();
    let mut command = Command::new(binary::selvedge()?);
    command.args(["fabric", "init", "--name", "demo", "--node", "p1", "--zone", "aws", "--data-dir"]);
    let output = command.arg(place).output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Finished {
        code: output.status.code().unwrap_or(-1),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
        took: started.elapsed(),
    })
}

fn read_only() -> anyhow::Result<()> {
    let disk = tempfile::tempdir()?;
    mount_memory(disk.path(), DISK_MEBIBYTES)?;
    let (made, new) = (disk.path().join("made"), disk.path().join("new"));
    let first = init(&made)?;
    ensure!(first.code == 0, "{}", first.stderr);
    make_read_only(disk.path())?;
    let words = |place: &Path| [place.display().to_string(), "mount it writable".to_owned()];
    for (what, place) in
        [("init in a new directory", &new), ("init in one that is there", &disk.path().to_owned())]
    {
        let words = words(place);
        said_clearly(what, &init(place)?, &words.each_ref().map(String::as_str))?;
    }
    let ended = Newcomer::run(&made.join("node.toml"))?.ends()?;
    let words = words(&made);
    said_clearly("node run", &ended, &words.each_ref().map(String::as_str))
}

#[test]
fn a_read_only_directory_is_named_with_what_to_do() {
    with_own(Own::Mounts, read_only).expect("the drill passes");
}
