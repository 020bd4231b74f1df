//! Two clouds of three are killed: no quorum, but facts flow and names answer.

use std::{path::Path, time::Duration};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::{
    lab::{Lab, LabNode, Options, PATIENCE, ask, dns, eventually, limit, write_domain},
    scenario::kill9::writes_go_on,
};

/// Exit code of a write without a quorum.
const NO_QUORUM: i32 = 4;
const SERVICE: &str = "voting-svc@voting-app";

/// A token of the voting service, as a file in `dir`.
pub(crate) fn service_token(node: &LabNode, dir: &Path) -> anyhow::Result<String> {
    let created = ask(node, &["token", "service", "--service", SERVICE, "--ttl", "24h"])?;
    let file = dir.join("service.token");
    std::fs::write(&file, created["token"].as_str().context("a token")?)?;
    Ok(file.to_string_lossy().into_owned())
}

/// Registers an endpoint on one node; returns its address.
pub(crate) fn register(node: &LabNode, token_file: &str) -> anyhow::Result<String> {
    let args =
        ["endpoint", "register", "--service", SERVICE, "--token-file", token_file, "--port", "tcp/80=8080"];
    let endpoint = ask(node, &args)?;
    Ok(endpoint["addresses"][0].as_str().context("an address")?.to_owned())
}

fn names_still_answer(lab: &Lab) -> anyhow::Result<()> {
    for node in lab.running() {
        for name in &lab.contracts {
            let found = dns::addresses(node.dns, &lab.fqdn(name))?;
            ensure!(!found.is_empty(), "{} has no address for {name}", node.name);
        }
    }
    Ok(())
}

fn write_is_refused(lab: &Lab) -> anyhow::Result<()> {
    let node = lab.running().next().context("a survivor")?;
    let refused = write_domain(node, "without-a-quorum")?;
    ensure!(refused.code == NO_QUORUM, "exit code {}: {}", refused.code, refused.stderr);
    ensure!(refused.took < limit(Duration::from_secs(3)), "refused only after {:?}", refused.took);
    let voters = ask(node, &["quorum", "status"])?["voters"].clone();
    let missing = voters.as_array().into_iter().flatten().filter_map(|v| v["name"].as_str());
    let missing: Vec<_> = missing.filter(|name| lab.running().all(|n| n.name != **name)).collect();
    ensure!(!missing.is_empty(), "no voter is missing: {voters}");
    for name in missing {
        ensure!(refused.stderr.contains(name), "the refusal does not name {name}: {}", refused.stderr);
    }
    println!("refused after {:?}: {}", refused.took, refused.stderr.trim());
    Ok(())
}

fn drill() -> anyhow::Result<()> {
    let mut lab = Lab::start(&Options::default())?;
    let dir = tempfile::tempdir()?;
    let clouds = lab.clouds();
    let token = service_token(lab.nodes.first().context("a node")?, dir.path())?;
    lab.settle()?;
    for cloud in &clouds[1..] {
        lab.kill_cloud(cloud)?;
    }
    // What the dead leave behind has to be noticed before it can be refused for want of a quorum.
    eventually("the write is not refused", PATIENCE, || write_is_refused(&lab))?;
    names_still_answer(&lab)?;

    let survivors: Vec<_> = lab.running().collect();
    let (one, other) = (survivors[0], survivors[1]);
    let address = register(one, &token)?;
    let name = lab.fqdn("voting-frontend.voting-app");
    let named = eventually("the new endpoint is not named", limit(Duration::from_secs(2)), || {
        let found = dns::addresses(other.dns, &name)?;
        ensure!(found.contains(&address), "{} names {found:?}, not {address}", other.name);
        Ok(())
    })?;
    println!("an endpoint of {} is named by {} after {named:?}", one.name, other.name);

    lab.restart_all()?;
    writes_go_on(&lab, "after-two-clouds")?;
    lab.settle()?;
    lab.close()
}

#[test]
fn facts_flow_and_names_answer_without_a_quorum() {
    drill().expect("the drill passes");
}
