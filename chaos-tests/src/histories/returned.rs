//! A voter that was cut off returns: the leader stays, and so does the term.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{
    THREE,
    faults::{NEAR, leader_at},
};
use crate::{
    lab::{
        PATIENCE, eventually,
        world::{Place, World},
    },
    scenario::Dice,
};

/// How long after its return a voter could still disturb the leader: three of its longest election timeouts.
const WATCH: Duration = Duration::from_secs(4);

/// Cuts one voter of three off and lets it return, `cycles` times; returns how often the leader or its term
/// changed by that.
///
/// # Errors
/// When the voter does not find back, or there is no leader at all.
pub fn voter_returns(cycles: u32, seed: u64) -> anyhow::Result<u32> {
    let mut world = World::near(&THREE, seed, NEAR)?;
    for cloud in THREE {
        world.start(Place { name: &format!("{cloud}-1"), cloud, is_processor: true })?;
    }
    run(&world, cycles, &mut Dice::new(seed)).with_context(|| world.logs())
}

fn run(world: &World, cycles: u32, dice: &mut Dice) -> anyhow::Result<u32> {
    let (mut changes, names) = (0, world.names());
    for cycle in 1..=cycles {
        let before = agreed(world, &names)?;
        let others: Vec<_> = THREE.iter().filter(|cloud| !before.1.starts_with(**cloud)).collect();
        let voter = others[usize::try_from(dice.below(others.len() as u64))?];
        isolate(world, voter, true)?;
        let away = Duration::from_millis(2_000 + dice.below(4_000));
        std::thread::sleep(away);
        // Something to catch up with.
        let written = world.run(&before.1, &["token", "admin", "--name", &format!("cycle-{cycle}")])?;
        ensure!(written.code == 0, "the rest writes nothing: {}", written.stderr);
        isolate(world, voter, false)?;
        std::thread::sleep(WATCH);
        let after = agreed(world, &names)?;
        let kept = before == after;
        println!("cycle {cycle}: {voter} away for {away:?}; before {before:?}, after {after:?}");
        changes += u32::from(!kept);
    }
    Ok(changes)
}

fn isolate(world: &World, cloud: &str, cut: bool) -> anyhow::Result<()> {
    for other in THREE.iter().filter(|other| **other != cloud) {
        world.clouds.cut(cloud, other, cut)?;
    }
    Ok(())
}

/// Term and leader, once all voters name the same and there are three of them.
fn agreed(world: &World, names: &[String]) -> anyhow::Result<(u64, String)> {
    let mut found = None;
    eventually("the voters do not agree on a leader", PATIENCE, || {
        let known: Vec<_> = names.iter().map(|name| leader_at(world, name)).collect();
        let first = known.first().cloned().flatten().context("no leader is known")?;
        ensure!(known.iter().all(|k| k.as_ref() == Some(&first)), "{known:?}");
        let quorum = world.ask(&first.1, &["quorum", "status"])?;
        let voters = quorum["voters"].as_array().map_or(0, Vec::len);
        ensure!(voters == names.len(), "{quorum}");
        found = Some(first);
        Ok(())
    })?;
    found.context("no leader")
}
