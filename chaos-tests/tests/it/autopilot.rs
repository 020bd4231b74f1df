//! A voter dies for good: another processor of its failure domain takes its seat, and nobody does anything.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, ensure};
use selvedge_chaos_tests::lab::{Lab, Options, PATIENCE, ask, eventually};

/// Voters by name, with their clouds.
fn voters(lab: &Lab) -> anyhow::Result<BTreeMap<String, String>> {
    let node = lab.running().next().context("no node runs")?;
    let quorum = ask(node, &["quorum", "status"])?;
    let voters = quorum["voters"].as_array().context("voters")?.iter().map(|voter| {
        let text = |field: &str| Some(voter[field].as_str()?.to_owned());
        let zone = text("zone").context("a zone")?;
        Ok((text("name").context("a name")?, zone.split('/').next().unwrap_or_default().to_owned()))
    });
    voters.collect()
}

/// Three voters, each in a cloud of its own, and all of them run.
fn well_placed(lab: &Lab) -> anyhow::Result<BTreeMap<String, String>> {
    let mut placed = BTreeMap::new();
    eventually("the voters are not well placed", PATIENCE, || {
        placed = voters(lab)?;
        let clouds: std::collections::BTreeSet<_> = placed.values().collect();
        ensure!(placed.len() == 3 && clouds.len() == 3, "{placed:?}");
        let dead = placed.keys().find(|name| !lab.running().any(|node| node.name == **name));
        ensure!(dead.is_none(), "{dead:?} votes and is dead: {placed:?}");
        Ok(())
    })?;
    Ok(placed)
}

#[test]
fn a_voter_that_died_for_good_is_replaced_by_its_neighbour() -> anyhow::Result<()> {
    let node_config = Some("dead-voter = \"3s\"\n".to_owned());
    let mut lab = Lab::start(&Options { processors: 2, node_config, ..Options::default() })?;
    for cloud in lab.clouds() {
        let before = well_placed(&lab)?;
        let lost = before.iter().find(|(_, of)| **of == cloud).context("a voter in the cloud")?.0.clone();
        lab.node(&lost)?.kill()?;
        let took = eventually(&format!("{lost} keeps its seat"), PATIENCE, || {
            let now = voters(&lab)?;
            // Never two changes at once: whatever is seen on the way differs by one seat at most.
            let others = before.keys().filter(|name| **name != lost);
            ensure!(others.clone().all(|name| now.contains_key(name)), "{before:?} became {now:?}");
            ensure!(!now.contains_key(&lost), "{now:?}");
            Ok(())
        })?;
        let after = well_placed(&lab)?;
        let heir = after.iter().find(|(name, _)| !before.contains_key(*name)).context("an heir")?;
        ensure!(*heir.1 == cloud, "{lost} of {cloud} was replaced by {heir:?}");
        println!("{} took the seat of {lost} after {took:?}", heir.0);
        // It comes back as a learner and waits for its turn.
        lab.node(&lost)?.restart()?;
        lab.settle()?;
        std::thread::sleep(Duration::from_secs(1));
        ensure!(well_placed(&lab)? == after, "its return moved a seat");
    }
    lab.close()
}
