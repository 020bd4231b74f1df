//! A revoked node is out: at once, everywhere, with its endpoints.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{Lab, Options, PATIENCE, ask, dns, event, eventually, run, write_domain};

const REVOKED: &str = "gcp-p2";

fn is_out_for(lab: &Lab, gone: &BTreeSet<String>) -> anyhow::Result<()> {
    for node in lab.nodes.iter().filter(|n| n.name != REVOKED) {
        let members = ask(node, &["members"])?;
        let member = members.as_array().into_iter().flatten().find(|m| m["name"] == REVOKED);
        if let Some(member) = member {
            ensure!(member["admission"] == "revoked", "{} sees {member}", node.name);
            ensure!(member["state"] != "alive", "{} sees {member}", node.name);
        }
        for name in &lab.contracts {
            let found = dns::addresses(node.dns, &lab.fqdn(name))?;
            let dead = found.iter().find(|a| gone.contains(*a));
            ensure!(dead.is_none(), "{} names {dead:?} for {name}", node.name);
        }
    }
    Ok(())
}

fn drill() -> anyhow::Result<()> {
    let mut lab = Lab::start(&Options::default())?;
    let first = lab.nodes.first().context("a node")?;
    let endpoints = ask(first, &["endpoint", "list"])?;
    let of_revoked = endpoints.as_array().into_iter().flatten().filter(|e| e["node"] == REVOKED);
    let gone: BTreeSet<_> =
        of_revoked.filter_map(|e| e["addresses"][0].as_str().map(str::to_owned)).collect();
    ensure!(!gone.is_empty(), "{REVOKED} has no endpoint");

    let revoked = run(first, &["node", "revoke", REVOKED])?;
    ensure!(revoked.code == 0, "{}", revoked.stderr);
    let took = eventually("the revoked node is still in", PATIENCE, || is_out_for(&lab, &gone))?;
    println!("{REVOKED} is out everywhere after {took:?}");

    let through = write_domain(lab.node(REVOKED)?, "by-the-revoked")?;
    ensure!(through.code != 0, "a revoked node still writes");
    // A restart does not bring it back.
    let node = lab.node(REVOKED)?;
    node.kill()?;
    node.restart()?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    is_out_for(&lab, &gone)?;
    let through = write_domain(lab.node(REVOKED)?, "by-the-revoked")?;
    ensure!(through.code != 0, "a revoked node writes again after its restart");
    event(lab.node("aws-p1")?, "peer-refused", &[REVOKED, "revoked"])?;
    lab.close()
}

#[test]
fn a_revoked_node_is_out_at_once_and_for_good() {
    drill().expect("the drill passes");
}
