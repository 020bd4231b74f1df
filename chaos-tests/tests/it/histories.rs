//! What clients see under kills, pauses, cuts and changes of membership has an order; and a voter that was
//! cut off does not disturb by its return. The long runs are `cargo xtask soak histories` and
//! `voter-returns`.

use std::time::Duration;

use anyhow::Context as _;
use selvedge_chaos_tests::{
    histories::{Reads, Round, a_stale_reader, play, voter_returns},
    lab::{
        count,
        kernel::{Own, with_own},
        world::{Place, World},
    },
};
use selvedge_history::Verdict;
use selvedge_lab::Conditions;

/// Seconds of load and faults.
const SECONDS: u32 = 25;
/// Cuts of a voter.
const CYCLES: u32 = 5;

#[test]
fn what_clients_see_under_faults_has_an_order() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let length = Duration::from_secs(count("SELVEDGE_HISTORY_SECONDS", SECONDS).into());
        let played = play(Round { seed: 2_026, length, wide: false })?;
        println!("{} checked, {:?}", played.report.checked, played.faults);
        assert!(played.report.checked > 20, "hardly anything was answered: {:?}", played.report);
        assert_eq!(played.report.verdict, Verdict::Linearizable, "{:?}", played.report.verdict);
        Ok(())
    })?;
    Ok(())
}

/// The checker is shown to see what it is for: reads that nodes answer by themselves are stale behind a cut,
/// and are flagged; linearizable ones through the same clients, nodes and cut are not.
#[test]
fn stale_reads_are_flagged_and_linearizable_ones_are_clean() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let clean = a_stale_reader(7, Reads::Linearizable)?;
        assert_eq!(clean.verdict, Verdict::Linearizable, "{:?}", clean.verdict);
        let stale = a_stale_reader(7, Reads::Local)?;
        let Verdict::Violated(violation) = stale.verdict else { panic!("not flagged: {stale:?}") };
        println!("{violation}");
        Ok(())
    })?;
    Ok(())
}

/// A newcomer has no policy by which others could know it, and the leader must bring it one.
#[test]
fn a_processor_joins_through_one_that_does_not_lead() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let clouds = ["aws", "azr", "gcp"];
        let mut world = World::near(&clouds, 2_026, Conditions::IDEAL)?;
        for cloud in clouds {
            world.start(Place { name: &format!("{cloud}-1"), cloud, is_processor: true })?;
        }
        let quorum = world.ask("aws-1", &["quorum", "status"])?;
        let leader = quorum["leader"].as_str().context("no leader")?.to_owned();
        let seed = world.names().into_iter().find(|name| *name != leader).context("no other")?;
        world.start_by(Place { name: "azr-2", cloud: "azr", is_processor: true }, Some(&seed))
    })?;
    Ok(())
}

#[test]
fn the_return_of_a_voter_changes_no_leader() -> anyhow::Result<()> {
    with_own(Own::Host, || {
        let cycles = count("SELVEDGE_VOTER_RETURNS", CYCLES);
        let changes = voter_returns(cycles, 2_026)?;
        assert_eq!(changes, 0, "of {cycles} returns");
        Ok(())
    })?;
    Ok(())
}
