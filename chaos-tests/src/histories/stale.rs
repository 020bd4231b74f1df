//! A read path that is stale on purpose, and the same without: the one is to be flagged, the other not.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use selvedge_history::{Report, check};

use super::{
    THREE,
    client::{Client, Notes, Reads},
    faults::NEAR,
    target,
};
use crate::lab::{
    PATIENCE, eventually,
    world::{Place, World},
};

/// Operations on each side of the cut.
const OPERATIONS: u32 = 20;

/// Cuts off one processor of three, writes through another, and reads through the one cut off.
///
/// # Errors
/// When the fabric cannot be brought so far.
pub fn a_stale_reader(seed: u64, reads: Reads) -> anyhow::Result<Report> {
    let mut world = World::near(&THREE, seed, NEAR)?;
    for cloud in THREE {
        world.start(Place { name: &format!("{cloud}-1"), cloud, is_processor: true })?;
    }
    observe(&world, reads).with_context(|| world.logs())
}

fn observe(world: &World, reads: Reads) -> anyhow::Result<Report> {
    let notes = Notes::new(reads);
    let (near, far) = (target(world, "aws-1"), target(world, "gcp-1"));
    let writer = Client { number: 1, notes: &notes, target: &near };
    let reader = Client { number: 2, notes: &notes, target: &far };
    eventually("the processors do not agree", PATIENCE, || {
        ensure!(writer.write("key") && reader.read_as("key", Reads::Linearizable).is_some(), "not yet");
        Ok(())
    })?;
    for other in ["aws", "azr"] {
        world.clouds.cut("gcp", other, true)?;
    }
    eventually("nobody writes without the one cut off", PATIENCE, || {
        ensure!(writer.write("key"), "not yet");
        Ok(())
    })?;
    for _ in 0..OPERATIONS {
        writer.write("key");
        if reads == Reads::Local {
            reader.read("key");
        }
    }
    // A linearizable read waits for a quorum that is not there; one is enough.
    reader.read("key");
    for other in ["aws", "azr"] {
        world.clouds.cut("gcp", other, false)?;
    }
    eventually("the one cut off does not come back", PATIENCE, || {
        ensure!(reader.read_as("key", Reads::Linearizable).is_some(), "not yet");
        Ok(())
    })?;
    std::thread::sleep(Duration::from_millis(100));
    Ok(check(&notes.into_history())?)
}
