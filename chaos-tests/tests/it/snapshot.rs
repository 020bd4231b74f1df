//! The whole intent in a file, and from there into a new fabric with keys of its own; leadership by request.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{Lab, LabNode, Options, PATIENCE, ask, eventually};
use serde_json::Value;

const ANOTHER: &str = "apiVersion: selvedge/v1\nkind: Domain\nmetadata: {name: another}\nspec: {}\n";
const WORDS: &str = "one long passphrase\n";
const KINDS: [&str; 3] = ["domain", "service", "contract"];

fn one_node(graph: Option<&str>) -> Options {
    let graph = graph.map(str::to_owned);
    Options { clouds: Some("aws".to_owned()), processors: 1, graph, ..Options::default() }
}

/// The objects of a kind, without what each fabric adds.
fn objects(node: &LabNode, kind: &str) -> anyhow::Result<Vec<(Value, Value)>> {
    let all = ask(node, &["get", kind])?;
    let all = all.as_array().context("a list")?;
    Ok(all.iter().map(|o| (o["metadata"].clone(), o["spec"].clone())).collect())
}

fn all_objects(node: &LabNode) -> anyhow::Result<Vec<Vec<(Value, Value)>>> {
    KINDS.into_iter().map(|kind| objects(node, kind)).collect()
}

#[test]
fn a_snapshot_brings_the_whole_intent_into_a_new_fabric() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = |name: &str| dir.path().join(name).to_string_lossy().into_owned();
    let (file, words, others) = (path("intent.snap"), path("words"), path("others"));
    for (path, text) in [(&words, WORDS), (&others, "another long passphrase\n")] {
        fs::write(path, text)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    }
    let saved = {
        let lab = Lab::start(&one_node(None))?;
        let told = ask(&lab.nodes[0], &["snapshot", "save", &file, "--passphrase-file", &words])?;
        println!("{told}");
        all_objects(&lab.nodes[0])?
    };
    ensure!(saved.iter().all(|objects| !objects.is_empty()), "{saved:?}");
    let bytes = fs::read(&file)?;
    ensure!(!bytes.windows(8).any(|w| w == b"Contract"), "in clear");

    let lab = Lab::start(&one_node(Some(ANOTHER)))?;
    let node = &lab.nodes[0];
    let restore = |more: &[&str]| ask(node, &[&["snapshot", "restore", &file], more].concat());
    for (what, more) in [
        ("objects already", ["--passphrase-file", &words].as_slice()),
        ("passphrase is not the one", &["--passphrase-file", &others, "--replace"]),
    ] {
        let refused = restore(more).err().with_context(|| format!("{what}: it is restored"))?;
        ensure!(format!("{refused:#}").contains(what), "{refused:#}");
    }
    ensure!(objects(node, "domain")?.len() == 1, "a refusal changes nothing");
    restore(&["--passphrase-file", &words, "--replace"])?;
    let mut restored = all_objects(node)?;
    restored[0].retain(|(metadata, _)| metadata["name"] != "another");
    ensure!(restored == saved, "{restored:#?}\n{saved:#?}");
    Ok(())
}

#[test]
fn leadership_is_transferred_and_handed_over_by_a_leader_that_stops() -> anyhow::Result<()> {
    let mut lab =
        Lab::start(&Options { processors: 1, graph: Some(ANOTHER.to_owned()), ..Options::default() })?;
    let leader = |node: &LabNode| -> anyhow::Result<String> {
        Ok(ask(node, &["quorum", "status"])?["leader"].as_str().context("no leader")?.to_owned())
    };
    eventually("not three voters", PATIENCE, || {
        let report = ask(&lab.nodes[0], &["quorum", "status"])?;
        ensure!(report["voters"].as_array().is_some_and(|v| v.len() == 3), "{report}");
        Ok(())
    })?;
    let first = leader(&lab.nodes[0])?;
    let next = lab.nodes.iter().map(|n| n.name.clone()).find(|n| *n != first && n.contains("-p"));
    let next = next.context("another processor")?;
    let asked = lab.nodes.iter().find(|n| n.name != first && n.name != next).context("a third")?;
    let report = ask(asked, &["quorum", "transfer", &next])?;
    ensure!(report["leader"] == *next, "{report}");
    let witness =
        lab.nodes.iter().position(|n| n.name != next && n.name.contains("-p")).context("a third")?;
    let term = report["term"].as_u64().context("a term")?;

    let stopping = lab.nodes.iter().position(|n| n.name == next).context("it runs")?;
    lab.nodes[stopping].stop()?;
    eventually("nobody leads", PATIENCE, || {
        let report = ask(&lab.nodes[witness], &["quorum", "status"])?;
        ensure!(report["leader"].as_str().is_some_and(|l| l != next) && report["quorum"] == true, "{report}");
        ensure!(report["term"].as_u64().is_some_and(|now| now > term), "{report}");
        Ok(())
    })?;
    let log = lab.nodes[stopping].log_tail();
    ensure!(log.contains("leadership was handed over"), "{log}");
    Ok(())
}
