//! A bounded share of what the long runs do: the long ones are `cargo xtask soak sim`.

use selvedge_sim::{Mutant, Scenario, run};

#[test]
fn nothing_forbidden_is_seen_and_healed_nodes_agree() {
    for seed in 0..8 {
        let outcome = run(Scenario::of(seed, None), None);
        assert_eq!(outcome.violation, None, "{outcome}");
    }
}

#[test]
fn a_seed_says_everything() {
    let digest = || run(Scenario::of(11, Some(4)), None).digest;
    assert_eq!(digest(), digest());
}

/// Where to begin to look for a seed that shows a planted bug: which one does changes with everything that
/// the simulation does.
const LOOK_FROM: [(Mutant, u64); 13] = [
    (Mutant::StaleTables, 1),
    (Mutant::StaleNames, 6),
    (Mutant::DeafToExchange, 0),
    (Mutant::MoodyPlanner, 0),
    (Mutant::ForgottenTombstones, 0),
    (Mutant::Unforgiving, 0),
    (Mutant::StaleRoutes, 1),
    (Mutant::LonelyMajority, 0),
    (Mutant::ForgottenVotes, 5),
    (Mutant::AnyLog, 2),
    (Mutant::CrowdedSeats, 3),
    (Mutant::HastyPlacement, 2),
    (Mutant::AnyEpoch, 6),
];
/// How many seeds are tried here; `cargo xtask soak mutants` tries up to a thousand.
const SEEDS: u64 = 20;

#[test]
fn planted_bugs_are_seen() {
    // Few seeds lead a packet near a link that it must avoid, or somebody back to a leader in fair weather.
    let rare = [Mutant::AnyWay, Mutant::EagerPreVote];
    let looked_for = |m| rare.contains(m) || LOOK_FROM.iter().any(|(seen, _)| seen == m);
    assert!(Mutant::ALL.iter().all(looked_for));
    for (mutant, from) in LOOK_FROM {
        let violation = |seed| run(Scenario::of(seed, None), Some(mutant)).violation;
        let mut seeds = from..from + SEEDS;
        let seen = seeds.find_map(|seed| violation(seed).map(|violation| (seed, violation.invariant)));
        let (seed, invariant) = seen.unwrap_or_else(|| panic!("{mutant:?} is not seen"));
        println!("{mutant:?}: seed {seed}");
        assert!(mutant.caught_by().contains(&invariant), "{mutant:?} with seed {seed}: {invariant}");
    }
}
